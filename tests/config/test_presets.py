"""Presets are valid, keep the comments of params.yaml, and have the values of the paper and the
release. These are written here a second time, because a typing error would cost days of GPUs."""

import re
import shutil

import pytest
import yaml

from pipeline.config import presets
from pipeline.config.params import Params, load_params
from pipeline.config.presets import apply_preset, preset_names, preset_params, preset_summary
from pipeline.runtime.dag import flatten
from pipeline.runtime.errors import UserError
from tests.errors import refused
from tests.params import PRESET
from tests.project import ROOT

PAPER = ("imagenet256", "imagenet512", "places512")
LARGE = (*PAPER, "release256")
RELEASED = ("imagenet256", "imagenet512", "release256")  # of the classes of released weights
OWN_TOKENIZER = ("imagenet256", "places512", "release256")  # imagenet512 takes imagenet256's
GPU = (*LARGE, "cifar10")
SEVEN = ["exponential", "cubic", "square", "cosine", "linear", "square_root", "logarithmic"]

# Param, value, the presets that have it, source. "Release" is the authors' public
# configs, inference code and checkpoints.
TABLE = [
    # The transformer.
    ("transformer.layers", 24, LARGE, "section 4.1"),
    ("transformer.hidden", 768, LARGE, "section 4.1"),
    ("transformer.mlp", 3072, LARGE, "section 4.1"),
    ("transformer.heads", 8, PAPER, "section 4.1"),
    ("transformer.heads", 16, ("release256",), "release"),
    ("transformer.dropout", 0.1, GPU, "section 4.1"),
    # Its training.
    ("training.batch_size", 256, GPU, "section 4.1"),
    ("training.label_smoothing", 0.1, GPU, "section 4.1; 4.2: the baseline's too"),
    ("training.betas", [0.9, 0.96], GPU, "section 4.1"),
    ("training.steps", 1_500_000, ("imagenet256", "imagenet512"), "section 4.1: 300 epochs"),
    ("training.steps", 1_400_000, ("places512",), "section 4.1: 200 epochs"),
    ("training.steps", 2_000_000, ("release256",), "release"),
    ("training.lr", 1e-4, LARGE, "release"),
    ("training.warmup_steps", 5000, LARGE, "release"),
    ("training.weight_decay", 4.5e-2, GPU, "release"),
    ("training.ema_decay", 0.999, GPU, "release"),
    ("training.grad_clip", None, GPU, "section 4.1 and the release's config have none"),
    ("training.mask_schedule", "cosine", GPU, "section 4.4"),
    ("training.min_masking_rate", 0.0, (*PAPER, "cifar10"), "section 3.1"),
    ("training.min_masking_rate", 0.5, ("release256",), "release"),
    ("training.loss_on", "masked", GPU, "equation 1; release: compute_loss_for_all False"),
    ("training.label_drop", 0.0, GPU, "section 4.2: no guidance"),
    # The tokenizer.
    ("tokenizer.codebook_size", 1024, LARGE, "section 4.1"),
    ("tokenizer.downsampling", 16, LARGE, "section 4.1"),
    ("tokenizer.filters", 128, LARGE, "release"),
    ("tokenizer.multipliers", [1, 1, 2, 2, 4], LARGE, "release"),
    ("tokenizer.res_blocks", 2, GPU, "release"),
    ("tokenizer.embedding_dim", 256, LARGE, "release"),
    # Its training; docs/fidelity.md has the rest.
    ("tokenizer.pretrained", None, ("imagenet256", "release256"), "section 4.1"),
    ("tokenizer.tf32", True, OWN_TOKENIZER, "release: JAX multiplies fewer bits on a TPU"),
    # Images and tokens.
    ("data.image_size", 256, ("imagenet256", "release256"), "section 4.2"),
    ("data.image_size", 512, ("imagenet512", "places512"), "sections 4.2, 4.3"),
    ("grid", 16, ("imagenet256", "release256"), "section 4.1"),
    ("grid", 32, ("imagenet512", "places512"), "section 4.1"),
    ("data.crop_scale", [1.0, 1.0], ("places512",), "section 4.3: centre crops"),
    ("classifier.crop_scale", [0.08, 1.0], LARGE, "the common training of ResNet-50"),
    ("classifier.architecture", "torchvision:resnet50", LARGE, "section 4.2: CAS; appendix B"),
    ("classifier.pretrained", "torchvision", RELEASED, "appendix B"),
    # Decoding. The release's files say 12 and 16 for T.
    ("decoding.iterations", 8, ("imagenet256", "release256"), "Table 1"),
    ("decoding.iterations", 12, ("imagenet512",), "Table 1"),
    ("decoding.iterations", 12, ("places512",), "section 4.3: as the model of ImageNet"),
    ("editing.iterations", 8, ("imagenet256", "release256"), "section 4.3, as for generation"),
    ("editing.iterations", 12, ("imagenet512", "places512"), "section 4.3, as for generation"),
    ("editing.dilate", 1, GPU, "release"),
    ("decoding.choice_temperature", 4.5, GPU, "release"),
    ("decoding.rounding", "floor", GPU, "release"),
    ("decoding.guidance_scale", 0.0, GPU, "section 4.2: no guidance"),
    # What is measured.
    ("sweep.schedules", SEVEN, ("imagenet256", "release256", "cifar10"), "Table 3"),
    ("sweep.steps", 1_500_000, ("imagenet256",), "section 4.4: the default setting"),
    ("sweep.iterations", [4, 6, 8, 9, 10, 12, 16, 24, 32, 48, 60], LARGE[::3], "Table 3, best T"),
    ("sweep.iterations", [8, 12, 16], ("imagenet512", "places512"), "Table 1"),
    ("evaluation.samples", 50_000, GPU, "release"),
    ("evaluation.extractor", "inception", GPU, "section 4.2"),
    ("evaluation.second_extractor", "vgg", GPU, "Table 1; appendix B"),
    ("evaluation.is_splits", 1, GPU, "release"),
    ("rejection.acceptance", [1.0, 0.5, 0.05], GPU, "Table 4, appendix B; random; own"),
]
FIDELITY = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")


def values(name: str) -> dict:
    """Return a preset's params by dotted key, with two derived values."""
    params = preset_params(name)
    derived = {"grid": params.grid, "tokenizer.downsampling": params.tokenizer.downsampling}
    return flatten(params.model_dump()) | derived


@pytest.mark.parametrize("name", GPU)
def test_preset_holds_the_values_of_the_paper_and_the_release(name):
    held = values(name)
    wrong = {
        key: f"{held[key]} and not {wanted} ({source})"
        for key, wanted, names, source in TABLE
        if name in names and held[key] != wanted
    }
    assert not wrong


def test_release_differs_from_the_papers_preset_in_these_params():
    release, paper = values("release256"), values("imagenet256")
    assert {key for key in release if release[key] != paper[key]} == {
        *("preset", "transformer.heads", "training.min_masking_rate"),
        *("training.steps", "autoregressive.steps", "sweep.steps"),
    }


@pytest.mark.parametrize("name", OWN_TOKENIZER)
def test_fidelity_page_says_what_the_presets_hold(name):
    said = {key: read(text) for key, text in re.findall(r"`([a-z_.0-9]+): (.+?)`", FIDELITY)}
    held = values(name)
    assert len(said) > 15 and said == {key: held[key] for key in said}


def read(text: str):
    """Read a value as params.yaml holds it (YAML 1.1 reads 1e-4 as a string)."""
    return float(text) if re.fullmatch(r"\d+e-\d+", text) else yaml.safe_load(text)


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


@pytest.fixture
def target(tmp_path):
    """A copy of params.yaml."""
    return shutil.copy(PRESET, tmp_path / "params.yaml")


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_validates_says_what_it_is_and_keeps_every_comment(name, target):
    params = apply_preset(name, target)
    assert params.preset == name and load_params(target) == params
    assert comments(target.read_text()) == comments(PRESET.read_text())
    summary = preset_summary(name)
    assert all(summary), "every text is given"
    assert summary.measured != "never" or summary.expected.startswith("aims to")


def test_the_default_preset_brings_the_defaults_back(target):
    apply_preset("cifar10", target)
    assert apply_preset("mnist5k", target) == Params()
    lines = PRESET.read_text().splitlines()
    same = [old == new for old, new in zip(lines, target.read_text().splitlines(), strict=True)]
    assert sum(same) > 0.9 * len(lines)  # floats may be written in another way


@pytest.mark.parametrize("text", ["a: [", "surprise: 1\ntraining: {steps: x}\n", ""])
def test_a_damaged_file_is_written_anew(text, target):
    target.write_text(text)
    assert apply_preset("smoke", target) == load_params(target) == preset_params("smoke")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {batch_size: 0}", "training.batch_size"),
        ("base: smoke\nwhat: x\nsurprise: 1", "surprise"),
        ("ray: {num_workers: 7}", "ray.num_workers"),
    ],
)
def test_an_impossible_preset_leaves_the_params_as_they_are(text, key, target, monkeypatch):
    folder = target.parent / "presets"
    shutil.copytree(presets.PRESETS, folder)
    (folder / "own.yaml").write_text(text)
    monkeypatch.setattr(presets, "PRESETS", folder)
    with refused(f"{folder}/own.yaml: {key}"):
        apply_preset("own", target)
    with pytest.raises(UserError, match="own, photos"):  # the existing ones
        apply_preset("imagenet", target)
    assert target.read_text() == PRESET.read_text()
