"""`plan`'s count of what a worker's device holds, against the tensors of real networks here."""

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.classifier import Classifier
from pipeline.config.presets import preset_params
from pipeline.decoding import generate
from pipeline.evaluation.features import ClassifierExtractor
from pipeline.evaluation.images import BATCH
from pipeline.perceptual import classifier_distance
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import memory
from pipeline.tools.plan.allocations import Allocations
from pipeline.tools.plan.data import data_size
from pipeline.tools.plan.networks import plan_networks
from pipeline.tools.plan.report import plan_text, plan_values
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config
from tests.planned import CPU, DIGITS
from tests.project import ROOT
from tests.tiny_networks import spread

SMALL = {"tokens": {"batch_size": 20}, "decoding": {"batch_size": 30, "bf16": False}}
CLASSES = DIGITS.classes


def held(run) -> int:
    with torch.no_grad(), Allocations() as seen:
        run()
    return seen.peak


def of_stages(params, data=DIGITS) -> dict[str, int]:
    return memory.stage_memory(params, data, plan_networks(params, data))


def test_drawing_holds_what_is_planned(make_params):
    params = make_params(**SMALL)
    config, labels = transformer_config(params, CLASSES), balanced_labels(30, CLASSES)
    maskgit, causal = spread(MaskGitTransformer, config), spread(AutoregressiveTransformer, config)
    drawn = held(lambda: generate(maskgit, labels, params.decoding_settings(), seed=0))
    assert memory._drawing(params, DIGITS) == pytest.approx(drawn, rel=0.1)
    planned = memory._drawing_in_turn(params, DIGITS)
    assert planned < held(lambda: generate_autoregressive(causal, labels, seed=0)) < 1.6 * planned


def test_coding_and_looking_hold_what_is_planned(make_params):
    params = make_params(**SMALL)
    tokenizer = Tokenizer(tokenizer_config(params))
    coded = held(lambda: tokenizer.encode(torch.zeros(20, 1, 28, 28)))
    rebuilt = held(lambda: tokenizer.decode(torch.zeros(30, 7, 7, dtype=torch.long)))
    assert memory._coding(params) == pytest.approx((coded, rebuilt), rel=0.02)
    classifier = Classifier(classifier_config(params, CLASSES)).eval()
    weights, seen = memory._scoring(params, DIGITS, frozenset({"classifier"}))
    assert weights == sum(p.nbytes for p in classifier.parameters())
    looks = ClassifierExtractor(classifier, CPU)
    assert seen == pytest.approx(held(lambda: looks(torch.zeros(BATCH, 1, 28, 28))), rel=0.2)
    images = torch.zeros(30, 1, 28, 28)
    far = held(lambda: classifier_distance(classifier, images, images))
    assert far < memory._distances(params) < 4 * far


def test_a_stage_holds_what_its_workers_do(make_params):
    """Those of a trial and a classifier, however many the others have."""
    params = make_params(ray={"num_workers": 4}, sweep={"workers_per_trial": 1})
    found, one = of_stages(params), of_stages(make_params())
    assert found["train_transformer"] < one["train_transformer"]
    assert found["cas"] == one["cas"] and found["cas"] > found["train_classifier"]
    large = {"training": {"batch_size": 4096}}
    one = of_stages(make_params(**large))
    assert one["sweep"] == one["train_transformer"]
    shared = of_stages(make_params(**large, sweep={"workers_per_trial": 4}))
    assert shared["sweep"] < one["sweep"] and shared["temperature"] == one["temperature"]


def test_released_weights_are_trained_by_no_stage(make_params):
    one, released = (
        of_stages(make_params(transformer={"pretrained": given}, training={"batch_size": 4096}))
        for given in (None, "weights")
    )
    assert released["sweep"] == released["temperature"] < one["sweep"]
    assert released["train_transformer"] < one["train_transformer"]


@pytest.mark.parametrize("name", ["imagenet256", "imagenet512"])
def test_the_papers_stages_fit_the_cards_that_presets_name(name):
    """40 GB and 80 GB; what predicts needs less than 16."""
    params = preset_params(name)
    found = of_stages(params, data_size(params))
    trains = {"train_tokenizer", "train_transformer", "train_autoregressive", "sweep"}
    assert max(found.values()) < {"imagenet256": 40e9, "imagenet512": 80e9}[name]
    if name == "imagenet256":
        said = (
            f"({max(found.values()) / 1e9:.1f} GB at most in that preset, to train the tokenizer)"
        )
        assert said in (ROOT / "docs/presets.md").read_text(encoding="utf-8")
        assert max(found, key=lambda stage: found[stage]) == "train_tokenizer"
    assert max(size for stage, size in found.items() if stage not in trains) < 16e9


def test_the_plan_says_it(make_params):
    params = make_params()
    lines = plan_text(params, DIGITS).splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.split()[:2] == ["stage", "memory"])
    said = {line.split()[0]: line.split()[1] for line in lines[start + 2 :] if line}
    for stage, size in of_stages(params).items():
        assert float(said[stage]) == pytest.approx(size / 1e6, rel=0.01)
    assert said["prepare"] == "–"
    assert plan_values(params, DIGITS)["memory"] == of_stages(params)
