"""`maskgit register`: adds the project's trained MaskGIT to MLflow's model registry."""

import io
import tempfile
import warnings
from contextlib import redirect_stderr
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import main_replicate
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import read_json, tree_hash, value_hash
from pipeline.runtime.mlflow_sync import RUN_KEY, Server, tracking_uri, way_out
from pipeline.runtime.provenance import SOURCES, require_current
from pipeline.runtime.secrets import redacted
from pipeline.runtime.tables import has_param, read_rows

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

SERVED = Path(__file__).with_name("served_model.py")
CODE = Path(__file__).parents[1]
PACKAGES = (
    *("filelock", "huggingface-hub", "mlflow", "msgpack", "numpy", "pandas", "pillow", "pydantic"),
    *("safetensors", "scipy", "torch", "tqdm"),
)
WEIGHTS = "weights"  # tag of a model version: the hash of its weights


def register(params: Params, seed: int | None = None) -> str:
    """Add the project's trained MaskGIT to MLflow's registry, as a version of `maskgit-<preset>`.
    `seed` is its training seed; None selects the first. If a version with the same weights exists,
    only update its FID tag. Returns a line with the version and its FID. Raises a `UserError` if
    the model or its MLflow run is missing, its FID is out of date, or MLflow does not answer."""
    import mlflow

    from pipeline.api.model import MaskGIT

    name = f"maskgit-{params.preset}"
    metric, value = fid(params, seed)
    model = MaskGIT.from_pretrained(".", seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        weights = model.save_pretrained(Path(folder, WEIGHTS))
        digest = value_hash([tree_hash(weights / of) for of in ("tokenizer", "transformer")])
        try:
            run_id = _run_that_measured(params.mlflow.experiment)
            mlflow.set_tracking_uri(tracking_uri())
            client = mlflow.MlflowClient()
            same = client.search_model_versions(f"name = '{name}' and tag.{WEIGHTS} = '{digest}'")
            version = str(same[0].version) if same else _log(model, weights, name, run_id, digest)
            client.set_model_version_tag(name, version, metric, value)
            return f"{name} version {version}, {metric} {value:.3f}"
        except UserError:
            raise
        except Exception as error:  # networks and databases raise many types
            reason = redacted(one_line(str(error)))
            raise UserError(_server(), reason, way_out(reason)) from error


def fid(params: Params, seed: int | None) -> tuple[str, float]:
    """The name of the FID metric, and its value for samples of the MaskGIT trained with `seed`."""
    require_current("evaluate")
    metric = f"fid_{params.evaluation.extractor}"
    keys = ["images", "label_smoothing", "seed"]
    rows = read_rows(RESULTS / "evaluation/rows.csv", keys, [metric])
    rows = rows[has_param(rows["label_smoothing"], params.training.label_smoothing)]
    own = rows["seed"] == main_replicate(params, "transformer", seed).seed
    return metric, float(rows[own & (rows["images"] == "transformer")][metric].iloc[0])


def _run_that_measured(experiment: str) -> str:
    """The id of the MLflow run in which the stage `evaluate` measured the current model."""
    store, key = Server(tracking_uri()), read_json(SOURCES / "evaluate.json", "key")["key"]
    if found := store.ask(lambda client: client.get_experiment_by_name(experiment)):
        where, query = [found.experiment_id], f"tags.`{RUN_KEY}` = '{key}'"
        if runs := store.ask(lambda client: client.search_runs(where, query, max_results=1)):
            return runs[0].info.run_id
    ways = "send the run with `maskgit sync`, or log a new run with `dvc repro -s -f evaluate`"
    raise UserError(_server(), "no run on this server measured this model", ways)


def _server() -> str:
    return f"MLflow at {redacted(tracking_uri())}"


def _log(model: "MaskGIT", weights: Path, name: str, run_id: str, digest: str) -> str:
    """Log the model to the MLflow run `run_id`, register the model, and return its version.
    Registration also sets a tag, the weights' hash, by which a retry finds an existing version."""
    import mlflow
    import pandas as pd

    decoding, classes = model.defaults.decoding, list(model.classes[:2])
    rows = pd.DataFrame({"class": classes})
    options = {
        "seed": 0,
        "iterations": decoding.iterations,
        "schedule": decoding.schedule,
        "temperature": decoding.choice_temperature,
    }
    # MLflow's own lines on stderr would repeat this command's line.
    with (
        redirect_stderr(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
        mlflow.start_run(run_id=run_id),
    ):
        logged = mlflow.pyfunc.log_model(
            name="maskgit",
            python_model=str(SERVED),
            artifacts={WEIGHTS: str(weights)},
            code_paths=[str(CODE)],
            signature=mlflow.models.infer_signature(rows, rows.assign(png=""), options),
            input_example=rows,
            pip_requirements=[
                f"{package}=={metadata.version(package).partition('+')[0]}" for package in PACKAGES
            ],
        )
        made = mlflow.register_model(logged.model_uri, name, tags={WEIGHTS: digest})
    return str(made.version)
