"""Commands that draw with a trained model."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options
from pipeline.cli.options import app, examples, open_model, output_format

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

CLASSES = "Names or numbers, in turn. [default: all]"
OUTPUT = (
    "NAME.png: a grid; NAME.gif: the canvas as it fills; NAME.npz: for the ADM suite; without a "
    "suffix: a folder of PNGs."
)
SIDES = "left, right, or both: left,right; or top, bottom"
PIXELS = "How many to add at each side. [default: half of the model's size]"


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
        str | None, typer.Option("--classes", "--class", metavar="CLASS,…", help=CLASSES)
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many samples.")] = 40,
    file: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=OUTPUT)] = Path(
        "samples.png"
    ),
    iterations: options.Iterations = None,
    schedule: options.Schedule = None,
    temperature: options.Temperature = None,
    guidance: options.Guidance = None,
    rounding: options.Rounding = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Draw pictures of classes.

    The model is this project's (trained, or released weights that params.yaml names), or another.
    """
    output_format(file, ".png", ".gif", ".npz", "")
    opened = open_model(model, replicate)
    from pipeline.tools.export import write_samples

    decoding: Any = {"iterations": iterations, "schedule": schedule, "temperature": temperature}
    decoding |= {"guidance": guidance, "rounding": rounding}
    names = None if classes is None else classes.split(",")
    if classes in opened.classes:  # a class's name may contain commas
        names = [classes]
    write_samples(opened, file, names, count, seed, decoding)
    print(f"samples in {file}")


@app.command(epilog=examples("reconstruct photo.jpg"))
def reconstruct(
    picture: options.Picture, file: options.Png = None, model: options.Model = None
) -> None:
    """Encode a picture as tokens and decode it again.

    Samples are decoded in the same way, so this shows the best that they can look.
    """
    file = file or Path("reconstructed.png")
    output_format(file, ".png", reads=[picture])
    opened = open_model(model, None)
    _write("reconstruction", 1, [opened.reconstruct(picture)], file, opened, picture)


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
    picture: options.Picture,
    label: options.Class,
    box: options.Box = None,
    mask: options.Mask = None,
    file: options.Png = None,
    count: options.Count = 1,
    iterations: options.Iterations = None,
    schedule: options.Schedule = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Draw a part of a picture again as a class (Figure 6).

    The part is a box, a mask, or the picture's middle. The result is the picture's centred square
    in the model's size; pixels that are not near the part stay as they are.
    """
    done = f"{context.info_name}ed"  # edited or inpainted
    file = file or Path(f"{done}.png")
    output_format(file, ".png", reads=[picture, mask])
    opened = open_model(model, replicate)
    decoding: Any = {"iterations": iterations, "schedule": schedule, "temperature": temperature}
    pictures = [picture] * count
    batches = opened.edit_batches(pictures, label, box=box, mask=mask, seed=seed, **decoding)
    _write(f"{done} picture", count, batches, file, opened, picture)


@app.command(
    epilog=examples(
        "outpaint photo.jpg --class 3",
        "outpaint photo.jpg --class 3 --sides left,right --pixels 28",
    )
)
def outpaint(
    picture: options.Picture,
    label: options.Class,
    sides: Annotated[str, typer.Option("--sides", "--side", help=SIDES)] = "right",
    pixels: Annotated[int | None, typer.Option(help=PIXELS)] = None,
    file: options.Png = None,
    count: options.Count = 1,
    iterations: options.Iterations = None,
    schedule: options.Schedule = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Extend a picture beyond its sides (Figure 7).

    The new pixels are drawn window by window, so there may be any number of them.
    """
    file = file or Path("outpainted.png")
    output_format(file, ".png", reads=[picture])
    opened = open_model(model, replicate)
    given: Any = {"iterations": iterations, "schedule": schedule, "temperature": temperature}
    given |= {"sides": sides.split(","), "pixels": pixels, "seed": seed}
    batches = opened.outpaint_batches([picture] * count, label, **given)
    _write("extended picture", count, batches, file, opened, picture)


def _write(
    what: str, count: int, batches: Iterable[Any], file: Path, model: "MaskGIT", picture: Path
) -> None:
    """Write the results of an edit, and say if the picture was not of the model's size."""
    from pipeline.api.pictures import open_picture
    from pipeline.tools.export import collected, write_results

    write_results(collected(what, count, batches), file)
    print(f"{what} in {file}")
    width, height = open_picture(picture).size
    if {width, height} != {model.image_size}:
        size = f"{model.image_size}×{model.image_size}"
        note = f"{picture} ({width}×{height}) was cut and resized to the model's {size} pixels"
        print(f"note: {note}", file=sys.stderr)


@app.command(epilog=examples("save digits", "save digits --replicate 1"))
def save(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or empty.")],
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Write a model as one folder, to keep or to give away.

    It holds safetensors, JSON, and a model card with what the run measured of this model.
    """
    open_model(model, replicate).save_pretrained(folder)
    print(f"model in {folder}; `maskgit sample --model {folder}` draws from it")


@app.command(epilog=examples("demo", "demo --model digits --port 8080"))
def demo(
    model: options.Model = None,
    replicate: options.Replicate = None,
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
