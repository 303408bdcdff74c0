"""Registering the model of the last run with MLflow."""

import io
import tempfile
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import read_json, tree_hash, value_hash
from pipeline.runtime.mlflow_sync import RUN_KEY, Server, tracking_uri, way_out
from pipeline.runtime.provenance import SOURCES
from pipeline.runtime.secrets import redacted

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

CHAMPION = "champion"
SERVED = Path(__file__).with_name("served.py")
CODE = Path(__file__).parents[2]
PACKAGES = (
    *("filelock", "huggingface-hub", "mlflow", "msgpack", "numpy", "pandas", "pillow", "pydantic"),
    *("safetensors", "scipy", "torch", "tqdm"),
)
WEIGHTS = "weights"  # a version's artifact, and the tag with its hash
ON = "measured_on"  # a version's tag


@dataclass(frozen=True)
class Measured:
    """A number that versions are compared by: FID of the model's own samples."""

    metric: str
    value: float
    on: str  # `_measured_on`

    @property
    def tags(self) -> dict[str, str]:
        return {self.metric: str(self.value), ON: self.on}


def register(params: Params, seed: int | None = None) -> str:
    """Log the model of the last run to MLflow, with its signature and an example, and register it
    as a version of `maskgit-<preset>`, unless the same weights are one already. The alias
    `champion` moves to it only if the FID of its own samples is lower than the champion's, measured
    in the same way.

    Args:
        seed: the replicate's; None for the first.

    Returns:
        What was done, in a line.

    Raises:
        UserError: there is no model, no measured FID of just this model, or MLflow does not answer.
    """
    from pipeline.api.model import MaskGIT

    if {"/", ":"} & set(params.preset):
        raise UserError(
            f"preset: '{params.preset}' would be part of the model's name, in which MLflow takes "
            f"no / and no :; give another"
        )
    model = MaskGIT.from_pretrained(".", seed=seed)
    metric = f"fid_{params.evaluation.extractor}"
    with tempfile.TemporaryDirectory() as folder:
        weights = model.save_pretrained(Path(folder, WEIGHTS))
        known = read_json(weights / "config.json", "measured")["measured"]
        if metric not in known:
            raise UserError(
                f"{metric} of this model is not known: the results are of another one; run "
                f"`dvc repro evaluate` first"
            )
        measured = Measured(metric, known[metric], _measured_on(params))
        try:
            run_id = _run_that_measured(params.mlflow.experiment)
            return add_version(model, weights, f"maskgit-{params.preset}", measured, run_id)
        except UserError:
            raise
        except Exception as error:  # of the network and the database, which have many
            reason = redacted(one_line(str(error)))[:200]
            raise UserError(
                f"MLflow at {redacted(tracking_uri())}: {reason}; {way_out(reason)}"
            ) from error


def _measured_on(params: Params) -> str:
    """Hash of what a FID is comparable within: images or statistics, number and classes of the
    samples, network of features."""
    evaluation = params.evaluation
    network = CLASSIFIER if evaluation.extractor == "classifier" else evaluation.inception_weights
    statistics = evaluation.reference_statistics
    own = tree_hash(network) if network else ""
    against = tree_hash(statistics) if statistics else None
    samples = [evaluation.samples, evaluation.labels]
    return value_hash([tree_hash(IMAGES), samples, own, against])[:16]


def _run_that_measured(experiment: str) -> str:
    """The id of the run of `evaluate`, found by its key: a database may have been begun anew."""
    store, key = Server(tracking_uri()), read_json(SOURCES / "evaluate.json", "key")["key"]
    if place := store.ask(lambda client: client.get_experiment_by_name(experiment)):
        if place.lifecycle_stage == "deleted":
            raise UserError(
                f"the experiment '{experiment}' at {redacted(tracking_uri())} is deleted; restore "
                f"it, or choose another mlflow.experiment in params.yaml"
            )
        where, query = [place.experiment_id], f"tags.`{RUN_KEY}` = '{key}'"
        if found := store.ask(lambda client: client.search_runs(where, query, max_results=1)):
            return found[0].info.run_id
    raise UserError(
        f"MLflow at {redacted(tracking_uri())} has no run that measured this model; "
        f"`maskgit sync` sends it, if it is kept, else `dvc repro -s -f evaluate` logs it"
    )


def add_version(model: "MaskGIT", weights: Path, name: str, measured: Measured, run_id: str) -> str:
    """Register what `save_pretrained` wrote, and let it be the champion if it is better.

    Args:
        name: of the registered model.
        run_id: of the run that the model is logged to.

    Returns:
        What was done, in a line.
    """
    import mlflow

    mlflow.set_tracking_uri(tracking_uri())
    client = mlflow.MlflowClient()
    digest = value_hash([tree_hash(weights / part) for part in ("tokenizer", "transformer")])
    version = _registered(client, name, digest)
    if version is None:
        version = _log(model, weights, name, run_id, digest)
    card = (weights / "README.md").read_text(encoding="utf-8").rpartition("---\n")[2]
    client.update_registered_model(name, "Draws images of classes, with MaskGIT.")
    client.update_model_version(name, version, card)
    for tag, text in measured.tags.items():
        client.set_model_version_tag(name, version, tag, text)
    return f"{name} version {version}, {_judge(client, name, version, measured)}"


def _judge(client: Any, name: str, version: str, measured: Measured) -> str:
    """Move the alias, if the version is better than the champion; says what was found."""
    value = f"{measured.metric} {measured.value:.3f}"
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    if champion is not None and str(champion) == version:
        return f"{value}: the champion"
    if champion is not None:
        tags = client.get_model_version(name, champion).tags
        best = _number(tags.get(measured.metric))
        if tags.get(ON) != measured.on or best is None:
            return (
                f"{value}: version {champion} stays the champion, which was measured otherwise; "
                f"move the alias by hand"
            )
        if measured.value >= best:
            return f"{value}: version {champion} stays the champion, with {best:.3f}"
    client.set_registered_model_alias(name, CHAMPION, version)
    return f"{value}: the champion from now on"


def _number(tag: str | None) -> float | None:
    """None of what is no number: anybody may set a tag."""
    try:
        return float(tag or "")
    except ValueError:
        return None


def _registered(client: Any, name: str, digest: str) -> str | None:
    """The version with these weights, if there is one."""
    versions = client.search_model_versions(f"name = '{name}'")
    same = [str(each.version) for each in versions if each.tags.get(WEIGHTS) == digest]
    return same[0] if same else None


def _log(model: "MaskGIT", weights: Path, name: str, run_id: str, digest: str) -> str:
    """Log the model to a run, and register it as a version, which is returned. It has the tag by
    which it is found from the first: after a kill it would be registered again."""
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    decoding = model.defaults.decoding
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "class")]),
        outputs=Schema([ColSpec("string", "class"), ColSpec("string", "png")]),
        params=ParamSchema(
            [
                ParamSpec("seed", "long", 0),
                ParamSpec("iterations", "long", decoding.iterations),
                ParamSpec("schedule", "string", decoding.schedule),
                ParamSpec("temperature", "double", decoding.choice_temperature),
            ]
        ),
    )
    example = pd.DataFrame({"class": list(model.classes[:2])})
    # MLflow says on stderr what this command's own line says.
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
            signature=signature,
            input_example=example,
            pip_requirements=_requirements(),
        )
        made = mlflow.register_model(logged.model_uri, name, tags={WEIGHTS: digest})
    return str(made.version)


def _requirements() -> list[str]:
    """The packages that drawing imports, as they are here."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in PACKAGES]
