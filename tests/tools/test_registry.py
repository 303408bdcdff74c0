"""The model in MLflow's registry: the versions, the champion, and pictures from the champion."""

import base64
import io
import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from pipeline.config.paths import CLASSIFIER
from pipeline.runtime.errors import UserError
from pipeline.tools.registry import ON, judge, measured_on, register
from tests.tiny_project import with_params


@pytest.mark.parametrize(
    ("champion", "version"),
    [
        ({}, "2"),
        ({"fid_classifier": "2.5", ON: "here"}, "2"),
        ({"fid_classifier": "2.0", ON: "here"}, "1"),
        ({"fid_classifier": "9.0", ON: "elsewhere"}, "1"),
        ({"fid_inception": "9.0", ON: "here"}, "1"),
    ],
)
def test_the_champion_moves_only_to_what_is_better_measured_in_the_same_way(champion, version):
    client = Mock()
    client.get_registered_model.return_value.aliases = {"champion": 1} if champion else {}
    client.get_model_version.return_value.tags = champion
    judge(client, "maskgit", "2", {"fid_classifier": "2.0", ON: "here"})
    moved = [call.args for call in client.set_registered_model_alias.call_args_list]
    assert moved == ([("maskgit", "champion", "2")] if version == "2" else [])


def test_what_another_network_or_statistics_measured_is_not_compared(in_tiny_project):
    before = measured_on(with_params())
    assert measured_on(with_params()) == before
    (CLASSIFIER / "model.safetensors").write_bytes(b"of another training")
    assert measured_on(with_params()) != before
    changes = {"extractor": "inception", "reference_statistics": "file"}
    own = with_params()
    own = own.model_copy(update={"evaluation": own.evaluation.model_copy(update=changes)})
    Path("file").write_bytes(b"one")
    before = measured_on(own)
    Path("file").write_bytes(b"another")
    assert measured_on(own) != before


def test_a_model_that_nothing_was_measured_of_is_refused(in_tiny_project):
    params = with_params()
    Path("params.yaml").write_text(params.model_dump_json())
    for own in (params, params.model_copy(update={"preset": "a/b:c"})):
        with pytest.raises(UserError):
            register(own)
    assert not Path("mlflow.db").exists()


# Like `mlflow models serve`, outside the project: the model contains the code that it needs.
DRAW = """
import json, mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/maskgit-smoke@champion")
for names, seed in ((["3", "7"], 1), (["3", "7"], 1), (["3", "7"], 2), (["cat"], 1)):
    rows = pd.DataFrame({"class": names})
    print(json.dumps(model.predict(rows, {"seed": seed, "iterations": 2}).to_dict("records")))
"""


@pytest.mark.soak
@pytest.mark.slow
def test_a_registered_model_answers_with_pictures(smoke, tmp_path):
    (smoke.folder / "mlflow.db").unlink()  # the file names the original folder
    smoke.run("python", "-m", "pipeline", "sync")
    for _ in range(2):  # the same weights are one version
        said = smoke.run("python", "-m", "pipeline", "register")
        assert "maskgit-smoke version 1, fid_classifier" in said and "champion" in said
    files = [path for path in (smoke.folder / "mlruns/models").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "config.json"}
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    del smoke.env["PYTHONPATH"]
    tracking = f"sqlite:///{smoke.folder / 'mlflow.db'}"
    smoke.folder = tmp_path
    said = smoke.run("python", "-c", DRAW, ok=False, MLFLOW_TRACKING_URI=tracking)
    drawn, again, other = (json.loads(line) for line in said.splitlines() if line[:2] == "[{")
    assert drawn == again != other and "this model has no class cat" in said
    assert [row["class"] for row in drawn] == ["3", "7"]
    for row in drawn:
        picture = Image.open(io.BytesIO(base64.b64decode(row["png"])), formats=["PNG"])
        assert picture.size == (16, 16)
