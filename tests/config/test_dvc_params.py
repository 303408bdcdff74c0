"""dvc.yaml lists exactly the params that each stage reads. A missing one would leave a stale
result; a superfluous one would repeat a stage whose result cannot change."""

from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.decoding.settings import DecodingSettings
from pipeline.runtime.dag import flatten
from pipeline.runtime.files import read_yaml
from tests.project import ROOT

pytestmark = pytest.mark.slow

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
# Where a run lies and what stays there, how often it is tried again, who prepares its pictures and
# under which name it is logged change no result.
NEVER_LISTED = {
    "ray.storage_path",
    "ray.max_failures",
    "ray.loaders_per_worker",
    "evaluation.keep_samples",
    "mlflow.experiment",
}
# How every run is named. It matters to those that train, whose lists test_dvc_deps.py holds.
NAMING = {"ray.elastic"}
SETTINGS = {field.name for field in fields(DecodingSettings)} - {"schedule"}
DRAWING = {f"decoding.{name}" for name in SETTINGS}  # the samples that are logged in training
OWN = {"bf16", "softmax_temperature", "top_k", "top_p"}  # of the baseline
# Who makes the batches of a stage that only predicts changes none of their bytes.
WHO = {"ray.num_workers"}
# Which of the trained models a stage takes: it depends on these by their content.
MODELS = {"transformer.pretrained"}
# What a stage reads and yet does not depend on, since it puts a value of its own in the param's
# place, or only draws pictures with it.
NOT_USED = {
    # It only refuses pictures that are too few; the sweep does whatever changes later.
    "prepare": {
        *("classifier.architecture", "classifier.width", "evaluation.extractor"),
        *("evaluation.kid_subset_size", "evaluation.neighbors"),
        "evaluation.reference_statistics",
    },
    "train_classifier": {"data.crop_scale"},  # classifier.crop_scale
    "features": WHO,
    "train_transformer": DRAWING,
    "train_autoregressive": DRAWING - {f"decoding.{name}" for name in OWN}
    | {
        *(f"autoregressive.{name}" for name in OWN),
        "training.mask_schedule",
        "training.steps",  # autoregressive.steps
    },
    "cache_tokens": WHO,
    "sweep": WHO | {"training.mask_schedule", "training.steps"},  # a trial's own
    "oracle": WHO | {"ray.use_gpu"},  # it computes on CPUs
    "evaluate": MODELS | WHO,
    "cas": MODELS | {"classifier.steps", "data.crop_scale"},  # cas.steps, classifier.crop_scale
    "temperature": MODELS
    | WHO  # the section temperature has these settings
    | {"decoding.choice_temperature", "autoregressive.softmax_temperature", "autoregressive.top_k"},
    "edit": MODELS | WHO,
    "reject": MODELS | WHO,
    "reconstruct": MODELS | WHO,
    # speed.grids; with more workers than one the stage may leave its GPU to one of them
    "speed": WHO | {"data.image_size", "tokenizer.multipliers", "transformer.dropout"},
}
# What is listed and read only with other values than the smoke preset's.
ELSEWHERE = {
    "evaluation.inception_weights",  # where an extractor is Inception
    "evaluation.vgg_weights",  # where one is VGG
}

# What is listed so that a wrong value is refused before anything runs.
EARLY = {"schedules": {"training.mask_schedule", "sweep.schedules"}}


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "analysis"])
def test_stage_lists_the_params_that_it_reads(finished, stage):
    project_params = read_yaml(finished.folder / "params.yaml")

    def value(dotted: str):
        found = project_params
        for part in dotted.split("."):
            found = found[part]
        return found

    listed = set(flatten({name: value(name) for name in STAGES[stage]["params"]}))
    read = set(Path(finished.params_read, stage).read_text().split())
    assert read - listed - NEVER_LISTED - NAMING == NOT_USED.get(stage, set())
    assert listed - read == EARLY.get(stage, set()) | (listed & ELSEWHERE - read)
