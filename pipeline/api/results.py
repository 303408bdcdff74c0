"""What a project's results say of its model."""

import csv
import math
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS, TOKENIZER, TRANSFORMER
from pipeline.runtime.files import as_written, read_json
from pipeline.runtime.provenance import has_inputs

# The first words of the columns of the rows that are shown (docs/metrics.md).
SHOWN = ("class_accuracy", "fid", "is", "precision", "recall", "nll")
NEAR = 0.1  # of the way from chance to real images
Z = 1.959964  # of a 95% interval


def read_results(root: Path, params: Params, seed: int) -> tuple[dict[str, float], bool]:
    """The metrics of a main replicate's samples, and whether it is barely trained. Nothing and
    False if the project has no results of the models that it has now."""
    path = root / RESULTS / "evaluation/rows.csv"
    if not path.exists() or not has_inputs("evaluate", (TOKENIZER, TRANSFORMER), root):
        return {}, False
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["images"] == "transformer"]
    smoothing = as_written(params.training.label_smoothing)
    own = [r for r in rows if int(r["seed"]) == seed and float(r["label_smoothing"]) == smoothing]
    if len(own) != 1:
        return {}, False
    del own[0]["images"]
    values = {name: float(value) for name, value in own[0].items() if value}
    shown = {
        name: value
        for name, value in values.items()
        if name.startswith(SHOWN) and not name.endswith(("_std", "_splits")) and value == value
    }
    data = read_json(root / RESULTS / "prepare/metrics.json", "classes", "largest_class")
    uniform = params.evaluation.labels == "uniform"
    chance = 1 / data["classes"] if uniform else data["largest_class"]
    real = read_json(root / RESULTS / "evaluation/metrics.json", "real")["real"]["class_accuracy"]
    accuracy = values.get("class_accuracy")
    if accuracy is None or data["classes"] < 2:  # of a single class there is nothing to recognise
        return shown, False
    return shown, is_barely_trained(accuracy, int(values["samples"]), chance, real)


def is_barely_trained(accuracy: float, samples: int, chance: float, real: float) -> bool:
    """Whether the 95% interval (Wilson) of the share of samples whose class is recognised reaches
    into the lowest tenth of the way from chance to real images. The report uses the same rule for
    all replicates together (`near_chance` in analysis/exhibits/claims.py)."""
    variance = accuracy * (1 - accuracy) / samples + (Z / (2 * samples)) ** 2
    low = (accuracy + Z**2 / (2 * samples) - Z * math.sqrt(variance)) / (1 + Z**2 / samples)
    return low < chance + NEAR * max(real - chance, 0.0)
