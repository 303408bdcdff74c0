"""Commands that show, export and publish the results of a run."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli import options
from pipeline.cli.options import AsJson, Replicate, app, examples, print_json
from pipeline.runtime.errors import UserError


@app.command(epilog=examples("summary", "summary --json"))
def summary(as_json: AsJson = False) -> None:
    """Print the main results of the last run."""
    from pipeline.tools import summary as tool

    if as_json:
        print_json(tool.summary_values())
    else:
        print(tool.summary())


@app.command(epilog=examples("report", "report --open"))
def report(
    show: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
) -> None:
    """Print the path of the report, or open it."""
    import webbrowser

    page = Path("analysis/report.html").absolute()
    if not page.exists():
        raise UserError(str(page), "missing", "run `dvc repro` in the project's folder")
    print(page)
    if show and not webbrowser.open(page.as_uri()):
        raise UserError("--open", "no browser was found", f"open {page} yourself")


@app.command(epilog=examples("ui"))
def ui() -> None:
    """Browse the runs in MLflow's UI, served on loopback.

    Prints links; Ctrl-C stops the UI. If MLFLOW_TRACKING_URI names a server, the links lead there,
    and no UI starts.
    """
    from pipeline.tools.ui import main

    main()


@app.command(
    epilog=examples("export transformer samples.npz", "export autoregressive folder/ --replicate 1")
)
def export(
    network: Annotated[
        Literal["transformer", "autoregressive"], typer.Argument(help="Which network's samples.")
    ],
    path: Annotated[Path, typer.Argument(help="An .npz (for the ADM suite) or a folder of PNGs.")],
    replicate: Replicate = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include samples that only stage cas uses.")
    ] = False,
) -> None:
    """Write a network's samples for other evaluation tools."""
    from pipeline.config.params import load_params
    from pipeline.tools.export import export_samples

    options.output_format(path, ".npz", "")
    count = export_samples(load_params(), network, path, replicate, everything)
    print(f"{count} samples in {path}")


@app.command(epilog=examples("measure samples.npz", "measure folder/ --json"))
def measure(
    path: Annotated[Path, typer.Argument(help="A folder of PNGs, or an .npz.")],
    as_json: AsJson = False,
) -> None:
    """Compare images with the training images; print the metrics.

    std: a metric's standard deviation over sets of this size, estimated by measuring random halves.
    """
    from pipeline.config.params import load_params
    from pipeline.tools.measure import measured, table

    # With --json, progress goes to stderr, so that stdout is JSON only.
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        values = measured(load_params(), path)
    if as_json:
        print_json(values)
    else:
        print(table(values))


@app.command(epilog=examples("sync"))
def sync() -> None:
    """Send the logs that MLflow missed while it was unreachable.

    The exit code is 1 if some logs could not be sent.
    """
    from pipeline.config.params import load_params
    from pipeline.runtime.mlflow_sync import sync as send
    from pipeline.runtime.stage import logs_folder

    print(send(logs_folder(load_params())))


@app.command(epilog=examples("register"))
def register(replicate: Replicate = None) -> None:
    """Add the model of the last run to MLflow's registry.

    The model becomes a version of maskgit-<preset>, tagged with its FID. If a version has the same
    weights, only its tag is updated.
    """
    from pipeline.config.params import load_params
    from pipeline.tools.registry import register as add

    with options.warnings_as_notes():
        added = add(load_params(), replicate)
    print(added)
