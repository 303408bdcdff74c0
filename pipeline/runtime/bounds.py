"""What the numbers of result files can be at all, by the metric's name: one place for every file.

A column is that of the longest name here that it begins with: `fid_classifier` is a `fid`,
`fid_infinity_classifier` a `fid_infinity`; `…_std` is a spread.
"""

import math
from typing import Any, NamedTuple

from pipeline.runtime.limits import LARGEST, SMALLEST

ROUNDING = 1e-6  # of a share or score at its end, relative


class Bounds(NamedTuple):
    """The least and the largest value of a number."""

    low: float = -LARGEST
    high: float = LARGEST
    whole: bool = False
    always: bool = False  # there in every row, where others may not have been measurable

    def hold(self, value: Any) -> bool:
        """Whether a value, of any type, is a number within them."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.low - ROUNDING * abs(self.low), self.high + ROUNDING * abs(self.high)
        return low <= value <= high and not (self.whole and value != math.floor(value))


SHARE = Bounds(0, 1)
COUNT = Bounds(1, whole=True, always=True)
TIME = Bounds(SMALLEST, always=True)  # seconds
SPREAD = Bounds(0)

BOUNDS = {
    # Of the features of images: distances, scores and shares.
    "fid": Bounds(0),
    "rfid": Bounds(0),
    "fid_infinity": Bounds(),  # extrapolated, and so is KID's estimate unbiased: both may be < 0
    "kid": Bounds(),
    "is": Bounds(1),
    "precision": SHARE,
    "recall": SHARE,
    "density": Bounds(0),
    "coverage": SHARE,
    "nearest_distance": Bounds(0),
    "distance": Bounds(0),
    # Of classifiers, networks and pixels.
    "class_accuracy": Bounds(0, 1, always=True),
    "top1": Bounds(0, 1, always=True),
    "top5": Bounds(0, 1, always=True),
    "nll": Bounds(0),
    "psnr": Bounds(),  # dB
    "perceptual": Bounds(0),
    "code_usage": SHARE,
    # What was measured.
    "seed": Bounds(0, whole=True, always=True),
    "subset": Bounds(0, whole=True, always=True),
    "draw": Bounds(-1, whole=True, always=True),  # -1: the median of the draws
    "label_smoothing": SHARE,
    "choice_temperature": Bounds(0),
    "acceptance": SHARE,
    "mask_ratio": SHARE,
    "hidden": SHARE,
    "r": SHARE,
    "gamma": Bounds(0, 1, always=True),
    "images": COUNT,
    "train_images": COUNT,
    "val_images": COUNT,
    "training_images": COUNT,
    "classes": COUNT,
    "largest_class": Bounds(0, 1, always=True),
    "samples": COUNT,
    "candidates": COUNT,
    "is_splits": COUNT,
    "iterations": COUNT,
    "steps": COUNT,
    "tokens": COUNT,
    "batch_size": COUNT,
    "repeats": COUNT,
    "parameters": COUNT,
    "threads": COUNT,
    "seconds_per_image": TIME,
    "low": TIME,
    "high": TIME,
}


def known_bounds(name: str) -> Bounds | None:
    """The bounds of a column or metric; None of one that is not known."""
    if name.endswith("_std"):
        return SPREAD
    known = [kind for kind in BOUNDS if name == kind or name.startswith(f"{kind}_")]
    return BOUNDS[max(known, key=len)] if known else None


def bounds_of(name: str) -> Bounds:
    """The same; of one that is not known those of any number."""
    return known_bounds(name) or Bounds()
