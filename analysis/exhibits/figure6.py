"""Figure 6, and inpainting: what stands in a part of an image is generated anew."""

from analysis.exhibits.base import Figure
from analysis.exhibits.formatting import listed
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.mosaic import draw_mosaic, shortened
from pipeline.config.params import Params


def class_edit(results: Results, params: Params) -> Figure:
    """The box of each image, regenerated as other classes."""
    images = results.edits["class_edit"]
    labels = [shortened(str(name)) for name in results.edits["class_edit_labels"]]
    return Figure(
        name="figure6",
        title="Figure 6: class-conditional editing, the box regenerated as another class",
        alt="In each row an image, its box in grey, and the same with the box regenerated as "
        f"{listed(labels)}.",
        paper="the object in a box is replaced by one of another class while its surroundings stay "
        "what they are; for autoregressive models it is infeasible.",
        here=[
            f"The box of {len(images)} validation images is regenerated as each of {len(labels)} "
            "classes, without any training for it."
        ],
        draw=lambda path, dpi: draw_mosaic(
            images,
            path,
            dpi,
            column_labels=["input", "box", *labels],
        ),
    )


def inpainting(results: Results, params: Params) -> Figure:
    """Inputs with a hole, what fills it, and the originals."""
    images = results.edits["inpainting"]
    return Figure(
        name="inpainting",
        title="Inpainting (grey: unknown)",
        alt="In each column an image with a grey hole, the image with the hole filled by MaskGIT, "
        "and the original.",
        paper="better scores than DeepFill's and HiFill's, close to CoModGAN's (Table 2).",
        here=[f"Holes in {len(images)} validation images are filled; measured in Table 2."],
        draw=lambda path, dpi: draw_mosaic(
            images.swapaxes(0, 1),
            path,
            dpi,
            row_labels=["input", "MaskGIT", "original"],
        ),
    )
