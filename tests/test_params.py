"""params.yaml: the files that ship are valid, and a wrong value is one line that names its key."""

import os
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.params import load_params
from pipeline.runtime.errors import UserError
from tests.params import PRESET


def write(folder: Path, changes: dict[str, object], remove: str = "") -> Path:
    """The default preset with dotted keys changed."""
    values = YAML(typ="safe").load(PRESET)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[key] = value
    if remove:
        section, key = remove.split(".")
        del values[section][key]
    path = folder / "params.yaml"
    YAML(typ="safe").dump(values, path)
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_params(path)
    text = str(error.value)
    assert text.isprintable() and str(path) in text
    assert len(text) < 300 + len(str(path)), text
    return text


def test_the_default_file_is_valid(tmp_path, monkeypatch):
    # Not the checkout's own params.yaml, which is the user's to change.
    (tmp_path / "params.yaml").write_bytes(PRESET.read_bytes())
    monkeypatch.chdir(tmp_path)
    params = load_params()
    assert params.num_tokens == params.grid**2
    assert params.grid * params.tokenizer.downsampling == params.data.image_size


def test_numbers_in_exponent_notation_are_numbers(tmp_path):
    text = PRESET.read_text(encoding="utf-8").replace("weight_decay: 4.5e-2", "weight_decay: 1e-4")
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_params(path).training.weight_decay == 1e-4


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("runs", "runs"),
        ("/data/job:7", "/data/job:7"),
        ("~/runs", "/home/me/runs"),
    ],
)
def test_a_storage_path_is_a_folder_however_it_is_written(given, taken, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    params = load_params(write(tmp_path, {"ray.storage_path": given}))
    assert params.ray.storage_path == taken
    assert type(params).model_validate(params.model_dump()) == params  # as it travels to workers


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.learning_rate": 1e-3}, ["training.learning_rate", "unknown key"]),
        ({"surprise": 1}, ["surprise", "unknown key"]),
        ({"training.steps": "many"}, ["training.steps", "'many'"]),
        ({"training.steps": 1.5}, ["training.steps", "1.5"]),
        ({"training.steps": 0}, ["training.steps", "0"]),
        ({"training.bf16": 1}, ["training.bf16"]),
        ({"training.lr": -1.0}, ["training.lr", "-1.0"]),
        ({"training.ema_decay": 1.0}, ["training.ema_decay"]),
        ({"training.loss_on": "some"}, ["training.loss_on", "'masked'", "'all'"]),
        ({"training.mask_schedule": "cosin"}, ["training.mask_schedule", "'cosin'", "cosine"]),
        ({"sweep.schedules": ["cosine", "pow2"]}, ["sweep.schedules", "'pow2'", "square"]),
        ({"sweep.schedules": []}, ["sweep.schedules"]),
        ({"sweep.iterations": [2, 4, 2]}, ["sweep", "iterations", "twice"]),
        ({"sweep.seeds": [0, 0]}, ["sweep.seeds", "twice"]),
        ({"evaluation.seeds": [1, 0, 1]}, ["evaluation.seeds", "twice"]),
        ({"evaluation.seeds": [2**53, 1]}, ["evaluation.seeds", str(2**53 - 1)]),
        ({"classifier.batch_size": 1}, ["classifier.batch_size", "2"]),
        ({"evaluation.seeds": []}, ["evaluation.seeds"]),
        ({"evaluation.seeds": [-1]}, ["evaluation.seeds", "-1"]),
        ({"training.other_label_smoothings": [0.0, 0.0]}, ["other_label_smoothings", "twice"]),
        ({"training.other_label_smoothings": [0.1]}, ["other_label_smoothings", "itself"]),
        ({"training.other_label_smoothings": [1.0]}, ["training.other_label_smoothings", "1.0"]),
        ({"sweep.crossed": ["arccos"]}, ["sweep.crossed", "arccos", "none of sweep.schedules"]),
        ({"sweep.crossed": ["cosine", "cosine"]}, ["sweep", "crossed", "twice"]),
        ({"autoregressive.label_smoothing": 0.1}, ["autoregressive.label_smoothing", "unknown"]),
        ({"sweep.schedules": ["cosine", "cosine"]}, ["sweep", "schedules", "twice"]),
        ({"data.image_size": 30}, ["data.image_size", "30", "divisible by 4"]),
        ({"decoding.iterations": 50}, ["decoding.iterations", "50", "49 tokens"]),
        ({"sweep.iterations": [4, 64]}, ["sweep.iterations", "64", "49 tokens"]),
        ({"ray.num_workers": 3}, ["training.batch_size", "ray.num_workers 3"]),
        ({"tokenizer.batch_size": 7, "ray.num_workers": 2}, ["tokenizer.batch_size", "workers 2"]),
        ({"classifier.batch_size": 7, "ray.num_workers": 2}, ["classifier.batch", "workers 2"]),
        ({"cas.workers_per_classifier": 3}, ["cas.workers_per_classifier", "128", "divisor"]),
        ({"cas.workers_per_classifier": None}, ["cas.workers_per_classifier", "ray.elastic"]),
        ({"sweep.workers_per_trial": None}, ["sweep.workers_per_trial: null", "choose a number"]),
        ({"sweep.workers_per_trial": "None"}, ["whole number", "not 'None'", "is null in YAML"]),
        ({"ray.loaders_per_worker": -1}, ["ray.loaders_per_worker", "-1"]),
        ({"ray.loaders_per_worker": 1}, ["ray.loaders_per_worker", "2 CPUs", "worker is 1"]),
        ({"training.accumulate": 3}, ["training.accumulate", "3 parts", "64 images"]),
        ({"ray.storage_path": "s3:/bucket"}, ["ray.storage_path", "s3:/bucket", "every node"]),
        ({"ray.storage_path": "gs://me:secret@b"}, ["ray.storage_path", "gs://me:***@b"]),
        ({"ray.storage_path": "abfs://b/x"}, ["ray.storage_path", "none of s3:// and gs://"]),
        ({"ray.storage_path": "./s3:/bucket"}, ["ray.storage_path", "./s3:/bucket", "address"]),
        ({"ray.storage_path": "file://host/runs"}, ["ray.storage_path", "file://host", "address"]),
        ({"ray.storage_path": "~nobody-here/runs"}, ["ray.storage_path", "home"]),
        ({"ray.storage_path": "data/images"}, ["ray.storage_path", "data/images", "DVC deletes"]),
        ({"ray.storage_path": "data"}, ["ray.storage_path", "a stage makes"]),
        ({"ray.storage_path": "models/tokenizer/runs"}, ["ray.storage_path", "DVC deletes"]),
        ({"ray.storage_path": "./runs/../pipeline"}, ["ray.storage_path", "pipeline", "hashes"]),
        ({"data.source": "folder:data/images"}, ["data.source", "DVC deletes", "move"]),
        ({"data.download_dir": "data/../results/x"}, ["data.download_dir", "results", "move"]),
        ({"data.download_dir": "~/sets"}, ["data.download_dir", "'~/sets'", "write the home"]),
        ({"tokenizer.pretrained": "models/tokenizer/a.bin"}, ["tokenizer.pretrained", "move it"]),
        ({"evaluation.manifold_images": 3}, ["evaluation.manifold_images", "neighbors 3"]),
        ({"mlflow.experiment": "x" * 501}, ["mlflow.experiment", "500 characters"]),
        ({"sweep.workers_per_trial": 5}, ["sweep.workers_per_trial", "5"]),
        ({"transformer.heads": 5}, ["transformer", "heads", "5", "128"]),
        ({"tokenizer.filters": 65536}, ["tokenizer.multipliers", "65536", "channels"]),
        ({"tokenizer.filters": 48}, ["tokenizer.filters", "32"]),
        ({"tokenizer.discriminator": "release"}, ["tokenizer.discriminator", "'stylegan'"]),
        ({"tokenizer.discriminator": "stylegan"}, ["tokenizer.discriminator", "28", "patch"]),
        ({"tokenizer.codebook_size": 65536}, ["tokenizer.codebook_size", "65535"]),
        ({"data.source": "imagenet"}, ["data.source", "'imagenet'"]),
        ({"data.channels": 2}, ["data.channels"]),
        ({"data.crop_scale": [0.9, 0.5]}, ["data", "crop_scale", "0.9"]),
        ({"data.crop_scale": [0.5, 1.5]}, ["data", "crop_scale", "1.0"]),
        ({"classifier.crop_scale": [0.9, 0.5]}, ["classifier.crop_scale", "0.9"]),
        ({"classifier.crop_scale": [0.5, 1.5]}, ["classifier.crop_scale", "1.0"]),
        ({"decoding.rounding": "round"}, ["decoding.rounding", "'floor'", "'ceil'"]),
        ({"data.val_fraction": 1.0}, ["data.val_fraction"]),
        ({"evaluation.extractor": "vgg"}, ["evaluation.extractor", "'inception'"]),
        ({"analysis.best_by": "nll"}, ["analysis.best_by", "'fid'"]),
        ({"training": None}, ["training"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"sweep.seeds": [0, -1]}, ["sweep.seeds", "-1"]),
        ({"training.lr": float("inf")}, ["training.lr", "inf"]),
        ({"training.lr": float("nan")}, ["training.lr", "nan"]),
        ({"temperature.values": [1.0, float("inf")]}, ["temperature.values.1", "inf"]),
        ({"data.crop_ratio": [0.9, float("nan")]}, ["data.crop_ratio.1", "nan"]),
        ({"training.lr": 1e300}, ["training.lr", "1e+30"]),
        ({"tokenizer.entropy_temperature": 1e-320}, ["tokenizer.entropy_temperature"]),
        *(
            ({key: values}, [key, "listed twice"])
            for key, values in (
                ("evaluation.seeds", [0, 1, 0]),
                ("training.other_label_smoothings", [0.0, 0.0]),
                ("training.other_label_smoothings", [0.1 + 1e-13]),
                ("temperature.values", [1.0, 4.5, 1]),
                ("rejection.acceptance", [0.5, 0.5]),
                ("reconstruction.mask_ratios", [0.0, -0.0]),
                ("temperature.values", [4.5, 4.500000000000001]),
                ("speed.grids", [4, 4]),
                ("speed.batch_sizes", [1, 1]),
            )
        ),
        ({"training.steps": 10**4000}, ["training.steps", "1000000000"]),
        ({"transformer.hidden": 10**9}, ["transformer.hidden", "65536"]),
        ({"transformer.layers": 10**9}, ["transformer.layers", "128"]),
        ({"data.image_size": 2**20}, ["data.image_size", "8192"]),
        ({"tokenizer.multipliers": [1], "data.image_size": 4096}, ["4096×4096 tokens", "256×256"]),
        ({"tokenizer.multipliers": [1] * 64}, ["tokenizer.multipliers", "12"]),
        ({"seed": 2**64}, ["seed", str(2**53 - 1)]),
        ({"evaluation.neighbors": 320}, ["sweep.samples", "evaluation.neighbors 320"]),
        ({"evaluation.is_splits": 321}, ["sweep.samples", "is_splits 321"]),
        ({"temperature.samples": 9, "evaluation.is_splits": 10}, ["temperature.samples", "10"]),
        ({"editing.images": 9, "evaluation.is_splits": 10}, ["editing.images", "is_splits 10"]),
        ({"ray.storage_path": "a\0b"}, ["ray.storage_path", "printed"]),
        ({"ray.storage_path": ""}, ["ray.storage_path"]),
        ({"mlflow.experiment": "  "}, ["mlflow.experiment"]),
        ({"mlflow.experiment": "two\nlines"}, ["mlflow.experiment", "\\n"]),
        ({"data.source": "folder:/x\x1b[31m"}, ["data.source", "x1b"]),
        ({"data.source": "folder:" + "x" * 10**5}, ["data.source", "4096"]),
        ({"data.download_dir": "x" * 5000}, ["data.download_dir", "4096"]),
        ({"preset": {"a": ["x" * 1000] * 100}}, ["preset", "string"]),
        ({"x" * 1000: 1}, ["unknown key"]),
        ({"a\nb": 1}, ["'a\\nb': unknown key"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_value_names_its_key_in_one_line(tmp_path, changes, words):
    text = message(write(tmp_path, changes))
    assert all(word in text for word in words), text


def test_a_missing_key_is_named(tmp_path):
    text = message(write(tmp_path, {}, remove="training.warmup_steps"))
    assert "training.warmup_steps: missing" in text


def test_several_mistakes_are_counted(tmp_path):
    text = message(write(tmp_path, {"training.steps": 0, "training.lr": "fast", "seed": 0.5}))
    assert "and 2 more" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("training: 1\ntraining: 2\n", "not valid YAML (line 2, column 1: found duplicate key"),
        ("a: !!python/object/apply:os.mkdir [x]\n", "not valid YAML (line 1, column 4: could not"),
        ("- a\n- b\n", "must hold sections"),
        ("#" * 2**21, "more than the limit of 1,048,576"),
    ],
)
def test_a_file_that_is_no_parameter_file(tmp_path, content, words):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert words in message(path)


@pytest.mark.parametrize("what", ["folder", "fifo", "device", "bytes"])
def test_what_is_no_text_file(tmp_path, what):
    path = tmp_path / "params.yaml"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"seed: \xff\xfe")
    words = {"folder": "a folder", "bytes": "not valid YAML"}
    assert words.get(what, "a device or pipe") in message(path)


def test_a_mistyped_key_is_named_before_the_one_that_is_missing_for_it(tmp_path):
    path = write(tmp_path, {"training.warmup_stepss": 5, "classifier.lr": "x"})
    values = YAML(typ="safe").load(path)
    del values["training"]["warmup_steps"]
    YAML(typ="safe").dump(values, path)
    text = message(path)
    assert "training.warmup_stepss: unknown key; did you mean warmup_steps? (and 2 more)" in text


def test_a_key_that_is_no_word(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PRESET.read_text(encoding="utf-8") + "\n1: 2\n", encoding="utf-8")
    assert ": 1: " in message(path)


def test_a_missing_file_says_where_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml is missing; run from the project's root"):
        load_params()


def test_sets_without_kid_and_neighbours_may_be_smaller_than_these_need(make_params):
    few = make_params(temperature={"samples": 2}, editing={"images": 2})
    assert few.evaluation.kid_subset_size > 2 and few.evaluation.neighbors > 2


def test_values_cannot_be_changed_after_loading():
    params = load_params(PRESET)
    with pytest.raises(ValueError, match="frozen"):
        params.training.steps = 5
