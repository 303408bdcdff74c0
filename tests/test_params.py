"""params.yaml: the files that ship are valid, and a wrong value is one line that names its key."""

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
    assert "\n" not in text and str(path) in text
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
        ({"sweep.seeds": [0, 0]}, ["sweep", "seeds", "twice"]),
        ({"sweep.schedules": ["cosine", "cosine"]}, ["sweep", "schedules", "twice"]),
        ({"data.image_size": 30}, ["data.image_size", "30", "divisible by 4"]),
        ({"decoding.iterations": 50}, ["decoding.iterations", "50", "49 tokens"]),
        ({"sweep.iterations": [4, 64]}, ["sweep.iterations", "64", "49 tokens"]),
        ({"ray.num_workers": 3}, ["training.batch_size", "ray.num_workers 3"]),
        ({"sweep.workers_per_trial": 5}, ["sweep.workers_per_trial", "5"]),
        ({"transformer.heads": 5}, ["transformer", "heads", "5", "96"]),
        ({"tokenizer.filters": 48}, ["tokenizer.filters", "32"]),
        ({"tokenizer.codebook_size": 65536}, ["tokenizer.codebook_size", "65535"]),
        ({"data.source": "imagenet"}, ["data.source", "'imagenet'"]),
        ({"data.channels": 2}, ["data.channels"]),
        ({"data.crop_scale": [0.9, 0.5]}, ["data", "crop_scale", "0.9"]),
        ({"data.crop_scale": [0.5, 1.5]}, ["data", "crop_scale", "1.0"]),
        ({"data.val_fraction": 1.0}, ["data.val_fraction"]),
        ({"evaluation.extractor": "vgg"}, ["evaluation.extractor", "'inception'"]),
        ({"analysis.best_by": "nll"}, ["analysis.best_by", "'fid'"]),
        ({"training": None}, ["training"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"sweep.seeds": [0, -1]}, ["sweep.seeds", "-1"]),
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
        ("training: [", "not valid YAML"),
        ("training: 1\ntraining: 2\n", "not valid YAML"),
        ("- a\n- b\n", "must hold sections"),
        ("", "must hold sections"),
    ],
)
def test_a_file_that_is_no_parameter_file(tmp_path, content, words):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert words in message(path)


def test_a_key_that_is_no_word(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PRESET.read_text(encoding="utf-8") + "\n1: 2\n", encoding="utf-8")
    assert ": 1: " in message(path)


def test_a_missing_file_says_where_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml is missing; run from the project's root"):
        load_params()


def test_values_cannot_be_changed_after_loading():
    params = load_params(PRESET)
    with pytest.raises(ValueError, match="frozen"):
        params.training.steps = 5
