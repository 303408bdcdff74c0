"""Claims of single experiments with the main model: rejection, editing, reconstruction."""

import pandas as pd

from analysis.exhibits.comparisons.claim import BETTER, Claim, Part, Setup, versus
from analysis.exhibits.comparisons.inference import one_sample, paired
from analysis.exhibits.comparisons.seeds import by_seed, pairs
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import metric_label
from analysis.exhibits.inputs.results import Results

MEDIAN = -1  # `draw` of the pixel-wise median over draws
TASKS = {"inpaint_center": "inpainting", "outpaint_right": "outpainting"}  # the paper's two
SELECTS = "by construction, since the same classifier selects"


def claims(results: Results, setup: Setup) -> list[Claim]:
    """Rejection sampling, in- and outpainting, and images from a part of their tokens."""
    return [*_rejection(results), *_editing(results), _knee(results.reconstruction)]


def smallest_share(rows: pd.DataFrame, fid: str) -> float | None:
    """The smallest acceptance below 1 of which rejection and random selection have a FID; None
    where there is none."""
    known = rows[(rows["acceptance"] < 1) & rows[fid].notna()]
    both = known.groupby("acceptance")["selection"].nunique()
    shares = both[both == 2].index
    return float(min(shares)) if len(shares) else None


def _rejection(results: Results) -> list[Claim]:
    """MaskGIT's samples that the classifier rates highest, against as many drawn at random."""
    rows = results.rejection[results.rejection["network"] == "transformer"]
    share = smallest_share(rows, results.metric("fid"))
    rows = rows[rows["acceptance"] == share]
    kept, drawn = (rows[rows["selection"] == name] for name in ("rejection", "random"))
    # What happens to a metric, as a word and as a sign, and where the paper has it.
    expected = {
        "is": ("improves", 1, "B, Table 4"),
        "fid": ("improves", -1, "B, Table 4"),
        "recall": ("lowers", -1, ""),
    }
    found = []
    for kind, (said, sign, source) in expected.items():
        metric = results.metric(kind)
        label = metric_label(metric, results.extractor)
        sides = pairs(by_seed(kept, metric), by_seed(drawn, metric))
        relation = "**{}** has a lower recall than {}" if kind == "recall" else BETTER
        parts = []
        if len(sides[0]):
            effect, means = paired(*sides), (sides[0].mean(), sides[1].mean())
            part = versus("rejection", "random selection", effect, means, relation=relation)
            parts.append(part)
        found.append(
            Claim(
                said=f"rejection sampling {said} {label}",
                source=source,
                exhibit="table4-table",
                shown_in="Table 4",
                measure=label + (f", MaskGIT at {100 * share:g}%" if share else ""),
                sign=sign,
                parts=parts,
                caveat=SELECTS if kind == "is" and results.extractor == "classifier" else "",
            )
        )
    return found


def _editing(results: Results) -> list[Claim]:
    """Composites against those that copy the nearest known pixel, which no seed changes."""
    fid = results.metric("fid")
    found = []
    for task, name in TASKS.items():
        rows = results.editing[results.editing["task"] == task]
        ours = by_seed(rows[rows["method"] == "maskgit"], fid)
        floor = rows.loc[rows["method"] == "nearest", fid].dropna()
        parts = []
        if len(ours) and len(floor):
            effect = one_sample(ours.to_numpy(), floor.iloc[0])
            means = (ours.mean(), floor.iloc[0])
            parts.append(versus("MaskGIT", "the floor that copies pixels", effect, means))
        found.append(
            Claim(
                said=f"{name} beats copying the nearest pixel",
                source="",
                exhibit="table2-table",
                shown_in="Table 2",
                measure=f"{name}, {metric_label(fid, results.extractor)}",
                sign=-1,
                parts=parts,
            )
        )
    return found


def _knee(rows: pd.DataFrame) -> Claim:
    """The fall of PSNR for each 10% of the tokens, in the step beyond the knee and in the step
    before it: over the whole curve before, any bend would do."""
    samples = rows[rows["draw"] != MEDIAN]
    psnr = samples.groupby(["seed", "mask_ratio"])["psnr"].mean().unstack().dropna(axis=1)
    hidden = samples.groupby("mask_ratio")["hidden"].mean()
    ratios, knee = sorted(psnr.columns), paper.KNEE
    parts, steps = [], []
    if knee in ratios[1:-1]:
        place = ratios.index(knee)
        before, beyond = ratios[place - 1 : place + 1], ratios[place : place + 2]
        # Of few tokens not quite the ratios are hidden, or as many at two of them.
        steps = [(psnr[a] - psnr[b], hidden[a], hidden[b]) for a, b in (beyond, before)]
    if steps and all(a < b for _, a, b in steps):
        falls = [fall / (b - a) / 10 for fall, a, b in steps]
        names = [f"from {a:.0%} to {b:.0%}" for _, a, b in steps]
        relation = "**PSNR falls {} steeply {}** of the tokens hidden than {}"
        parts.append(
            Part(
                effect=paired(falls[0].to_numpy(), falls[1].to_numpy()),
                values=(falls[0].mean(), falls[1].mean()),
                won=relation.format("more", *names),
                lost=relation.format("less", *names),
                tied=f"the falls of PSNR {names[0]} of the tokens hidden and {names[1]} do not "
                "differ by more than training seeds explain",
            )
        )
    return Claim(
        said=f"reconstructions worsen sharply beyond {knee:.0%} of the tokens hidden",
        source="A, Figure 10",
        exhibit="figure10",
        shown_in="Figure 10",
        measure="dB lost for each 10% of the tokens",
        sign=1,
        parts=parts,
    )
