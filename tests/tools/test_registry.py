"""The model in MLflow's registry: its versions, and pictures from one."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.runtime.errors import UserError
from pipeline.tools.registry import register
from tests.tiny_project import with_params


def test_a_model_that_nothing_was_measured_of_is_refused(in_tiny_project):
    params = with_params()
    Path("params.yaml").write_text(params.model_dump_json())
    with pytest.raises(UserError):
        register(params)
    assert not Path("mlflow.db").exists()


# Like `mlflow models serve`, outside the project: the model contains the code that it needs.
DRAW = """
import json, mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/maskgit-smoke/1")
for names, seed in ((["3", "7"], 1), (["3", "7"], 1), (["3", "7"], 2), (["cat"], 1)):
    rows = pd.DataFrame({"class": names})
    print(json.dumps(model.predict(rows, {"seed": seed, "iterations": 2}).to_dict("records")))
"""


@pytest.mark.soak
def test_a_registered_model_answers_with_pictures(smoke, tmp_path):
    (smoke.folder / "mlflow.db").unlink()  # the file names the original folder
    smoke.run("python", "-m", "pipeline", "sync")
    for _ in range(2):  # the same weights are one version
        said = smoke.run("python", "-m", "pipeline", "register")
        assert "maskgit-smoke version 1, fid_classifier" in said
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
