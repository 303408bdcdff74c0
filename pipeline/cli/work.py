"""`submit`: work outside of the DAG."""

from typing import Annotated

import typer

from pipeline.cli.commands import Command


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


COMMANDS = (Command(submit, ("submit", "submit sweep --address http://head:8265")),)
