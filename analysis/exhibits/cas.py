"""Classification Accuracy Scores: with RandAugment (Table 1) and without (Table 5)."""

import pandas as pd

from analysis.exhibits import intervals
from analysis.exhibits.formatting import count, extent, printed
from analysis.exhibits.inputs.metrics import MODELS
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import over_seeds


def scores(results: Results, augmentation: str) -> pd.DataFrame:
    """Means and intervals over seeds of top1 and top5, by the images that the classifiers saw.

    Returns:
        Columns model, cas_top1_mean, cas_top1_std, cas_top1_ci95, the same of top5, cas_seeds and
        cas_training_images.
    """
    rows = results.cas[results.cas["augmentation"] == augmentation]
    means = over_seeds(rows, ["images"], ["top1", "top5", "training_images"])
    unused = ["images", "training_images_std", "training_images_ci95"]
    table = means.drop(columns=unused).add_prefix("cas_")
    table = table.rename(columns={"cas_training_images_mean": "cas_training_images"})
    table.insert(0, "model", means["images"].map(MODELS))
    return table


def readable(cells: pd.DataFrame, trained: str, among: pd.Series) -> dict[str, list[str]]:
    """The columns of a table that shows them, beside the paper's.

    Args:
        trained: how the classifiers were, "with RandAugment" or without.
        among: the rows of which the best is bold.
    """
    seeds = cells["cas_seeds"].dropna()
    over = f"{extent(seeds)} trainings" if seeds.max() > 1 else ""
    return {
        intervals.heading(f"CAS top-1 {trained}", over): intervals.column(cells, "cas_top1", among),
        f"CAS top-1 {trained} (paper)": printed(cells["paper_cas_top1"], 4),
        intervals.heading(f"CAS top-5 {trained}", over): intervals.column(cells, "cas_top5", among),
        f"CAS top-5 {trained} (paper)": printed(cells["paper_cas_top5"], 4),
    }


def note(table: pd.DataFrame, trained: str) -> str:
    """What the scores stand on; `trained` says how the classifiers were trained."""
    known = table.dropna(subset="cas_seeds")
    pairs = zip(known["model"], known["cas_training_images"], strict=True)
    sets = ", ".join(f"{model} {count(images)}" for model, images in pairs)
    return (
        f"CAS: accuracy on real validation images of a classifier trained {trained}, on images of "
        f"one kind only ({sets}); one training for each seed, of the network that made the images "
        "and of the classifier, or of the classifier alone where they are real."
    )
