"""Synthetic result files in the formats of the stages, for which the right verdicts are known."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits import paper

# FID at the best T (8). The ranking is the paper's, except that linear and cosine are swapped.
BEST_FID = dict(zip(paper.TABLE_3, (5.0, 3.0, 2.0, 4.0, 1.0, 6.0, 7.0), strict=True))
MODELS = ("transformer", "autoregressive", "reconstruction", "real")
SEEDS = (0, 1, 2)


def combined(**axes) -> pd.DataFrame:
    """Return one row per combination of values."""
    return pd.DataFrame(product(*axes.values()), columns=list(axes))


def jitter(seed, place=0):
    """Return what a seed adds to a metric: 0, 0.02 or 0.04; another `place` gives other values."""
    return seed * (place + 2) % 7 / 100


def sweep_rows(schedules=BEST_FID, seeds=SEEDS) -> pd.DataFrame:
    """FID is lowest at T = 8, and IS is highest at T = 16. Seeds differ in FID by `jitter`."""
    rows = combined(schedule=list(schedules), iterations=(4, 8, 16), seed=list(seeds))
    name, steps = rows["schedule"], rows["iterations"]
    nll = {n: paper.TABLE_3[n].nll - 1 if n in paper.TABLE_3 else 0.5 for n in schedules}
    best, place = name.map(schedules), name.map(list(schedules).index)
    return rows.assign(
        **{"samples": 100, "class_accuracy": 0.9, "nll": name.map(nll)},
        fid_classifier=best + abs(steps - 8) + jitter(rows["seed"], place),
        is_classifier=20.0 - best - abs(steps - 16) / 10,
        **{"kid_classifier": 0.002, "precision_classifier": 0.7, "recall_classifier": 0.4},
    )


def design_rows() -> pd.DataFrame:
    """With eight passes, the FID of the Halton sampler is 1, 1.1 and 0.9 lower than cosine's in
    `sweep_rows`; the FID of guidance with a final temperature is 1, 2 and 3 higher."""
    rows = sweep_rows().query("schedule == 'cosine' and iterations == 8")
    halton = {"sampler": "halton", "guidance_scale": 0.0, "softmax_temperature_end": None}
    guided = {"sampler": "confidence", "guidance_scale": 2.0, "softmax_temperature_end": 0.5}
    designs = [(halton, 8, [-1, -1.1, -0.9]), (guided, 4, [1, 2, 3])]
    made = [
        rows.assign(**how, iterations=steps, passes=8, fid_classifier=rows["fid_classifier"] + more)
        for how, steps, more in designs
    ]
    return pd.concat(made).sort_index(axis="columns")


def longer_rows(seeds=SEEDS) -> pd.DataFrame:
    """After 500 and 1,000 training steps, exponential's log FID is 0.1, 0.11, 0.12 (by seed) per
    doubling higher than in `sweep_rows`. Cosine's FID is the same as in `sweep_rows`."""
    own = sweep_rows(seeds=seeds).query("schedule in ('exponential', 'cosine')")
    made = []
    for doublings in (1, 2):
        worse = doublings * (0.1 + 0.01 * own["seed"]) * (own["schedule"] == "exponential")
        fid = own["fid_classifier"] * np.exp(worse)
        made.append(own.assign(steps=250 * 2**doublings, fid_classifier=fid))
    return pd.concat(made).assign(passes=lambda rows: rows["iterations"])


def crossing_rows() -> pd.DataFrame:
    """Cubic and cosine lower FID by 1 as training schedules, and by 2 as decoding schedules."""
    names = ["cubic", "cosine", "linear", "square_root"]
    rows = combined(schedule=names, decoding_schedule=names, seed=SEEDS)
    i, j = (rows[side].map(names.index) for side in ("schedule", "decoding_schedule"))
    noise = jitter(rows["seed"], i) + jitter(rows["seed"], 2 * j)
    return rows.assign(
        **{"iterations": 12, "samples": 100, "class_accuracy": 0.9},
        fid_classifier=5.0 - (i < 2) - 2 * (j < 2) + noise,
        is_classifier=8.0 + (i < 2) + jitter(rows["seed"], i),
    )


def evaluation_rows() -> pd.DataFrame:
    """MaskGIT clearly beats VQGAN∗ in FID, but not in recall, nor without label smoothing."""
    rows = []
    for place, name in enumerate(MODELS):
        for smoothing, seed in product((0.1, 0.0), SEEDS) if place < 2 else [(None, None)]:
            fid = [3.5, 4.5, 0.5, 0.25][place] + 2 * (place == 0 and smoothing == 0)
            row = {"images": name, "label_smoothing": smoothing, "seed": seed}
            rows.append(row | _one_set(place, fid, jitter(seed or 0, place)))
    table = pd.DataFrame(rows)
    main = (table["images"] == "transformer") & (table["label_smoothing"] == 0.1)
    table.loc[main, "nearest_distance_classifier"] = 0.75
    table.loc[main, "nearest_distance_classifier_real"] = 1.0
    return table


def _one_set(place: int, fid: float, noise: float) -> dict[str, float]:
    row = {
        "fid_classifier": fid + noise,
        "fid_classifier_std": [0.3, 0.4, 0.02, 0.01][place],
        "fid_infinity_classifier": fid + noise - 0.125,
        "is_classifier": [9.0, 8.0, 9.5, 9.75][place] + noise,
        "is_classifier_std": 0.125,
        "kid_classifier": 0.002,
        "kid_classifier_std": 0.0005,
        "class_accuracy": [0.95, 0.9, 0.97, 0.985][place],
        "class_accuracy_std": 0.01,
        "samples": 1000,
        "is_splits": 1,
    }
    for kind in ("precision", "recall", "density", "coverage"):
        row[f"{kind}_classifier"] = 0.5 + place / 8 + noise / 10
        row[f"{kind}_random"] = 0.75 - place / 8 + noise / 10
        row[f"{kind}_classifier_std"] = row[f"{kind}_random_std"] = 0.01
    if place < 2:
        row |= {"nll": [1.5, 2.5][place], "parameters": 1_250_000, "steps": [8, 49][place]}
    return row


def evaluation_metrics(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the means of each image set over the main replicates, as `evaluate` writes them."""
    main = rows[rows["label_smoothing"].isna() | (rows["label_smoothing"] == 0.1)]
    values = main.drop(columns=["label_smoothing", "seed"]).groupby("images").mean()
    means = [name for name in values if not name.endswith("_std")]
    return {name: values.loc[name, means].dropna().to_dict() for name in MODELS}


def real_rows() -> pd.DataFrame:
    """Real images have a mean FID of 0.5 for 100 and 0.125 for 1,000; two subsets differ by 0.1."""
    rows = combined(samples=(50, 100, 1000), subset=(0, 1))
    fid = rows["samples"].map({50: 0.75, 100: 0.5, 1000: 0.125}) + 0.1 * rows["subset"] - 0.05
    return rows.assign(class_accuracy=0.985, fid_classifier=fid, is_classifier=9.75)


def cas_rows() -> pd.DataFrame:
    """With RandAugment, MaskGIT's top-1 accuracy is 0.5, 0.6 and 0.7; without, it is 0.1 lower."""
    base = {"real": 0.8, "transformer": 0.6, "autoregressive": 0.3}
    rows = combined(images=list(base), augmentation=("none", "randaugment"), seed=SEEDS)
    plain = rows["augmentation"] == "none"
    top1 = rows["images"].map(base) + (rows["seed"] - 1) / 10 - plain / 10
    images = rows["images"].map(lambda name: 4000 if name == "real" else 2000)
    return rows.assign(training_images=images, top1=top1, top5=0.95)


def temperature_rows() -> pd.DataFrame:
    ours = combined(choice_temperature=(0.0, 2.0, 4.5, 12.0), seed=SEEDS)
    value = ours["choice_temperature"]
    ours["setting"] = "choice_temperature " + value.astype(str)
    ours["fid_classifier"] = 1 + (value - 2) ** 2 / 10 + jitter(ours["seed"])
    theirs = combined(setting=("top_k 0", "top_k 16"), seed=SEEDS)
    theirs["fid_classifier"] = (theirs["setting"] == "top_k 0") + 2 + jitter(theirs["seed"])
    rows = {"transformer": ours, "autoregressive": theirs}
    both = pd.concat([each.assign(images=name) for name, each in rows.items()], ignore_index=True)
    return both.assign(samples=100, class_accuracy=0.9, is_classifier=9.0)


def oracle_rows() -> pd.DataFrame:
    """With the confidence sampler, T = 4 is best for cosine, 8 for linear and 32 for logarithmic.
    With the random sampler, a larger T is better. Samples of a large T are too probable."""
    schedules, steps = ("cosine", "linear", "logarithmic"), (1, 4, 8, 32)
    groups = (*map(str, range(10)), "all")
    rows = combined(
        tokens=(64,),
        sampler=("confidence", "random"),
        schedule=schedules,
        iterations=steps,
        group=groups,
    )
    t, place = np.log2(rows["iterations"]), rows["schedule"].map(schedules.index)
    off = (t - rows["schedule"].map(dict(zip(schedules, (2, 3, 5), strict=True)))).abs()
    error = np.where(rows["sampler"] == "random", 5 - t + place, off) / 20
    noise = jitter(rows["group"].replace("all", "0").astype(int)) / 100
    rows = rows.assign(choice_temperature=4.5, pair_error=0.05 + error + noise)
    rows = rows.assign(log_likelihood=-2 + t / 5 + noise)
    real = pd.DataFrame({"tokens": 64, "sampler": "exact", "group": groups, "pair_error": 0.05})
    real = real.assign(log_likelihood=-1.5)
    return pd.concat([rows, real]).assign(token_entropy=2.0)


def editing_rows() -> pd.DataFrame:
    """MaskGIT beats the floor (`nearest`) except in `outpaint_top`; `original` is the best."""
    tasks = ("inpaint_center", "outpaint_right", "outpaint_left", "outpaint_top", "outpaint_bottom")
    methods = [("nearest", None), ("original", None), *(("maskgit", seed) for seed in SEEDS)]
    rows = combined(task=tasks, method=methods)
    rows["method"], rows["seed"] = [m for m, _ in rows["method"]], [s for _, s in rows["method"]]
    top, original = rows["task"] == "outpaint_top", rows["method"] == "original"
    fid = 2.0 + 3 * top + jitter(rows["seed"].astype(float))
    fid = fid.fillna(rows["method"].map({"nearest": 3.0, "original": 0.5}))
    psnr, perceptual = (np.where(original, np.nan, value) for value in (12.0, 0.25))
    rows = rows.assign(psnr_hole=psnr, perceptual_hole=perceptual, images=50)
    return rows.assign(class_accuracy=0.8, fid_classifier=fid, is_classifier=8.0)


def rejection_rows() -> pd.DataFrame:
    """Rejection lowers FID at acceptance 0.5; at 0.05, there are too few samples for FID."""
    networks, selections = ("transformer", "autoregressive"), ("rejection", "random")
    rows = combined(network=networks, selection=selections, acceptance=(1.0, 0.5, 0.05), seed=SEEDS)
    kept = ((rows["selection"] == "rejection") & (rows["acceptance"] < 1)).astype(int)
    noise = jitter(rows["seed"], kept)
    return rows.assign(
        candidates=2000,
        samples=(2000 * rows["acceptance"]).round().astype(int),
        class_accuracy=0.9 + kept / 10,
        fid_classifier=(3.0 - kept + noise).where(rows["acceptance"] > 0.05),
        is_classifier=9.0 + kept / 2 + noise,
        recall_classifier=0.5 - kept / 5 + noise / 10,
        **{f"{kind}_classifier": 0.5 for kind in ("precision", "density", "coverage")},
    )


def reconstruction_rows() -> pd.DataFrame:
    """PSNR falls by 2 dB up to mask ratio 0.5, by 5 dB from there to 0.9, then by 2.5 to 0.95."""
    psnr = {0.0: 20.0, 0.5: 18.0, 0.9: 13.0, 0.95: 10.5}
    rows = combined(seed=SEEDS, mask_ratio=list(psnr), draw=(0, 1, -1))
    ratio, draw = rows["mask_ratio"], rows["draw"]
    noise = (draw - 0.5 + jitter(rows["seed"], ratio.map(list(psnr).index))) * (ratio > 0)
    return rows.assign(
        images=8,
        hidden=ratio,
        psnr=ratio.map(psnr) + noise.where(draw >= 0, 2 * ratio),
        psnr_std=3.0 + draw.clip(lower=0),
        perceptual=ratio.where(draw >= 0, ratio / 2),
        perceptual_std=0.1,
    )


def speed_rows() -> pd.DataFrame:
    """VQGAN∗ takes tokens / 4 times as long as MaskGIT; with a cache, it takes twice as long."""
    methods = ("maskgit", "ar_cached", "ar_uncached")
    rows = combined(tokens=(16, 64, 256), batch_size=(1, 32), method=methods)
    tokens, ours = rows["tokens"], rows["method"] == "maskgit"
    times = (tokens / 4).where(rows["method"] == "ar_uncached", 2).where(~ours, 1)
    seconds = times * tokens / 1000 / rows["batch_size"]
    return rows.assign(
        iterations=tokens.where(~ours, 8),
        seconds_per_image=seconds,
        low=0.9 * seconds,
        high=1.2 * seconds,
        **{"repeats": 8, "parameters": 1_000_000, "threads": 2, "device": "cpu"},
    )


def pictures() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)

    def images(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
        sizes = {name: (*shape, 8, 8, 1) for name, shape in shapes.items()}
        return {name: rng.integers(0, 256, size, dtype=np.uint8) for name, size in sizes.items()}

    names, cells = np.array(["zero", "one", "two <&>"]), (3, 4)
    steps, panorama = images(images=(5, 2))["images"], images(panorama=(2,))["panorama"]
    edits = images(inpainting=(6, 3), class_edit=(2, 5), outpainting=cells)
    return {
        "evaluation/class_grid.npz": {"class_names": names}
        | images(transformer=cells, autoregressive=cells, real=(3, 2)),
        "evaluation/decoding.npz": {
            "images": steps.repeat(3, axis=-1),
            "masked": rng.random((5, 2, 3, 3)) < 0.5,
        },
        "evaluation/neighbours.npz": images(samples=(4,), nearest=(4, 5))
        | {"distance": np.sort(rng.random((4, 5)), axis=1)},
        "editing/pictures.npz": edits
        | {"class_edit_labels": names, "panorama": panorama.repeat(3, axis=2)},
        "reconstruction/pictures.npz": {"hidden": np.array([0.0, 0.5, 0.9])}
        | images(originals=(4,), inputs=cells, samples=cells, medians=cells),
    }


def write_results(folder: Path) -> Path:
    """Write all result files to `folder`, and the paper's schedules to `../data/schedules`."""
    tables = {
        "sweep/rows.csv": sweep_rows(),
        "sweep/crossing.csv": crossing_rows(),
        "sweep/designs.csv": design_rows(),
        "evaluation/rows.csv": evaluation_rows(),
        "evaluation/real.csv": real_rows(),
        "oracle/rows.csv": oracle_rows(),
        "cas/rows.csv": cas_rows(),
        "temperature/rows.csv": temperature_rows(),
        "editing/rows.csv": editing_rows(),
        "rejection/rows.csv": rejection_rows(),
        "reconstruction/rows.csv": reconstruction_rows(),
        "speed_timings.csv": speed_rows(),
    }
    data = {"train_images": 4000, "val_images": 1000, "classes": 3, "largest_class": 1 / 3}
    metrics = {
        "evaluation/metrics.json": evaluation_metrics(tables["evaluation/rows.csv"]),
        "prepare/metrics.json": data,
        "tokenizer/metrics.json": {"psnr": 18.75, "code_usage": 1.0},
    }
    arrays = pictures()
    for name in [*tables, *metrics, *arrays, "../data/schedules/any"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    for name, values in metrics.items():
        (folder / name).write_text(json.dumps(values))
    for name, each in arrays.items():
        np.savez(folder / name, **each)
    r = np.linspace(0, 1, 13)
    for place, name in enumerate(BEST_FID):  # more concave curves have a larger power
        curve = pd.DataFrame({"r": r, "gamma_49": 1 - r / 2, "gamma_256": 1 - r ** (4 - place / 2)})
        curve.to_csv(folder / f"../data/schedules/{name}.csv", index=False)
    return folder


def write_source(folder: Path, stage: str, **changes) -> None:
    """Write the record of a stage's run; `changes` replace fields of the record."""
    source = {
        **{"run_id": f"{stage}-run", "key": "0123456789abcdef", "commit": "abcdef0123456789"},
        **{"dirty": False, "finished": "2025-01-02T03:04:05Z", "seconds": 90.0, "host": "machine"},
        **{"cpus": 2, "memory_gib": 16.0, "gpus": [], "params": {}, "versions": {}},
        "workers": [{"device": "cpu, products in float32"}],
    }
    (folder / "sources").mkdir(exist_ok=True)
    (folder / f"sources/{stage}.json").write_text(json.dumps(source | changes))
