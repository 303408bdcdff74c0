"""Classification Accuracy Scores: with RandAugment (Table 1) and without (Table 5)."""

import pandas as pd

from analysis.exhibits.findings import Measured
from analysis.exhibits.formatting import count, printed, spreads
from analysis.exhibits.inputs.metrics import MODELS
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import over_seeds


def scores(results: Results, augmentation: str) -> pd.DataFrame:
    """Mean and std over seeds of top1 and top5, by the images that the classifiers saw.

    Returns:
        Columns model, cas_top1_mean, cas_top1_std, cas_top5_mean, cas_top5_std, cas_seeds and
        cas_training_images.
    """
    rows = results.cas[results.cas["augmentation"] == augmentation]
    means = over_seeds(rows, ["images"], ["top1", "top5", "training_images"])
    table = means.drop(columns=["images", "training_images_std"]).add_prefix("cas_")
    table = table.rename(columns={"cas_training_images_mean": "cas_training_images"})
    table.insert(0, "model", means["images"].map(MODELS))
    return table


def readable(cells: pd.DataFrame) -> dict[str, list[str]]:
    """The columns of a table that shows them, beside the paper's."""
    return {
        "CAS top-1": spreads(cells, "cas_top1"),
        "CAS top-1 (paper)": printed(cells["paper_cas_top1"], 4),
        "CAS top-5": spreads(cells, "cas_top5"),
        "CAS top-5 (paper)": printed(cells["paper_cas_top5"], 4),
    }


def note(table: pd.DataFrame, trained: str) -> str:
    """What the scores stand on; `trained` says how the classifiers were trained."""
    known = table.dropna(subset="cas_seeds")
    pairs = zip(known["model"], known["cas_training_images"], strict=True)
    sets = ", ".join(f"{model} {count(images)}" for model, images in pairs)
    seeds = int(known["cas_seeds"].max())
    over = f"mean ± sample standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return (
        f"CAS: accuracy on real validation images of a classifier trained {trained}, on images of "
        f"one kind only ({sets}); {over}."
    )


def measured(cells: pd.DataFrame, model: str) -> Measured:
    """The top-1 score of a model; `cells` are indexed by model."""
    row = cells.loc[model]
    return Measured(model, row["cas_top1_mean"], row["cas_top1_std"])
