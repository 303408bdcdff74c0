"""`bench`, `scale` and `submit`: work outside of the DAG."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.commands import Command

Listed = str | None
SWEEP, MAIN, DECODING = (
    f"[default: {what}]" for what in ("the sweep's", "training.label_smoothing", "decoding's")
)


class Size(StrEnum):
    default = "default"
    paper = "paper"
    all = "all"


def bench(
    size: Size = Size.all,
    threads: Annotated[
        int | None, typer.Option(help="PyTorch's, on the CPU. [default: its own number]")
    ] = None,
) -> None:
    """Time training, decoding and the rest (results/bench.json)."""
    from pipeline.tools.bench.report import SIZES
    from pipeline.tools.bench.report import bench as run

    print(run(list(SIZES) if size is Size.all else [size.value], threads))


def submit(
    stage: Annotated[str, typer.Argument(help="Of dvc.yaml, with what it needs; or all.")] = "all",
    address: Annotated[str, typer.Option(help="The dashboard's.")] = "http://127.0.0.1:8265",
) -> None:
    """Run the DAG, or a stage, as a job on a Ray cluster.

    Code travels as git lists it, data through the default DVC remote; `dvc repro --pull` takes what
    came out. Without a remote the cluster must see this folder under the same path.
    """
    from pipeline.tools.submit.client import submit as run

    print(run(None if stage == "all" else stage, address))


def scale(
    file: Annotated[Path, typer.Argument(help="The CSV; its cells are not measured again.")],
    networks: Annotated[
        Listed, typer.Option(help=f"Mask schedules to train with, and autoregressive. {SWEEP}")
    ] = None,
    label_smoothings: Annotated[Listed, typer.Option(help=f"As 0,0.1. {MAIN}")] = None,
    seeds: Annotated[
        Listed, typer.Option(help=f"Of training and sampling, as 0,1,2. {SWEEP}")
    ] = None,
    steps: Annotated[
        Listed, typer.Option(help=f"At which each training is measured, as 300,1200. {SWEEP}")
    ] = None,
    decode_schedules: Annotated[
        Listed, typer.Option(help="Mask schedules; own: the one trained with. [default: own]")
    ] = None,
    iterations: Annotated[Listed, typer.Option(help=f"Values of T, as 4,8. {SWEEP}")] = None,
    choice_temperatures: Annotated[Listed, typer.Option(help=f"As 2,4.5. {DECODING}")] = None,
    samples: Annotated[
        int | None, typer.Option(help="How many in each cell. [default: evaluation.samples]")
    ] = None,
) -> None:
    """Measure quality against steps, seeds and decoding.

    Adds rows to a CSV file; lists are written with commas.
    """
    from pipeline.api.arguments import require_apart, require_name
    from pipeline.cli.outputs import require_place
    from pipeline.config.params import load_params
    from pipeline.tools.scale import Grid
    from pipeline.tools.scale import scale as run

    options = {
        "networks": networks,
        "label_smoothings": label_smoothings,
        "seeds": seeds,
        "steps": steps,
        "decode_schedules": decode_schedules,
        "iterations": iterations,
        "choice_temperatures": choice_temperatures,
    }
    require_name("FILE", file)
    require_apart("FILE", file)
    require_place(file)
    params = load_params()
    print(run(params, Grid.of(params, options, samples), file))


COMMANDS = (
    Command(bench, ("bench --size default",)),
    Command(scale, ("scale rows.csv --networks cosine,autoregressive --steps 300,1200",)),
    Command(submit, ("submit", "submit sweep --address http://head:8265")),
)
