"""Commands that prepare and plan a run, or run stages on a cluster."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import AsJson, app, examples, print_json
from pipeline.runtime.dag import DVC_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import IMAGES


@app.command(epilog=examples("doctor", "doctor --json"))
def doctor(as_json: AsJson = False) -> None:
    """Check that this machine and folder are ready for a run.

    Checks the installed packages, and the data set, devices and disk that params.yaml needs. Prints
    how to correct each problem. The exit code is 1 if a problem would stop a run.
    """
    from pipeline.tools.doctor import examine, findings_text

    findings = examine()
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        print(findings_text(findings))
    if any(finding.state == "fails" for finding in findings):
        sys.exit(1)


@app.command(epilog=examples("preset", "preset smoke"))
def preset(
    name: Annotated[str | None, typer.Argument(help="Preset to write; omit to list all.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the presets, or write one preset to params.yaml.

    The list describes each preset and its cost. Writing keeps the comments in params.yaml.
    """
    from pipeline.config.presets import apply_preset, preset_names, preset_summary

    if name is None:
        presets = [preset_summary(each) for each in preset_names()]
        if as_json:
            print_json([each._asdict() for each in presets])
        for each in () if as_json else presets:
            print(f"{each.name:<12} {each.what}\n{'':<12} cost: {each.cost}")
        return
    if not DVC_FILE.exists():
        reason = f"the folder has no project ({DVC_FILE} is missing)"
        way_out = "run `maskgit preset` in a clone of the project"
        raise UserError(str(Path.cwd()), reason, way_out)
    params = apply_preset(name)
    if as_json:
        print(params.model_dump_json(indent=2))
    else:
        print(f"params.yaml now holds preset {name}; `dvc repro` runs it")


@app.command(epilog=examples("params"))
def params() -> None:
    """Validate params.yaml, and print the resolved params as JSON."""
    from pipeline.config.params import load_params

    print(load_params().model_dump_json(indent=2))


@app.command(epilog=examples("plan", "plan imagenet256 --gpu H100"))
def plan(
    name: Annotated[str | None, typer.Argument(help="Preset; omit to plan params.yaml.")] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, max=IMAGES, help="Total number of training and validation images."),
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1, max=IMAGES, help="Class count.")] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="L4, A100, L40S, H100 or H200. [default: A100 if ray.use_gpu, else CPU]"),
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(help="Achieved rate of a device, in 10¹² FLOP/s.")
    ] = None,
) -> None:
    """Estimate the time, FLOPs, parameters and disk of a run.

    --images defaults to the number of prepared images, else the data set's published size.
    """
    from pipeline.config.params import load_params
    from pipeline.config.presets import preset_params
    from pipeline.tools.plan import Plan, data_size

    params = load_params() if name is None else preset_params(name)
    print(Plan(params, data_size(params, images, classes), gpu, tflops).text())


@app.command(epilog=examples("submit", "submit sweep --address http://head:8265"))
def submit(
    stage: Annotated[str, typer.Argument(help="A stage (and its dependencies), or all.")] = "all",
    address: Annotated[str, typer.Option(help="URL of Ray's dashboard.")] = "http://127.0.0.1:8265",
) -> None:
    """Run the DAG, or a stage, as a job on a Ray cluster.

    Ray uploads the code, except files that .gitignore lists. DVC transfers data through its default
    remote; `dvc repro --pull` fetches the results. Without a remote, the cluster's nodes need this
    folder at the same path.
    """
    from pipeline.tools.submit import submit as run

    print(run(None if stage == "all" else stage, address))
