"""Images that are measured on the fly, against the same images measured from an array."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.config.replicates import main_replicates
from pipeline.evaluation import evaluator as module
from pipeline.evaluation.evaluator import Evaluator, Networks, OnTheFly
from pipeline.evaluation.feature_files import reference_features
from pipeline.evaluation.features import BATCH, Extractor, Features
from pipeline.evaluation.fid import fid
from pipeline.evaluation.image_sets import ArrayImages
from pipeline.evaluation.samplers import sampler_of
from pipeline.runtime.batches import Maker, make_tensors, parts_folder
from pipeline.sampling import balanced_labels, sample_batches
from tests.tiny_project import ALONE, CLASSES, CPU, with_params

pytestmark = pytest.mark.usefixtures("in_tiny_project")

COUNT, SIZE = 90, 40  # images, and those of a batch
LABELS = balanced_labels(COUNT, CLASSES)


def means(device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """A measure of the images, which also returns their labels."""
    return lambda images, tokens, labels, seed: {
        "means": images.float().mean(dim=(1, 2, 3)),
        "labels": labels,
    }


def given() -> tuple[Maker, list[tuple]]:
    params = with_params()
    replicate = main_replicates(params, "transformer")[1]
    settings = params.decoding_settings()
    return sampler_of(replicate), sample_batches(settings, LABELS, batch_size=SIZE, seed=5)


def looked(path: Path) -> dict[str, Tensor]:
    evaluator, (sampler, batches) = Evaluator(with_params(), ALONE, second=True), given()
    return make_tensors(path, ALONE, evaluator.on_the_fly(sampler, Maker(means)), batches, "them")


@pytest.fixture
def drawn(in_tiny_project) -> Tensor:
    sampler, batches = given()
    draw = sampler.open(CPU)
    return torch.cat([draw(*batch) for batch in batches])


def test_outputs_on_the_fly_are_those_of_stored_images(tmp_path, drawn):
    found = looked(tmp_path / "a.safetensors")
    torch.testing.assert_close(found["means"], drawn.float().mean(dim=(1, 2, 3)))
    assert torch.equal(found["labels"], LABELS)
    evaluator, images = Evaluator(with_params(), ALONE, second=True), ArrayImages(drawn.numpy())
    stored = evaluator.outputs(images, tmp_path / "stored")
    assert stored.keys() == {"features", "logits", "class_logits", "second"}
    for name, theirs in stored.items():
        assert len(theirs) == COUNT
        torch.testing.assert_close(found[name], theirs, rtol=1e-5, atol=1e-5)
    measured, wanted = (evaluator.metrics(each, LABELS) for each in (found, stored))
    assert measured == pytest.approx(wanted, rel=1e-4, abs=1e-6) and measured["samples"] == COUNT


def test_the_second_extractor_has_an_fid_of_its_own(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(module, "SECOND_FID", ("random",))
    evaluator = Evaluator(with_params(), ALONE, second=True)
    outputs = evaluator.outputs(ArrayImages(drawn.numpy()), tmp_path / "stored")
    wanted = fid(outputs["second"], reference_features("random"))
    found = evaluator.metrics(outputs, None)
    assert found["fid_random"] == pytest.approx(wanted, rel=1e-9) != found["fid_classifier"]
    assert found["fid_random_std"] > 0


def test_no_image_is_kept_and_a_killed_run_goes_on(tmp_path, monkeypatch):
    path, draw = tmp_path / "killed.safetensors", []
    plain = Networks.__call__

    def counted(*arguments):
        if len(draw) == 2:
            raise KeyboardInterrupt
        draw.append(plain(*arguments))
        return draw[-1]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Networks, "__call__", counted)
        looked(path)
    parts = {part.name: part for part in parts_folder(path).iterdir()}
    assert parts.keys() == {"000000.safetensors", "000001.safetensors"}
    before = parts["000000.safetensors"].stat().st_mtime_ns
    found = looked(path)
    assert parts["000000.safetensors"].stat().st_mtime_ns == before
    whole = looked(tmp_path / "whole.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    numbers = sum(whole[name].shape[1] for name in ("features", "logits", "class_logits", "second"))
    size = sum(part.stat().st_size for part in parts_folder(path).glob("*.safetensors"))
    means_and_labels = 4 + 8
    assert size < COUNT * (4 * numbers + means_and_labels) + 3 * 500


class Noted:
    """An extractor that notes how many images it is shown."""

    name = "noted"

    def __init__(self, extractor: Extractor):
        self.extractor, self.sizes = extractor, []

    def __call__(self, images: Tensor) -> Features:
        self.sizes.append(len(images))
        return self.extractor(images)


def test_networks_see_batches_of_nearly_one_size_and_each_image_once(drawn):
    """Not a last one of a few images, whose bits could depend on the number of threads."""
    networks = Evaluator(with_params(), ALONE, second=True).networks
    main, judge = Noted(networks.second), networks.judge
    images = torch.cat([drawn] * 3)[: 3 * BATCH + 6]
    found = Networks(main, judge, judge)(images)
    assert sum(main.sizes) == 198 and max(main.sizes) - min(main.sizes) <= 2 * len(main.sizes)
    assert max(main.sizes) <= BATCH and min(main.sizes) > 11
    torch.testing.assert_close(found["features"], main.extractor(images).features)
    torch.testing.assert_close(found["second"], judge(images).features)
    torch.testing.assert_close(found["class_logits"], judge(images).logits)


def test_images_have_the_strides_of_stored_ones():
    """With the channels last, convolutions round differently."""
    image = torch.zeros(2, 3, 4, 4, dtype=torch.uint8).to(memory_format=torch.channels_last)

    def strides(images: Tensor) -> dict[str, Tensor]:
        return {"strides": torch.tensor(images.stride())}

    shown = OnTheFly(Maker(None, here=lambda: image), [Maker(None, here=strides)], CPU)
    assert shown()["strides"].tolist() == [48, 16, 4, 1]
