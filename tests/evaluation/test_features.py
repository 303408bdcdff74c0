"""Feature extractors."""

import io
import os
import pickle
from email.message import Message
from pathlib import Path

import pytest
import torch

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.config.paths import CLASSIFIER
from pipeline.evaluation.features import ClassifierExtractor, extract, open_extractor
from pipeline.runtime import device
from pipeline.runtime.errors import UserError
from pipeline.weights.published import load_model
from tests.errors import one_line
from tests.tiny_project import CPU, SIDE, with_params


def classifier(channels: int = 1, seed: int = 0) -> ClassifierExtractor:
    torch.manual_seed(seed)
    model = Classifier(ClassifierConfig("small", channels, 3, 4)).eval()
    return ClassifierExtractor(model, torch.device("cpu"))


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
    with pytest.raises(UserError, match=r"weights\.pth") as error:
        open_extractor(name, classifier().classifier, evaluation, CPU)
    assert error.value.subject == f"evaluation.{name}_weights"
    one_line(error)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["inception", "vgg"])
def test_a_failed_download_names_the_param(tmp_path, monkeypatch, make_params, name):
    def fail(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    evaluation = make_params().evaluation
    with pytest.raises(UserError, match="no network") as error:
        open_extractor(name, classifier().classifier, evaluation, CPU)
    assert error.value.subject == f"evaluation.{name}_weights"


@pytest.mark.parametrize("name", ["inception", "vgg"])
def test_a_download_of_other_bytes_is_not_kept(tmp_path, monkeypatch, make_params, name):
    """A download is compared with the published hash of the file."""
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Response(b"not the weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    evaluation = make_params().evaluation
    with pytest.raises(UserError, match="invalid hash value"):
        open_extractor(name, classifier().classifier, evaluation, CPU)
    assert list((tmp_path / "checkpoints").iterdir()) == []


class Response(io.BytesIO):
    """A server's."""

    def info(self) -> Message:
        return Message()


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ["classifier", "random"])
def test_features_in_bfloat16_differ_by_its_rounding(in_tiny_project, monkeypatch, quick, name):
    """On a CPU that is quick in bfloat16 alone."""
    monkeypatch.setattr(device, "quick_in_bfloat16", lambda where: quick)
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(256, (32, 1, SIDE, SIDE), generator=noise, dtype=torch.uint8)
    network = load_model(CLASSIFIER, "classifier")
    exact, rounded = (
        open_extractor(name, network, with_params(evaluation={"bf16": bf16}).evaluation, CPU)
        for bf16 in (False, True)
    )
    ours, theirs = extract(exact, [images]), extract(rounded, [images])
    assert theirs.features.dtype == theirs.logits.dtype == torch.float32
    apart = (ours.features - theirs.features).norm() / ours.features.norm()
    assert 1e-4 < apart < 2e-2 if quick else apart == 0
    assert exact.name == rounded.name == name
