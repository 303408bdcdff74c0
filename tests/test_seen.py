"""Images that are measured as they are made, against the same images measured from an array."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.replicates import main_replicates
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.features import Extractor, Features
from pipeline.evaluation.images import BATCH, ArrayImages
from pipeline.evaluation.samplers import sampler_of
from pipeline.evaluation.seen import Networks, Seen, Shown
from pipeline.runtime.batches import (
    Alone,
    Maker,
    drop_parts,
    make_tensors,
    parts_folder,
)
from pipeline.runtime.errors import UserError
from pipeline.sampling import balanced_labels, sample_batches
from tests.tiny_project import ALONE, CLASSES, CPU, SIDE, with_params

pytestmark = pytest.mark.usefixtures("in_tiny_project")

COUNT, SIZE = 90, 40  # images, and those of a batch
LABELS = balanced_labels(COUNT, CLASSES)


class Means:
    """A look that notes what it is shown."""

    def __init__(self, device: torch.device):
        assert device == CPU

    def __call__(self, images: Tensor, *arguments: object) -> dict[str, Tensor]:
        _, labels, _ = arguments
        return {"means": images.float().mean(dim=(1, 2, 3)), "labels": labels}


def given() -> tuple[Maker, list[tuple]]:
    params = with_params()
    replicate = main_replicates(params, "transformer")[1]
    settings = params.decoding_settings()
    return sampler_of(replicate), sample_batches(settings, LABELS, batch_size=SIZE, seed=5)


def looked(path: Path, workers: Alone) -> dict[str, Tensor]:
    evaluator, (sampler, batches) = Evaluator(with_params(), workers), given()
    shown = evaluator.shown(sampler, Maker(Means), second=True)
    return make_tensors(path, workers, shown, batches, "samples")


@pytest.fixture
def drawn(in_tiny_project) -> Tensor:
    sampler, batches = given()
    draw = sampler.open(CPU)
    return torch.cat([draw(*batch) for batch in batches])


def test_what_is_seen_is_what_the_kept_images_show(tmp_path, drawn):
    found = looked(tmp_path / "a.safetensors", ALONE)
    torch.testing.assert_close(found["means"], drawn.float().mean(dim=(1, 2, 3)))
    assert torch.equal(found["labels"], LABELS)
    evaluator, images = Evaluator(with_params(), ALONE), ArrayImages(drawn.numpy())
    seen, kept = Seen.of(found), evaluator.seen(images)
    for ours, theirs in (
        (seen.samples.features, kept.samples.features),
        (seen.samples.logits, kept.samples.logits),
        (seen.recognised, kept.recognised),
        (seen.others, evaluator._features(images, evaluator.second[0]).features),
    ):
        assert len(ours) == COUNT
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    measured, wanted = evaluator.metrics_of(seen, LABELS), evaluator.measure(images, LABELS)
    assert measured == pytest.approx(wanted, rel=1e-4, abs=1e-6) and measured["samples"] == COUNT


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
        looked(path, ALONE)
    parts = {part.name: part for part in parts_folder(path).iterdir()}
    assert parts.keys() == {"000000.safetensors", "000001.safetensors"}
    before = parts["000000.safetensors"].stat().st_mtime_ns
    found = looked(path, ALONE)
    assert parts["000000.safetensors"].stat().st_mtime_ns == before
    whole = looked(tmp_path / "whole.safetensors", ALONE)
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    seen = Evaluator(with_params(), ALONE).judge(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8))
    numbers = 2 * seen.features.shape[1] + seen.class_logits.shape[1]  # of both extractors
    size = sum(part.stat().st_size for part in parts_folder(path).glob("*.safetensors"))
    means_and_labels = 4 + 8
    assert size < COUNT * (4 * numbers + means_and_labels) + 3 * 500
    drop_parts(path)
    assert not path.exists() and not parts_folder(path).exists()


class Noted:
    """An extractor that notes how many images it is shown."""

    name = "noted"

    def __init__(self, extractor: Extractor):
        self.extractor, self.sizes = extractor, []

    def __call__(self, images: Tensor) -> Features:
        self.sizes.append(len(images))
        return self.extractor(images)


def test_networks_see_shares_of_nearly_one_size_and_each_once(drawn):
    """Not a last one of a few images, whose bits could depend on the number of threads."""
    evaluator = Evaluator(with_params(), ALONE)
    main = Noted(evaluator.second[0])
    judge = evaluator.judge
    images = torch.cat([drawn] * 3)[: 3 * BATCH + 6]
    found = Networks(main, judge, judge)(images)
    assert sum(main.sizes) == 198 and max(main.sizes) - min(main.sizes) <= 2 * len(main.sizes)
    assert max(main.sizes) <= BATCH and min(main.sizes) > 11
    for name, wanted in (
        ("features", main.extractor(images).features),
        ("others", judge(images)[0]),
    ):
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5)
    seen = Seen.of(found)
    assert torch.equal(seen.class_logits, found["recognised"]) and seen.others is not None
    assert Seen.of(Networks(judge, judge, None)(images)).recognised is not None


def test_images_lie_in_memory_as_those_that_are_kept(tmp_path):
    """Networks may give them with the channels last, for which convolutions round otherwise."""

    class ChannelsLast:
        def __init__(self, device: torch.device):
            pass

        def __call__(self, count: int) -> Tensor:
            images = torch.zeros(count, 3, 4, 4, dtype=torch.uint8)
            return images.to(memory_format=torch.channels_last)

    class Strides:
        def __init__(self, device: torch.device):
            pass

        def __call__(self, images: Tensor, *arguments: object) -> dict[str, Tensor]:
            return {"strides": torch.tensor([images.stride()] * len(images))}

    shown = Maker(Shown, Maker(ChannelsLast), (Maker(Strides),))
    found = make_tensors(tmp_path / "a.safetensors", ALONE, shown, [(2,), (1,)], "images")
    assert found["strides"].tolist() == [[48, 16, 4, 1]] * 3


def test_what_the_maker_cannot_do_is_the_users_line(tmp_path):
    class Refuses:
        def __init__(self, device: torch.device):
            pass

        def __call__(self, *arguments: object) -> Tensor:
            raise UserError("no image can be made; use others")

    shown = Evaluator(with_params(), ALONE).shown(Maker(Refuses))
    with pytest.raises(UserError, match=r"^no image can be made; use others$"):
        make_tensors(tmp_path / "a.safetensors", ALONE, shown, [(1,)], "images")


def test_pixels_of_another_number_of_channels(tmp_path):
    class Colours:
        def __init__(self, device: torch.device):
            pass

        def __call__(self, count: int) -> Tensor:
            return torch.from_numpy(np.zeros((count, 3, 8, 8), np.uint8))

    shown = Evaluator(with_params(), ALONE).shown(Maker(Colours))
    with pytest.raises(UserError, match=r"trained on images of 1 channels and these have 3"):
        make_tensors(tmp_path / "a.safetensors", ALONE, shown, [(4,)], "images")
