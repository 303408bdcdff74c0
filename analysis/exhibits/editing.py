"""Inpainting and outpainting: metrics of the composites (Table 2), and Figures 6 and 7."""

from functools import partial

import numpy as np
import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits import paper
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.claims import Claim, by_pairs
from analysis.exhibits.drawing import draw_mosaic, shortened
from analysis.exhibits.results import Results, measure_note
from analysis.exhibits.statistics import beside, by_seed, over_seeds
from pipeline.config.params import Params

# Edits that are measured, and their names in tables.
EDITS = {
    "inpaint_center": "inpainting, centre 50% × 50%",
    "outpaint_right": "outpainting, right 50%",
    "outpaint_left": "outpainting, left 50%",
    "outpaint_top": "outpainting, top 50%",
    "outpaint_bottom": "outpainting, bottom 50%",
}
TASKS = {"inpaint_center": "inpainting", "outpaint_right": "outpainting"}  # the paper's two tasks
ORIGINAL = "the images themselves"
METHODS = {"maskgit": "MaskGIT", "nearest": "nearest pixel (floor)", "original": ORIGINAL}


def claims(results: Results, params: Params) -> list[Claim]:
    """Claims that MaskGIT's composites beat a baseline that copies the nearest known pixel."""
    fid = results.metric("fid")
    found = []
    for task, name in TASKS.items():
        rows = results.editing[results.editing["task"] == task]
        ours = by_seed(rows[rows["method"] == "maskgit"], fid)
        copied = rows.loc[rows["method"] == "nearest", fid].mean()  # the same for every seed
        floor = pd.Series(copied, ours.index).dropna()
        found.append(
            Claim(
                said=f"{name} beats copying the nearest pixel",
                exhibit="table2-table",
                shown_in="Table 2",
                measure=f"{name}, {results.label('fid')}",
                sign=-1,
                parts=by_pairs(ours, floor),
            )
        )
    return found


def table(results: Results, params: Params) -> Table:
    """For each kind of edit: one row per method, then one per model that only the paper has."""
    rows = [
        (task, model, *score)
        for task, scores in paper.TABLE_2.items()
        for model, score in scores.items()
    ]
    names = ["task", "model", "paper_fid_inception", "paper_is_inception"]
    cells = beside(_measured(results), pd.DataFrame(rows, columns=names), names[:2])
    rank = cells["task"].map(list(EDITS).index)
    cells = cells.iloc[rank.argsort(kind="stable")].reset_index(drop=True)
    fid, is_, x = results.metric("fid"), results.metric("is"), results.extractor
    ours = partial(fmt.columns, cells, over=fmt.seeds_of(cells["seeds"], params))
    distance = f"distance on the hole ({params.tokenizer.perceptual})"
    inpaint, outpaint = (paper.TABLE_2[task]["MaskGIT"] for task in paper.TABLE_2)
    return Table(
        name="table2",
        title="Table 2: inpainting and outpainting, beside the paper's",
        cells=cells,
        columns={
            "task": cells["task"].map(EDITS),
            "model": cells["model"],
            **ours({fid: fmt.counted_label(fid, x, cells["images"])}),
            paper.FID: fmt.printed(cells["paper_fid_inception"], 2),
            **ours({is_: results.label("is")}),
            paper.IS: fmt.printed(cells["paper_is_inception"], 2),
            **ours({"class_accuracy": "recognised", "psnr_hole": "PSNR on the hole (dB)"}),
            **ours({"perceptual_hole": distance}),
        },
        notes=[
            f"FID ({x}) and IS ({x}) are of {fmt.extent(results.editing['images'])} composites: "
            "validation images with the generated part blended in. The model is told each image's "
            "class. The baseline 'nearest pixel' copies the nearest known pixel. Baseline and "
            "originals have no seed, so no ±. All seeds edit the same images, so no ± covers the "
            f"choice of images. {measure_note(params, x)}",
            "PSNR and perceptual distance compare the unknown pixels of a composite with the "
            "original (mean over images); the distance uses "
            f"{params.tokenizer.perceptual} features.",
            "Columns marked (paper …) show the paper's Table 2, for a model trained on Places2: it "
            "inpaints validation images of Places2, and outpaints images from the authors of "
            "InfinityGAN and In&Out. Compare orderings, not values.",
        ],
        paper=f"without training for the task, MaskGIT comes close to the best dedicated model at "
        f"inpainting (FID (Inception) {inpaint.fid} against CoModGAN's "
        f"{paper.TABLE_2['inpaint_center']['CoModGAN'].fid}) and beats all others at outpainting "
        f"({outpaint.fid}; Boundless {paper.TABLE_2['outpaint_right']['Boundless (TF)'].fid:.2f}).",
    )


def _measured(results: Results) -> pd.DataFrame:
    """Means over seeds of each edit: MaskGIT, then the nearest-pixel baseline, then originals."""
    metrics = [results.metric("fid"), results.metric("is"), "class_accuracy"]
    metrics += ["psnr_hole", "perceptual_hole"]
    means = over_seeds(results.editing, ["task", "method", "images"], metrics)
    means["images"] = means.pop("images")  # last
    rank = means["method"].map(list(METHODS).index)
    means = means.iloc[rank.argsort(kind="stable")].reset_index(drop=True)
    means["method"] = means["method"].map(METHODS)
    return means.rename(columns={"method": "model"})


def class_edit(results: Results, params: Params) -> Figure:
    """Images in which a box is regenerated as an object of another class (Figure 6)."""
    images = results.edits["class_edit"]
    labels = [shortened(str(name)) for name in results.edits["class_edit_labels"]]
    return Figure(
        name="figure6",
        title="Figure 6: class-conditional editing, the box regenerated as another class",
        alt="In each row an image, its box in grey, and the image with the box regenerated as "
        f"{fmt.listed(labels)}.",
        paper="the object in a box is replaced by an object of another class while its "
        "surroundings do not change; this is infeasible for autoregressive models.",
        draw=partial(draw_mosaic, images, column_labels=["input", "box", *labels]),
    )


def inpainting(results: Results, params: Params) -> Figure:
    """Inputs with a hole, MaskGIT's composites, and the originals."""
    images, rows = results.edits["inpainting"], ["input", "MaskGIT", "original"]
    return Figure(
        name="inpainting",
        title="Inpainting (grey: unknown)",
        alt="In each column an image with a grey hole, the image with the hole filled by MaskGIT, "
        "and the original.",
        paper="MaskGIT scores better than DeepFill and HiFill, and close to CoModGAN (Table 2).",
        draw=partial(draw_mosaic, images.swapaxes(0, 1), row_labels=rows),
    )


def outpainting(results: Results, params: Params) -> Figure:
    """Images whose right half is outpainted with several seeds (Figure 7)."""
    images = results.edits["outpainting"]
    seeds = images.shape[1] - 1
    labels = ["input", *(f"seed {i + 1}" for i in range(seeds))]
    return Figure(
        name="figure7",
        title="Figure 7: outpainting with several seeds (grey: unknown)",
        alt=f"In each row an image whose greyed part is continued with {seeds} seeds.",
        paper="the same input is continued in diverse and coherent ways.",
        draw=partial(draw_mosaic, images, column_labels=labels),
    )


def panorama(results: Results, params: Params) -> Figure:
    """Images extended to both sides by sliding the model's window over the extended image."""
    images = results.edits["panorama"]
    return Figure(
        name="panorama",
        title="Panoramas: images extended to the left and to the right",
        alt="Wide pictures, one above the other: each is an image extended to the left and right.",
        paper="images are extended far beyond their own size, though colours and meaning drift.",
        draw=partial(draw_mosaic, np.expand_dims(images, 1)),
    )
