"""`bench` and `submit`: work outside of the DAG."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.commands import Command


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


COMMANDS = (
    Command(bench, ("bench --size default",)),
    Command(submit, ("submit", "submit sweep --address http://head:8265")),
)
