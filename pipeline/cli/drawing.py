"""`sample`, `reconstruct`, `save` and `demo`: a trained model by itself."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.commands import Command
from pipeline.cli.options import (
    Guidance,
    Iterations,
    Model,
    Picture,
    Replicate,
    Schedule,
    Seed,
    SetParam,
    Temperature,
    decoding,
    one_or_all,
    open_model,
    output,
)
from pipeline.cli.outputs import require_png, sample_format

Classes = Annotated[
    str | None,
    typer.Option(
        "--classes", "--class", metavar="CLASS,…", help="Names or numbers, in turn. [default: all]"
    ),
]


def sample(
    classes: Classes = None,
    count: Annotated[int, typer.Option(help="How many samples.")] = 40,
    file: Annotated[
        Path,
        output(
            "NAME.png: a grid; NAME.gif: the canvas as it fills; NAME.npz: for the ADM suite; "
            "without a suffix: a folder of PNGs."
        ),
    ] = Path("samples.png"),
    iterations: Iterations = None,
    schedule: Schedule = None,
    temperature: Temperature = None,
    guidance: Guidance = None,
    set_param: SetParam = None,
    seed: Seed = 0,
    model: Model = ".",
    replicate: Replicate = None,
) -> None:
    """Draw pictures of classes.

    The model is this project's, as params.yaml says: trained, or of released files; or another's.
    """
    form = sample_format(file)
    opened = open_model(model, replicate)
    from pipeline.tools.sample import write_samples

    settings = decoding(iterations, schedule, temperature, guidance, set_param)
    write_samples(opened, form, file, one_or_all(classes, opened.classes), count, seed, settings)
    print(f"samples in {file}")


def reconstruct(
    picture: Picture,
    file: Annotated[Path, output("A .png.")] = Path("reconstructed.png"),
    model: Model = ".",
) -> None:
    """Show a picture as its tokens keep it.

    What is sampled is drawn by the same decoder.
    """
    require_png(file, picture)
    opened = open_model(model, None)
    from pipeline.tools.sample import write_results

    write_results(opened.reconstruct(picture), file)
    print(f"reconstruction in {file}")


def save(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or empty.")],
    model: Model = ".",
    replicate: Replicate = None,
) -> None:
    """Write a model as one folder, to keep or to give away.

    It holds safetensors, JSON, and a model card with what the run measured of this model.
    """
    from pipeline.api.arguments import require_free

    # Before the model is opened.
    require_free(folder, "FOLDER")
    open_model(model, replicate).save_pretrained(folder)
    print(f"model in {folder}; `maskgit sample --model {folder}` draws from it")


def demo(
    model: Model = ".",
    replicate: Replicate = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback let others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="[default: 7860, or a free one]")
    ] = None,
) -> None:
    """Serve a page to play with in the browser.

    Draw, compare schedules, edit pictures; on this machine alone. Ctrl-C ends it.
    """
    from pipeline.tools.demo.serving import PORT, require_gradio, serve
    from pipeline.tools.ports import free_port

    require_gradio()
    free = free_port(host, port, PORT)
    serve(open_model(model, replicate), host, free)


COMMANDS = (
    Command(
        sample,
        (
            "sample --classes 3,5 --count 20",
            "sample --classes 7 --count 1 --output filling.gif --seed 2",
            "sample -T 12 --schedule cosine --output folder/",
            "sample -S decoding.rounding=ceil -S decoding.choice_temperature=3",
            "sample --model owner/name --output samples.npz",
        ),
    ),
    Command(reconstruct, ("reconstruct photo.jpg",)),
    Command(save, ("save digits", "save digits --replicate 1")),
    Command(demo, ("demo", "demo --model digits --port 8080")),
)
