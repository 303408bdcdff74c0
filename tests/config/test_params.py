"""params.yaml: a wrong value is one line that names its key and the way out."""

import math

import pytest
from torchvision import models

from pipeline.config.params import Params, load_params
from pipeline.config.schema import RESNETS
from pipeline.runtime.errors import UserError
from tests.errors import refused
from tests.params import PRESET, make_params, write_params


def error_of(path) -> UserError:
    """Return the error, which must name the file."""
    with refused() as error:
        load_params(path)
    assert error.value.subject.startswith(f"{path}: ") and len(str(error.value)) <= 600
    return error.value


WRONG = [
    ("training.steps", "many"),
    ("training.steps", 1.5),
    ("training.steps", 0),
    ("training.bf16", 1),
    ("training.lr", -1.0),
    ("training.lr", math.inf),
    ("training.ema_decay", 1.0),
    ("training.loss_on", "some"),
    ("training.other_label_smoothings", [0.2, 0.2]),
    ("training.other_label_smoothings", [0.1]),  # training.label_smoothing itself
    ("classifier.architecture", "torchvision:vgg16"),
    ("classifier.batch_size", 1),
    ("data.crop_ratio", [1.0]),
    ("data.channels", 2),
    ("data.crop_scale", [0.5, 1.5]),
    ("data.source", "imagenet"),
    ("data.source", "folder:data/images"),
    ("data.download_dir", "data/../results/x"),
    ("data.image_size", 30),
    ("tokenizer.codebook_size", 65536),
    ("tokenizer.filters", 48),
    ("tokenizer.perceptual", "lpips_vgg"),  # of 28 pixels
    ("tokenizer.discriminator", "stylegan"),
    ("tokenizer.pretrained", "models/tokenizer/a.bin"),
    ("decoding.iterations", 50),  # of 49 tokens
    ("decoding.guidance_scale", 1.0),
    ("sweep.iterations", [4, 64]),
    ("sweep.schedules", []),
    ("sweep.crossed", ["arccos"]),
    ("sweep.designs", [{"schedule": "arccos"}]),
    ("sweep.designs", [{"iterations": [4, 64]}]),
    ("sweep.designs", [{"guidance_scale": 1.0}]),
    ("sweep.designs", [{"sampler": ["random", "halto"]}]),
    ("sweep.designs", [{"samplers": ["random"]}]),
    ("sweep.designs", [{"top_k": 1.5}]),
    ("sweep.designs", [{"steps": [200, 0]}]),
    ("sweep.designs", [{"bf16": {"a": 1}}]),
    ("oracle.designs", [{"samplers": ["random"]}]),
    ("oracle.total_tokens", 1000),
    ("decoding.sampler", "halto"),
    ("decoding.top_p", 0.0),
    ("decoding.softmax_temperature", 1e-20),  # the way to greedy decoding is top_k: 1
    ("decoding.guidance_schedule", "cosine"),
    ("sweep.workers_per_trial", 5),
    ("sweep.workers_per_trial", None),
    ("cas.workers_per_classifier", 3),
    ("evaluation.seeds", [1, 0, 1]),
    ("evaluation.seeds", [2**53]),
    ("evaluation.second_extractor", "classifier"),
    ("editing.dilate", 1),
    ("ray.num_workers", 3),
    ("ray.loaders_per_worker", 1),
    ("ray.storage_path", ""),
    ("ray.storage_path", "abfs://bucket/x"),
    ("ray.storage_path", "s3:/bucket"),
    ("ray.storage_path", "models/tokenizer/runs"),
    ("training.accumulate", 3),
    ("training", None),
    ("transformer", {"heads": 5}),
    ("seed", -1),
    ("preset", ["x" * 1000] * 100),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_names_its_key(key, value, tmp_path):
    section, _, name = key.partition(".")
    changed = {section: {name: value} if name else value}
    assert error_of(write_params(tmp_path, **changed)).subject.split(": ")[1].startswith(key)


@pytest.mark.parametrize(
    ("section", "key", "most"),
    [
        ("evaluation", "neighbors", 319),
        ("evaluation", "is_splits", 320),
        ("evaluation", "kid_subset_size", 320),
        ("classifier", "width", 79),  # 316 features
    ],
)
def test_samples_suffice_for_every_metric(section, key, most, tmp_path):
    assert make_params(**{section: {key: most}}).sweep.samples == 320
    path = write_params(tmp_path, **{section: {key: most + 1}})
    assert error_of(path).subject.endswith(": sweep.samples")


@pytest.mark.parametrize(("name", "count"), [("resnet34", 512), ("resnet50", 2048)])
def test_a_resnet_has_as_many_features_as_torchvisions(name, count, tmp_path):
    assert models.get_model(name).fc.in_features == count
    path = write_params(tmp_path, classifier={"architecture": f"torchvision:{name}"})
    assert f"FID of {count} features" in str(error_of(path))


@pytest.mark.parametrize(
    ("changes", "key", "way_out"),
    [
        ({"training": {"warmup_stepss": 5}}, "training.warmup_stepss", "warmup_steps?"),
        ({"training": {"mask_schedule": "cosin"}}, "training.mask_schedule", "cosine?"),
        ({"trainin": 1}, "trainin", "training?"),
        ({"surprise": 1}, "surprise", "remove the key"),
        ({"training": {"stepss": 5, "lr": 0.0}, "seed": -1}, "training.stepss", "training.lr"),
        ({"training": {"stepss": 5, "lr": 0.0}, "seed": -1}, "training.stepss", "seed"),
    ],
)
def test_a_misspelt_name_and_every_further_error_are_named(changes, key, way_out, tmp_path):
    error = error_of(write_params(tmp_path, **changes))
    assert error.subject.endswith(f": {key}") and "unknown" in error.reason
    assert way_out in error.way_out


def test_a_password_in_an_address_is_not_shown(tmp_path):
    for address in ("gs://me:hunter2@b", "https://me:hunter2@b/x"):
        path = write_params(tmp_path, ray={"storage_path": address})
        assert "hunter2" not in str(error_of(path))


@pytest.mark.parametrize(
    ("given", "taken"),
    [("runs", "runs"), ("/data/job:7", "/data/job:7"), ("~/runs", "/home/me/runs")]
    + [(a, a) for a in ("s3://bucket", "s3://my.bucket-1/a/b_c=d+e/", "gs://bu_cket/x")],
)
def test_a_storage_path_is_a_folder_or_an_object_store(given, taken, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    params = load_params(write_params(tmp_path, ray={"storage_path": given}))
    assert params.ray.storage_path == taken
    assert Params.model_validate(params.model_dump()) == params  # as workers receive it


def test_the_file_that_ships_holds_the_defaults():
    assert load_params(PRESET) == Params()


def test_every_resnet_of_torchvision_is_known():
    names = models.list_models(module=models, include=("resne[tx]*", "wide_resnet*"))
    assert sorted(RESNETS.split()) == sorted(names)
