"""Feature extractors, and the features that are kept of an image set."""

import errno
import io
import os
import pickle
import shutil
from email.message import Message
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.evaluation import feature_files as features
from pipeline.evaluation.feature_files import (
    cached_features,
    features_path,
    load_features,
)
from pipeline.evaluation.features import (
    ClassifierExtractor,
    Features,
    extract,
    open_extractor,
)
from pipeline.evaluation.images import ArrayImages
from pipeline.runtime.errors import UserError
from tests.errors import one_line
from tests.images import noise_array, save_features


class Means:
    """Extracts the mean of each image and nothing else, and counts what it is shown."""

    name = "means"

    def __init__(self, identity: str = "first"):
        self.identity, self.seen = identity, 0

    def __call__(self, images: Tensor) -> Features:
        self.seen += len(images)
        return Features(images.double().mean(dim=(1, 2, 3))[:, None])


def test_features_of_other_code_are_others(tmp_path, monkeypatch):
    images, extractor = ArrayImages(noise_array(5, 1)), Means()
    cached_features(images, extractor, tmp_path / "cache")
    for name in features.CODE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if (features.PACKAGE / name).is_dir():
            shutil.copytree(features.PACKAGE / name, tmp_path / name)
        else:
            shutil.copyfile(features.PACKAGE / name, tmp_path / name)
    monkeypatch.setattr(features, "PACKAGE", tmp_path)
    cached_features(images, extractor, tmp_path / "cache")
    assert extractor.seen == 5  # the same code, elsewhere
    crops = tmp_path / "data/images/crops.py"
    crops.write_text(crops.read_text().replace("BILINEAR", "BICUBIC"))
    features._imported.cache_clear()  # as of a process that starts now
    cached_features(images, extractor, tmp_path / "cache")
    assert extractor.seen == 10


def test_features_are_computed_once(tmp_path):
    array = noise_array(600, 1)
    extractor = Means()
    first = cached_features(ArrayImages(array), extractor, tmp_path)
    again = cached_features(ArrayImages(array.copy()), extractor, tmp_path)
    wanted = array.mean(axis=(1, 2, 3))
    assert np.allclose(first.features[:, 0].numpy(), wanted) and first.logits is None
    assert first.features.dtype == torch.float32
    assert torch.equal(first.features, again.features) and again.logits is None
    assert extractor.seen == 600
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_other_images_or_weights_have_features_of_their_own(tmp_path):
    array = noise_array(6, 1)
    paths = {
        features_path(ArrayImages(images), extractor, tmp_path)
        for images in (array, array[:5], array[::-1])
        for extractor in (Means(), Means("second"))
    }
    assert len(paths) == 6


def test_damaged_features_are_named(tmp_path):
    images, extractor = ArrayImages(noise_array(6, 1)), Means()
    cached_features(images, extractor, tmp_path)
    path = features_path(images, extractor, tmp_path)
    path.write_bytes(b"no features")
    with pytest.raises(UserError, match="delete it and run again") as error:
        cached_features(images, extractor, tmp_path)
    assert error.value.subject == str(path)
    path.unlink()
    cached_features(images, extractor, tmp_path)
    assert extractor.seen == 12


def test_a_killed_process_leaves_nothing_half_written(tmp_path):
    images = ArrayImages(noise_array(6, 1))
    name = features_path(images, Means(), tmp_path).name
    (tmp_path / f".{name}.0123abcd.tmp").write_bytes(b"half")
    cached_features(images, Means(), tmp_path)
    assert list(tmp_path.glob(".*.tmp")) == []


def test_features_round_trip(tmp_path):
    features = Features(torch.rand(5, 4), torch.rand(5, 3))
    save_features(features, tmp_path / "deep" / "features.safetensors")
    loaded = load_features(tmp_path / "deep" / "features.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(features, loaded, strict=True))


def classifier(channels: int = 1, seed: int = 0) -> ClassifierExtractor:
    torch.manual_seed(seed)
    model = Classifier(ClassifierConfig("small", channels, 3, 4)).eval()
    return ClassifierExtractor(model, torch.device("cpu"))


def test_identity_is_of_the_weights():
    assert classifier().identity == classifier().identity
    assert classifier().identity != classifier(seed=1).identity


def test_classifier_of_other_channels_gives_one_line():
    with pytest.raises(UserError, match="1 channels and these have 3") as error:
        extract(classifier(), [torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
    one_line(error)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", ["inception", "vgg"])
@pytest.mark.parametrize("kind", ["missing", "text", "other weights", "bomb"])
def test_weights_that_do_not_load_name_the_param(tmp_path, monkeypatch, make_params, name, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if kind == "text":
        path.write_text("no weights")
    elif kind == "other weights":
        torch.save({"x": torch.zeros(2)}, path)
    elif kind == "bomb":
        path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    evaluation = make_params(evaluation={f"{name}_weights": str(path)}).evaluation
    with pytest.raises(UserError, match=rf"evaluation\.{name}_weights.*weights\.pth") as error:
        open_extractor(name, classifier().classifier, evaluation, torch.device("cpu"))
    one_line(error)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["inception", "vgg"])
def test_a_failed_download_names_the_param(tmp_path, monkeypatch, make_params, name):
    def fail(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    evaluation = make_params().evaluation
    with pytest.raises(UserError, match=rf"evaluation\.{name}_weights.*no network") as error:
        open_extractor(name, classifier().classifier, evaluation, torch.device("cpu"))
    one_line(error)


@pytest.mark.parametrize("name", ["inception", "vgg"])
def test_a_download_of_other_bytes_is_not_kept(tmp_path, monkeypatch, make_params, name):
    """What comes from the network is compared with the hash that the file is published under."""
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Response(b"not the weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    evaluation = make_params().evaluation
    with pytest.raises(UserError, match="invalid hash value") as error:
        open_extractor(name, classifier().classifier, evaluation, torch.device("cpu"))
    one_line(error)
    assert list((tmp_path / "checkpoints").iterdir()) == []


class Response(io.BytesIO):
    """A server's."""

    def info(self) -> Message:
        return Message()


def test_a_disk_that_is_full_for_features_is_one_line(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        save_features(Features(torch.zeros(4, 2), None), tmp_path / "f.safetensors")
    assert list(tmp_path.iterdir()) == []
