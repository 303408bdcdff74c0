"""Names of the metrics: what result files call them, and what readers see."""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.tables import DAMAGED

# Metrics whose value depends on the network that extracts the features. One more line here, and
# table 1 and the sweep's show it, and table 4 where rejection measures it (docs/extend.md).
FEATURE_METRICS = {
    "fid": "FID",
    "fid_infinity": "FID∞",
    "is": "IS",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
# Those of the main extractor alone; the others, of neighbours, are measured with both.
DISTRIBUTION = ("fid", "fid_infinity", "is", "kid")
OTHER_METRICS = {"nll": "NLL", "class_accuracy": "recognised", "psnr": "PSNR"}
LOWER_IS_BETTER = {"fid", "fid_infinity", "kid", "nll"}

# Sets of images that are measured, by the paper's names for the networks that made them.
MODELS = {
    "transformer": "MaskGIT",
    "autoregressive": "VQGAN∗",
    "reconstruction": "reconstructions",
    "real": "real images",
}
# Those of them that are trained, in a table's order.
NETWORKS = ("transformer", "autoregressive")
# The edits that are measured.
EDITS = {
    "inpaint_center": "inpainting, centre 50% × 50%",
    "outpaint_right": "outpainting, right 50%",
    "outpaint_left": "outpainting, left 50%",
    "outpaint_top": "outpainting, top 50%",
    "outpaint_bottom": "outpainting, bottom 50%",
}
# Extractors in a sentence; others are called by their name.
EXTRACTORS = {
    "classifier": "this data's own classifier",
    "random": "an untrained classifier",
    "inception": "Inception",
    "vgg": "VGG",
}


def find_extractor(names: Iterable[str], path: Path) -> str:
    """The feature extractor that FID was measured with, from the name `fid_<extractor>`.

    Raises:
        UserError: no such name, so that FID and IS could not be labelled.
    """
    for name in names:
        if match := re.fullmatch(r"fid_([^_]+)", name):
            return match[1]
    raise UserError(str(path), "no fid_<extractor>", DAMAGED)


def find_second_extractor(names: Iterable[str], extractor: str, path: Path) -> str:
    """The other extractor that precision was measured with (Table 5).

    Raises:
        UserError: there is none.
    """
    for name in names:
        match = re.fullmatch(r"precision_([^_]+)", name)
        if match and match[1] != extractor:
            return match[1]
    raise UserError(str(path), "no second precision_<extractor>", DAMAGED)


def measure_note(params: Params, extractor: str) -> str:
    """What every FID was measured against, how many splits the IS has, and whether the tokenizer
    was trained on the network that measures."""
    evaluation = params.evaluation
    published = evaluation.reference_statistics
    reference = f"the statistics in {Path(published).name}" if published else "the training images"
    splits = "1 split" if evaluation.is_splits == 1 else f"{evaluation.is_splits} splits"
    note = f"FID ({extractor}) is against {reference}; IS ({extractor}) over {splits}."
    if extractor == params.tokenizer.perceptual and not params.tokenizer.pretrained:
        note += (
            f" The tokenizer's perceptual loss is of the same network, so that FID ({extractor}) "
            "flatters all that it decodes, beside real images."
        )
    return note


def neighbour_metrics(columns: Iterable[str], extractor: str) -> list[str]:
    """The columns of precision, recall and the like, and of a user's own metrics, in the order of
    `FEATURE_METRICS`."""
    names = (f"{kind}_{extractor}" for kind in FEATURE_METRICS if kind not in DISTRIBUTION)
    return [name for name in names if name in columns]


def metric_column(kind: str, extractor: str) -> str:
    """The column of a kind of metric: "fid" is `fid_classifier`, "nll" is `nll`."""
    return f"{kind}_{extractor}" if kind in FEATURE_METRICS else kind


def plain(schedule: str) -> str:
    """A mask schedule's name in words."""
    return schedule.replace("_", " ")


def metric_label(name: str, extractor: str) -> str:
    """What readers see. FID and IS always carry their extractor: "FID (classifier)"."""
    kind = name.removesuffix(f"_{extractor}")
    if kind in FEATURE_METRICS and kind != name:
        return f"{FEATURE_METRICS[kind]} ({extractor})"
    return OTHER_METRICS.get(name, name.replace("_", " "))
