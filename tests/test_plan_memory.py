"""`plan`'s count of what a worker's device holds, against the tensors of real networks here."""

import re

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.classifier import Classifier
from pipeline.config.presets import PRESETS, preset_params
from pipeline.data import microbatches as parts
from pipeline.decoding import generate
from pipeline.evaluation.features import ClassifierExtractor
from pipeline.evaluation.images import BATCH
from pipeline.masking import masked_nll
from pipeline.perceptual import classifier_distance
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import memory
from pipeline.tools.plan.allocations import Allocations
from pipeline.tools.plan.data import data_size
from pipeline.tools.plan.networks import plan_networks
from pipeline.tools.plan.report import plan_text, plan_values
from pipeline.training.classifier import accuracy
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config
from tests.planned import CPU, DIGITS
from tests.project import ROOT
from tests.tiny_networks import spread

SMALL = {"tokens": {"batch_size": 20}, "decoding": {"batch_size": 30, "bf16": False}}
CLASSES = DIGITS.classes
GPUS = r"GPUs? (?:of|with) (\d+) GB"  # in the header of a preset


def held(run) -> int:
    with torch.no_grad(), Allocations() as seen:
        run()
    return seen.peak


def of_stages(params, data=DIGITS) -> dict[str, int]:
    return memory.stage_memory(params, data, plan_networks(params, data))


def test_a_view_of_a_weight_takes_no_memory():
    layer, x = torch.nn.Linear(1000, 1000, bias=False), torch.zeros(2, 1000)
    assert held(lambda: layer(x)) == 2 * 1000 * 4


def test_drawing_holds_about_what_is_planned(make_params):
    params = make_params(**SMALL)
    config, labels = transformer_config(params, CLASSES), balanced_labels(30, CLASSES)
    maskgit, causal = spread(MaskGitTransformer, config), spread(AutoregressiveTransformer, config)
    drawn = held(lambda: generate(maskgit, labels, params.decoding_settings(), seed=0))
    assert memory._drawing(params, DIGITS, 30) == pytest.approx(drawn, rel=0.1)
    planned = memory._drawing_in_turn(params, DIGITS, 30)
    assert planned < held(lambda: generate_autoregressive(causal, labels, seed=0)) < 1.6 * planned


def test_looks_hold_about_what_is_planned(make_params):
    params = make_params(**SMALL)
    maskgit = spread(MaskGitTransformer, transformer_config(params, CLASSES))
    tokens, labels = torch.zeros(DIGITS.val, 49, dtype=torch.long), torch.zeros(DIGITS.val).long()
    look = held(lambda: masked_nll(maskgit, tokens, labels, schedule="cosine", seed=0))
    # A CPU computes attention in one piece, and keeps no scores.
    assert look < memory._likelihood(params, DIGITS) < 2 * look
    network = Classifier(classifier_config(params, CLASSES)).eval()
    images = torch.zeros(500, 1, 28, 28, dtype=torch.uint8)
    look = held(lambda: accuracy(network, [images], torch.zeros(500).long(), CPU))
    assert memory._classifying(params, DIGITS) == pytest.approx(look, rel=0.1)
    weights, seen = memory._scoring(params, DIGITS, frozenset({"classifier"}))
    assert weights == sum(p.nbytes for p in network.parameters())
    looks = ClassifierExtractor(network, CPU)
    assert seen == pytest.approx(held(lambda: looks(torch.zeros(BATCH, 1, 28, 28))), rel=0.2)


def test_coding_and_distances_hold_about_what_is_planned(make_params):
    params = make_params(**SMALL)
    tokenizer = Tokenizer(tokenizer_config(params))
    coded = held(lambda: tokenizer.encode(torch.zeros(20, 1, 28, 28)))
    rebuilt = held(lambda: tokenizer.decode(torch.zeros(30, 7, 7, dtype=torch.long)))
    assert memory._coding(params, 20, 30) == pytest.approx((coded, rebuilt), rel=0.02)
    network = Classifier(classifier_config(params, CLASSES)).eval()
    images = torch.zeros(30, 1, 28, 28)
    far = held(lambda: classifier_distance(network, images, images))
    assert far / 2 < memory._distances(params, 30) < 3 * far


def test_parts_of_a_batch_hold_about_what_is_planned(make_params, monkeypatch):
    for module in (memory, parts):
        monkeypatch.setattr(module, "TENSOR_BYTES", 2**18)
    params = make_params(**SMALL)
    maskgit = spread(MaskGitTransformer, transformer_config(params, CLASSES))
    labels, tokenizer = balanced_labels(30, CLASSES), Tokenizer(tokenizer_config(params))
    drawn = held(lambda: generate(maskgit, labels, params.decoding_settings(), seed=0))
    assert memory._drawing(params, DIGITS, 30) == pytest.approx(drawn, rel=0.15)
    coded = held(lambda: tokenizer.encode(torch.zeros(20, 1, 28, 28)))
    rebuilt = held(lambda: tokenizer.decode(torch.zeros(30, 7, 7, dtype=torch.long)))
    assert memory._coding(params, 20, 30) == pytest.approx((coded, rebuilt), rel=0.1)


def test_no_batch_is_larger_than_there_are_images(make_params):
    sizes = ({"batch_size": n} for n in (4000, 10**6))
    one, large = (of_stages(make_params(decoding=size, tokens=size)) for size in sizes)
    assert one == large


def test_a_stage_holds_what_its_workers_do(make_params):
    """Those of a trial and a classifier, however many the others have; and looks take as much."""
    large = {"training": {"batch_size": 4096}, "classifier": {"batch_size": 4096}}
    one, four = of_stages(make_params(**large)), {"ray": {"num_workers": 4}}
    found = of_stages(make_params(**large, **four))
    assert found["train_transformer"] < one["train_transformer"]
    assert found["train_classifier"] < one["train_classifier"]
    assert (found["sweep"], found["cas"]) == (one["sweep"], one["cas"])
    shared = of_stages(make_params(**large, sweep={"workers_per_trial": 4}))
    assert shared["sweep"] < one["sweep"] and shared["temperature"] == one["temperature"]
    few = {"training": {"batch_size": 4}, "classifier": {"batch_size": 4}}
    least, less = of_stages(make_params(**few)), of_stages(make_params(**few, **four))
    assert least["train_transformer"] == less["train_transformer"]  # the logged samples


def test_a_trial_may_have_more_workers_than_images_of_another_batch(make_params):
    """Each network is planned by itself."""
    few = {"tokenizer": {"batch_size": 4}, "training": {"batch_size": 8}}
    assert of_stages(make_params(**few, sweep={"workers_per_trial": 8}))["sweep"] > 0
    few = {"tokenizer": {"batch_size": 4}, "classifier": {"batch_size": 8}}
    assert of_stages(make_params(**few, cas={"workers_per_classifier": 8}))["cas"] > 0


def test_rebuilding_counts_whatever_the_batches_are(make_params):
    few = {"decoding": {"batch_size": 1}, "tokens": {"batch_size": 1}}
    found = of_stages(make_params(**few))
    assert found["evaluate"] > max(memory._coding(make_params(), 128, 128)) > found["temperature"]


def test_released_weights_are_trained_by_no_stage(make_params):
    one, released = (
        of_stages(make_params(transformer={"pretrained": given}, training={"batch_size": 4096}))
        for given in (None, "weights")
    )
    assert released["sweep"] < one["sweep"]
    assert released["train_transformer"] < one["train_transformer"]


@pytest.mark.parametrize(
    "name", [p.stem for p in PRESETS.glob("*.yaml") if re.search(GPUS, p.read_text())]
)
def test_presets_fit_the_cards_that_they_name(name):
    """With a fifth to spare for what is not counted."""
    params = preset_params(name)
    found = of_stages(params, data_size(params, images=10_000, classes=365))
    said = re.search(GPUS, (PRESETS / f"{name}.yaml").read_text())
    assert max(found.values()) < 0.8e9 * int(said[1])


def test_five_presets_name_cards():
    assert sum(bool(re.search(GPUS, p.read_text())) for p in PRESETS.glob("*.yaml")) == 5


def test_the_plan_says_it(make_params):
    params = make_params()
    lines = plan_text(params, DIGITS).splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.split()[:2] == ["stage", "memory"])
    said = {line.split()[0]: line.split()[1] for line in lines[start + 2 :] if line}
    for stage, size in of_stages(params).items():
        assert not size or float(said[stage]) == pytest.approx(size / 1e6, rel=0.01)
    assert said["prepare"] == "–"
    few = make_params(cas={"samples": 100}, evaluation={"samples": 100})
    assert of_stages(few)["reject"] == 0 < of_stages(params)["reject"]
    assert plan_values(params, DIGITS)["memory"] == of_stages(params)


def test_the_page_on_presets_says_what_memory_the_plan_says():
    params = preset_params("imagenet256")
    found = of_stages(params, data_size(params))
    most = max(found, key=lambda stage: found[stage])
    assert most == "train_tokenizer"
    said = f"({found[most] / 1e9:.1f} GB at most in that preset, to train the tokenizer)"
    assert said in (ROOT / "docs/presets.md").read_text(encoding="utf-8")
