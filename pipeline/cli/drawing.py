"""Commands that draw pictures with a trained model."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import options
from pipeline.cli.options import app, examples, open_model, output_format

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

CLASSES = "Class names or numbers to cycle through. [default: all]"
OUTPUT = (
    "NAME.png: a grid; NAME.gif: every decoding step; NAME.npz: for the ADM suite; NAME: a "
    "folder of PNGs."
)
SIDES = "left, right, top or bottom, or two opposite sides such as left,right"
PIXELS = "Number of pixels to add at each side. [default: half of the model's size]"


@app.command(
    epilog=examples(
        "sample --classes 3,5 --count 20",
        "sample --classes 7 --count 1 --output filling.gif --seed 2",
        "sample -T 12 --schedule cosine --output folder/",
        "sample --set sampler=halton --set top_k=64",
        "sample --model owner/name --output samples.npz",
    )
)
def sample(
    classes: Annotated[
        str | None, typer.Option("--classes", "--class", metavar="CLASS,…", help=CLASSES)
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of samples.")] = 40,
    file: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help=OUTPUT)] = Path(
        "samples.png"
    ),
    iterations: options.Iterations = None,
    schedule: options.Schedule = None,
    temperature: options.Temperature = None,
    guidance: options.Guidance = None,
    rounding: options.Rounding = None,
    settings: options.Settings = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Draw pictures of one or more classes."""
    output_format(file, ".png", ".gif", ".npz", "")
    opened = open_model(model, replicate)
    from pipeline.tools.export import write_samples

    decoding: Any = {"iterations": iterations, "schedule": schedule, "temperature": temperature}
    decoding |= {"guidance": guidance, "rounding": rounding} | dict(settings or [])
    names = None if classes is None else classes.split(",")
    if classes in opened.classes:  # a class's name may contain commas
        names = [classes]
    write_samples(opened, file, names, count, seed, decoding)
    print(f"samples in {file}")


@app.command(epilog=examples("reconstruct photo.jpg"))
def reconstruct(
    picture: options.Picture, file: options.Png = None, model: options.Model = None
) -> None:
    """Encode a picture as tokens and decode the tokens.

    Samples come from the same decoder, so no sample can look better than a reconstruction.
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
    help="Fill a hole in a picture (Figure 7, Table 2). Another name for `maskgit edit`.",
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
    settings: options.Settings = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Fill a region with content of a class (Figure 6).

    --box or --mask selects the region (default: a centred box of half the height and width). The
    result is the picture's centred square, resized to the model's size; pixels far from the region
    do not change.
    """
    done = f"{context.info_name}ed"  # edited or inpainted
    file = file or Path(f"{done}.png")
    output_format(file, ".png", reads=[picture, mask])
    opened = open_model(model, replicate)
    decoding: Any = {"iterations": iterations, "schedule": schedule, "temperature": temperature}
    decoding |= dict(settings or [])
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
    settings: options.Settings = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Extend a picture beyond its sides (Figure 7).

    The new pixels are drawn window by window, so --pixels has no limit.
    """
    file = file or Path("outpainted.png")
    output_format(file, ".png", reads=[picture])
    opened = open_model(model, replicate)
    given: Any = {"iterations": iterations, "schedule": schedule, "temperature": temperature}
    given |= {"sides": sides.split(","), "pixels": pixels, "seed": seed} | dict(settings or [])
    batches = opened.outpaint_batches([picture] * count, label, **given)
    _write("extended picture", count, batches, file, opened, picture)


def _write(
    what: str, count: int, batches: Iterable[Any], file: Path, model: "MaskGIT", picture: Path
) -> None:
    """Write the results of a command, and print a note if the picture was cut or resized."""
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
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    model: options.Model = None,
    replicate: options.Replicate = None,
) -> None:
    """Save a model as one folder.

    The folder holds safetensors, JSON, and a model card with metrics.
    """
    open_model(model, replicate).save_pretrained(folder)
    print(f"model in {folder}; `maskgit sample --model {folder}` draws samples")


@app.command(epilog=examples("demo", "demo --model digits --port 8080"))
def demo(
    model: options.Model = None,
    replicate: options.Replicate = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; a loopback address keeps other machines out.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="[default: 7860, or another free port]")
    ] = None,
) -> None:
    """Serve a web page to try the model.

    The page draws samples, compares schedules and edits pictures. Ctrl-C stops the server.
    """
    from pipeline.tools.demo import PORT, require_gradio, serve
    from pipeline.tools.ports import free_port

    require_gradio()
    port = free_port(host, port, PORT)
    serve(open_model(model, replicate), host, port)
