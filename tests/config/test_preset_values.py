"""The presets at the paper's scale against what the paper and its authors' release say, written
here a second time: a slip in a preset would otherwise cost someone GPU-days before it showed."""

import pytest

from pipeline.config.presets import preset_names, preset_params
from pipeline.runtime.dag import flatten

PAPER = ("imagenet256", "imagenet512", "places512")
LARGE = (*PAPER, "release256")
OWN_TOKENIZER = ("imagenet256", "places512", "release256")  # imagenet512 takes imagenet256's
GPU = (*LARGE, "cifar10")
SEVEN = ["exponential", "cubic", "square", "cosine", "linear", "square_root", "logarithmic"]

# Param, value, the presets that it holds for, where it is said. "Release" is the authors' public
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
    # Its training.
    ("tokenizer.pretrained", None, ("imagenet256", "release256"), "section 4.1"),
    ("tokenizer.steps", 1_000_000, OWN_TOKENIZER, "release"),
    ("tokenizer.batch_size", 256, OWN_TOKENIZER, "release"),
    ("tokenizer.lr", 1e-4, OWN_TOKENIZER, "release"),
    ("tokenizer.betas", [0.0, 0.99], GPU, "release"),
    ("tokenizer.adversarial_weight", 0.1, (*OWN_TOKENIZER, "cifar10"), "release"),
    ("tokenizer.r1_weight", 10.0, OWN_TOKENIZER, "release"),
    ("tokenizer.discriminator", "stylegan", OWN_TOKENIZER, "release"),
    ("tokenizer.discriminator_filters", 64, OWN_TOKENIZER, "release, at 256×256"),
    ("tokenizer.tf32", True, OWN_TOKENIZER, "release: JAX multiplies fewer bits on a TPU"),
    ("tokenizer.adaptive_weight", False, OWN_TOKENIZER, "release"),
    ("tokenizer.perceptual_weight", 0.1, GPU, "release"),
    ("tokenizer.commitment_weight", 0.25, GPU, "release"),
    ("tokenizer.entropy_weight", 0.1, GPU, "release"),
    ("tokenizer.entropy_temperature", 0.01, GPU, "release"),
    # Images and tokens.
    ("data.image_size", 256, ("imagenet256", "release256"), "section 4.2"),
    ("data.image_size", 512, ("imagenet512", "places512"), "sections 4.2, 4.3"),
    ("grid", 16, ("imagenet256", "release256"), "section 4.1"),
    ("grid", 32, ("imagenet512", "places512"), "section 4.1"),
    ("data.crop_scale", [1.0, 1.0], ("places512",), "section 4.3: centre crops"),
    ("classifier.crop_scale", [0.08, 1.0], LARGE, "the common training of ResNet-50"),
    ("classifier.architecture", "torchvision:resnet50", LARGE, "section 4.2: CAS; appendix B"),
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
    ("evaluation.samples", 50_000, GPU, "release"),
    ("evaluation.extractor", "inception", GPU, "section 4.2"),
    ("evaluation.second_extractor", "vgg", GPU, "Table 1; appendix B"),
    ("evaluation.is_splits", 1, GPU, "release"),
]


def value(params, dotted: str):
    for part in dotted.split("."):
        params = getattr(params, part)
    return params


@pytest.mark.parametrize("name", GPU)
def test_preset_holds_the_values_of_the_paper_and_the_release(name):
    params = preset_params(name)
    wrong = {
        key: f"{value(params, key)} and not {wanted} ({source})"
        for key, wanted, names, source in TABLE
        if name in names and value(params, key) != wanted
    }
    assert not wrong


def test_the_table_has_every_preset_that_needs_a_gpu():
    assert set(GPU) == {name for name in preset_names() if preset_params(name).ray.use_gpu}


def test_no_preset_has_two_rows_for_a_param():
    rows = [(key, name) for key, _, names, _ in TABLE for name in names]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("name", "iterations"),
    [
        ("imagenet256", {8, 9, 10, 16, 32, 60}),  # Table 3: each schedule's best T
        ("release256", {8, 9, 10, 16, 32, 60, 12}),  # and the release's own
        ("imagenet512", {12}),  # Table 1
        ("places512", {12}),
    ],
)
def test_sweep_decodes_at_every_number_of_iterations_that_the_paper_reports(name, iterations):
    assert iterations <= set(preset_params(name).sweep.iterations)


@pytest.mark.parametrize("name", GPU)
def test_rejection_keeps_the_papers_share(name):
    assert 0.05 in preset_params(name).rejection.acceptance  # Table 4, appendix B


def test_release_differs_from_the_papers_preset_in_these_params():
    release, paper = (
        flatten(preset_params(name).model_dump()) for name in ("release256", "imagenet256")
    )
    assert {key for key in release if release[key] != paper[key]} == {
        *("preset", "transformer.heads", "training.min_masking_rate"),
        *("training.steps", "autoregressive.steps", "sweep.steps"),
    }
