"""Commands that draw with a trained model."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pipeline.cli.commands import app, examples
from pipeline.cli.options import (
    Box,
    Class,
    Count,
    Guidance,
    Iterations,
    Mask,
    Model,
    Picture,
    Png,
    Replicate,
    Rounding,
    Schedule,
    Seed,
    Temperature,
    decoding,
    one_or_all,
    open_model,
    output_format,
)
from pipeline.runtime.errors import UserError

SIDES = "left, right, or both: left,right; or top, bottom"


@app.command(
    epilog=examples(
        "sample --classes 3,5 --count 20",
        "sample --classes 7 --count 1 --output filling.gif --seed 2",
        "sample -T 12 --schedule cosine --output folder/",
        "sample --rounding ceil --temperature 3",
        "sample --model owner/name --output samples.npz",
    )
)
def sample(
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            "--class",
            metavar="CLASS,…",
            help="Names or numbers, in turn. [default: all]",
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many samples.")] = 40,
    file: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="NAME.png: a grid; NAME.gif: the canvas as it fills; NAME.npz: for the ADM suite; "
            "without a suffix: a folder of PNGs.",
        ),
    ] = Path("samples.png"),
    iterations: Iterations = None,
    schedule: Schedule = None,
    temperature: Temperature = None,
    guidance: Guidance = None,
    rounding: Rounding = None,
    seed: Seed = 0,
    model: Model = None,
    replicate: Replicate = None,
) -> None:
    """Draw pictures of classes.

    The model is this project's (trained, or released weights that params.yaml names), or another.
    """
    form = output_format(file, ".png", ".gif", ".npz", "")
    opened = open_model(model, replicate)
    from pipeline.tools.sample import write_samples

    settings = decoding(
        iterations=iterations,
        schedule=schedule,
        temperature=temperature,
        guidance=guidance,
        rounding=rounding,
    )
    write_samples(opened, form, file, one_or_all(classes, opened.classes), count, seed, settings)
    print(f"samples in {file}")


@app.command(epilog=examples("reconstruct photo.jpg"))
def reconstruct(picture: Picture, file: Png = None, model: Model = None) -> None:
    """Encode a picture as tokens and decode it again.

    Samples are decoded in the same way, so this shows the best that they can look.
    """
    file = file or Path("reconstructed.png")
    output_format(file, ".png", reads=[picture])
    opened = open_model(model, None)
    from pipeline.tools.sample import write_results

    write_results(opened.reconstruct(picture), file)
    print(f"reconstruction in {file}")


@app.command(
    epilog=examples(
        "edit photo.jpg --class 7", "edit photo.jpg --class 7 --box 40,40,200,180 --count 4"
    )
)
@app.command(
    "inpaint",
    help="Fill a hole in a picture (Figure 7, Table 2), as edit does.",
    epilog=examples(
        "inpaint photo.jpg --box 40,40,200,180 --class cat",
        "inpaint photo.jpg --mask hole.png --class cat --count 4",
    ),
)
def edit(
    context: typer.Context,
    picture: Picture,
    label: Class,
    box: Box = None,
    mask: Mask = None,
    file: Png = None,
    count: Count = 1,
    iterations: Iterations = None,
    schedule: Schedule = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    model: Model = None,
    replicate: Replicate = None,
) -> None:
    """Draw a part of a picture again as a class (Figure 6).

    The part is a box, a mask, or the picture's middle. The result is the picture's centred square
    in the model's size; pixels that are not near the part stay as they are.
    """
    if box is not None and mask is not None:
        raise UserError("--box and --mask", "both were given", "give one of them")
    name = str(context.info_name)  # edit or inpaint
    file = file or Path(f"{name}ed.png")
    output_format(file, ".png", reads=[picture, mask])
    opened = open_model(model, replicate)
    from pipeline.tools.sample import collected, write_results

    settings = decoding(iterations=iterations, schedule=schedule, temperature=temperature)
    batches = opened.edit_batches(
        [picture] * count, label, box=box, mask=mask, seed=seed, **settings
    )
    write_results(collected(name, count, batches), file)
    print(f"{name}ed picture in {file}")


@app.command(
    epilog=examples(
        "outpaint photo.jpg --class 3",
        "outpaint photo.jpg --class 3 --sides left,right --pixels 28",
    )
)
def outpaint(
    picture: Picture,
    label: Class,
    sides: Annotated[str, typer.Option("--sides", "--side", help=SIDES)] = "right",
    pixels: Annotated[
        int | None,
        typer.Option(help="How many to add at each side. [default: half of the model's size]"),
    ] = None,
    file: Png = None,
    count: Count = 1,
    iterations: Iterations = None,
    schedule: Schedule = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    model: Model = None,
    replicate: Replicate = None,
) -> None:
    """Extend a picture beyond its sides (Figure 7).

    The new pixels are drawn window by window, so there may be any number of them.
    """
    file = file or Path("outpainted.png")
    output_format(file, ".png", reads=[picture])
    opened = open_model(model, replicate)
    from pipeline.tools.sample import collected, write_results

    settings = decoding(iterations=iterations, schedule=schedule, temperature=temperature)
    names = cast(Any, sides.split(","))
    batches = opened.outpaint_batches(
        [picture] * count, label, sides=names, pixels=pixels, seed=seed, **settings
    )
    write_results(collected("outpaint", count, batches), file)
    print(f"extended picture in {file}")


@app.command(epilog=examples("save digits", "save digits --replicate 1"))
def save(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or empty.")],
    model: Model = None,
    replicate: Replicate = None,
) -> None:
    """Write a model as one folder, to keep or to give away.

    It holds safetensors, JSON, and a model card with what the run measured of this model.
    """
    open_model(model, replicate).save_pretrained(folder)
    print(f"model in {folder}; `maskgit sample --model {folder}` draws from it")


@app.command(epilog=examples("demo", "demo --model digits --port 8080"))
def demo(
    model: Model = None,
    replicate: Replicate = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than loopback lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="[default: 7860, or a free one]")
    ] = None,
) -> None:
    """Serve a page to play with in the browser.

    Draw, compare schedules, edit pictures; on this machine alone. Ctrl-C ends it.
    """
    from pipeline.tools.demo import PORT, require_gradio, serve
    from pipeline.tools.ports import free_port

    require_gradio()
    port = free_port(host, port, PORT)
    serve(open_model(model, replicate), host, port)
