"""`dvc exp run --temp` copies only files that git or DVC tracks; in the copy, params still find the
project's untracked files."""

from pathlib import Path

import torch

from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import file_hash
from pipeline.runtime.project import of_project
from pipeline.tokenizer import Tokenizer
from pipeline.weights.configs import tokenizer_config
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import open_pretrained_tokenizer
from tests.tiny_project import with_params


def test_what_params_name_is_the_projects(tmp_path, monkeypatch):
    project, copy = tmp_path / "project", tmp_path / "copy"
    for path in (project / "both", project / "one", copy / "both"):
        (path.parent / ".dvc").mkdir(parents=True, exist_ok=True)
        path.write_text(path.parent.name)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.chdir(copy)
    assert of_project("both").read_text() == of_project("one").read_text() == "project"
    assert of_project("none") == Path("none")  # a missing file keeps the path in params
    assert of_project(str(project / "one")) == project / "one"

    params = with_params(tokenizer={"pretrained": "weights/model.safetensors"})
    config = tokenizer_config(params)
    weights = Tokenizer(config).state_dict()
    save_model(project / "weights", "tokenizer", config, weights)
    opened = open_pretrained_tokenizer(params, torch.device("cpu")).state_dict()
    assert all(torch.equal(opened[name], weight) for name, weight in weights.items())

    Path("dvc.yaml").write_text("stages: {sweep: {params: [evaluation]}}")
    named = "{vgg_weights: one, inception_weights: null, reference_statistics: none}"
    Path("params.yaml").write_text(f"evaluation: {named}")
    assert stage_key("sweep")["files"] == {"evaluation.vgg_weights": file_hash(project / "one")}
    assert stage_key("sweep", ["evaluation"])["files"] == {}
