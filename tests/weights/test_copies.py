"""In a copy of the project, which DVC makes of what git and DVC know (`dvc exp run --temp`), params
still lead to files that neither knows."""

from pathlib import Path

import pytest
import torch

from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import file_hash
from pipeline.runtime.project import of_project
from pipeline.tokenizer import Tokenizer
from pipeline.weights.configs import tokenizer_config
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import open_pretrained_tokenizer
from tests.tiny_project import with_params


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """The working directory; the project is `project` beside it."""
    for name in ("project", "copy"):
        (tmp_path / name / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_what_params_name_is_the_projects(copy, monkeypatch):
    project = copy.parent / "project"
    for folder, names in ((project, ("both", "one")), (copy, ("both",))):
        for name in names:
            (folder / name).write_text(folder.name)
    assert of_project("both").read_text() == of_project("one").read_text() == "project"
    assert of_project("none") == Path("none")  # is named as the params name it
    assert of_project(str(project / "one")) == project / "one"
    monkeypatch.chdir(project)  # where nothing is a copy
    assert of_project("one") == Path("one")


def test_weights_are_the_projects(copy):
    params = with_params(tokenizer={"pretrained": "weights/model.safetensors"})
    config = tokenizer_config(params)
    weights = Tokenizer(config).state_dict()
    save_model(copy.parent / "project/weights", "tokenizer", config, weights)
    opened = open_pretrained_tokenizer(params, torch.device("cpu")).state_dict()
    assert all(torch.equal(opened[name], weight) for name, weight in weights.items())


def test_a_run_depends_on_what_is_in_them(copy):
    (copy / "dvc.yaml").write_text("stages: {sweep: {params: [evaluation.vgg_weights]}}")
    (copy / "params.yaml").write_text("evaluation: {vgg_weights: w.pth}")
    own = copy.parent / "project/w.pth"
    own.write_text("one")
    before = stage_key("sweep")["files"]
    assert before == {"evaluation.vgg_weights": file_hash(own)}
    own.write_text("two")
    assert stage_key("sweep")["files"] != before
