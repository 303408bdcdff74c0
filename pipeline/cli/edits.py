"""`edit`, `inpaint` and `outpaint`: a picture of one's own, changed by a trained model."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pipeline.cli.commands import Command
from pipeline.cli.options import (
    BoxText,
    Class,
    Count,
    Iterations,
    Mask,
    Model,
    Picture,
    Replicate,
    Schedule,
    Seed,
    Temperature,
    box_of,
    decoding,
    open_model,
    output,
)
from pipeline.cli.outputs import require_png
from pipeline.runtime.errors import ArgumentError, UserError

SIDES = "left, right, or both: left,right; or top, bottom"


def edit(
    picture: Picture,
    label: Class,
    box: BoxText = None,
    mask: Mask = None,
    file: Annotated[Path, output("A .png.")] = Path("edited.png"),
    count: Count = 1,
    iterations: Iterations = None,
    schedule: Schedule = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    model: Model = ".",
    replicate: Replicate = None,
) -> None:
    """Make a part of a picture anew as a class (Figure 6).

    The part is its middle, or a box or a mask. What is written is the picture's centred square in
    the model's size; of that, what is not near the part stays as it is.
    """
    if box is not None and mask is not None:
        raise UserError("--box and --mask: give one of them")
    require_png(file, picture, mask)
    where = box_of(box)
    opened = open_model(model, replicate)
    from pipeline.tools.sample import collected, write_results

    settings = decoding(iterations, schedule, temperature)
    pictures = [picture] * count
    try:
        batches = opened.edit_batches(pictures, label, box=where, mask=mask, seed=seed, **settings)
    except ArgumentError as error:
        if where is None or not str(error).startswith("mask: nothing"):
            raise
        raise UserError(
            f"--box: {box} lies outside of the picture's centred square, which alone is edited; "
            f"give a box that meets it"
        ) from None
    write_results(collected("edit", count, batches), file)
    print(f"edited picture in {file}")


def inpaint(
    picture: Picture,
    label: Class,
    box: BoxText = None,
    mask: Mask = None,
    file: Annotated[Path, output("A .png.")] = Path("inpainted.png"),
    count: Count = 1,
    iterations: Iterations = None,
    schedule: Schedule = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    model: Model = ".",
    replicate: Replicate = None,
) -> None:
    """Fill a hole in a picture of a class (Figure 7, Table 2).

    The hole is a box or a mask; what lies in it is not looked at.
    """
    if box is None and mask is None:
        raise UserError("--box or --mask: give one of them, the hole that is to be filled")
    edit(
        picture, label, box, mask, file, count, iterations, schedule, temperature, seed, model,
        replicate,
    )  # fmt: skip


def outpaint(
    picture: Picture,
    label: Class,
    sides: Annotated[str, typer.Option("--sides", "--side", help=SIDES)] = "right",
    pixels: Annotated[
        int | None,
        typer.Option(help="How many to add at each side. [default: half of the model's size]"),
    ] = None,
    file: Annotated[Path, output("A .png.")] = Path("outpainted.png"),
    count: Count = 1,
    iterations: Iterations = None,
    schedule: Schedule = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    model: Model = ".",
    replicate: Replicate = None,
) -> None:
    """Extend a picture of a class beyond its sides (Figure 7).

    What is added at a side is made window by window, so that it may be of any length.
    """
    require_png(file, picture)
    opened = open_model(model, replicate)
    from pipeline.tools.sample import collected, write_results

    settings = decoding(iterations, schedule, temperature)
    pictures, names = [picture] * count, cast(Any, sides.split(","))
    batches = opened.outpaint_batches(
        pictures, label, sides=names, pixels=pixels, seed=seed, **settings
    )
    write_results(collected("outpaint", count, batches), file)
    print(f"extended picture in {file}")


COMMANDS = (
    Command(
        edit, ("edit photo.jpg --class 7", "edit photo.jpg --class 7 --box 40,40,200,180 --count 4")
    ),
    Command(
        inpaint,
        (
            "inpaint photo.jpg --box 40,40,200,180 --class cat",
            "inpaint photo.jpg --mask hole.png --class cat --count 4",
        ),
    ),
    Command(
        outpaint,
        (
            "outpaint photo.jpg --class 3",
            "outpaint photo.jpg --class 3 --sides left,right --pixels 28",
        ),
    ),
)
