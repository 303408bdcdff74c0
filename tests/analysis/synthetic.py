"""A folder of synthetic result files, as the stages leave them, with known right answers, and the
analysis of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits import paper
from analysis.exhibits.base import Table
from analysis.exhibits.results import read_results
from analysis.report.build import build, contents
from pipeline.config.params import Params

# FID at the best T (8): the paper's ranking, except that linear and cosine change places.
BEST_FID = {
    "exponential": 5.0,
    "cubic": 3.0,
    "square": 2.0,
    "cosine": 4.0,
    "linear": 1.0,
    "square_root": 6.0,
    "logarithmic": 7.0,
}
MODELS = ("transformer", "autoregressive", "reconstruction", "real")


SEEDS = (0, 1, 2)


def jitter(seed: int, place: int = 0) -> float:
    """What a seed adds, another for each place of what is compared; 0, 0.02, 0.04 at place 0."""
    return seed * (place + 2) % 7 / 100


def sweep_rows(schedules=BEST_FID, seeds=SEEDS, extractor="classifier") -> pd.DataFrame:
    """FID is lowest at T = 8 and IS highest at T = 16; seeds differ by `jitter` in FID."""
    return pd.DataFrame(
        {
            "schedule": name,
            "iterations": iterations,
            "seed": seed,
            "samples": 100,
            "nll": paper.TABLE_3[name].nll - 1 if name in paper.TABLE_3 else 0.5,
            f"fid_{extractor}": schedules[name] + abs(iterations - 8) + jitter(seed, place),
            f"is_{extractor}": 20.0 - schedules[name] - abs(iterations - 16) / 10,
            f"kid_{extractor}": 0.002,
            f"precision_{extractor}": 0.7,
            f"recall_{extractor}": 0.4,
            "class_accuracy": 0.9,
        }
        for place, name in enumerate(schedules)
        for iterations in (4, 8, 16)
        for seed in seeds
    )


def curve(power: float) -> pd.DataFrame:
    """A concave schedule, the more so the larger the power, as the stage `schedules` leaves it."""
    r = np.linspace(0, 1, 13)
    return pd.DataFrame({"r": r, "gamma_49": 1 - r**power / 2, "gamma_256": 1 - r**power})


def crossing_rows(extractor="classifier") -> pd.DataFrame:
    """Training with cubic or cosine lowers FID by 1, decoding with them by 2."""
    names = ("cubic", "cosine", "linear", "square_root")
    return pd.DataFrame(
        {
            "schedule": name,
            "decoding_schedule": other,
            "iterations": 12,
            "seed": seed,
            "samples": 100,
            f"fid_{extractor}": 5.0 - (i < 2) - 2 * (j < 2) + jitter(seed, i) + jitter(seed, 2 * j),
            f"is_{extractor}": 8.0 + (i < 2) + jitter(seed, i),
            "class_accuracy": 0.9,
        }
        for i, name in enumerate(names)
        for j, other in enumerate(names)
        for seed in SEEDS
    )


def evaluation_rows(extractor="classifier", smoothings=(0.1, 0.0)) -> pd.DataFrame:
    """MaskGIT is better than VQGAN∗ by FID, far beyond the noise, and worse by recall; without
    label smoothing it is worse by FID as well."""
    rows = []
    for place, name in enumerate(MODELS):
        trained = place < 2
        for smoothing in smoothings if trained else [None]:
            for seed in SEEDS if trained else [None]:
                noise = jitter(seed, place) if trained else 0.0
                fid = [3.5, 4.5, 0.5, 0.25][place] + 2 * (place == 0 and smoothing == 0)
                rows.append(
                    {"images": name, "label_smoothing": smoothing, "seed": seed}
                    | _one_set(extractor, place, fid, noise)
                )
    table = pd.DataFrame(rows)
    main = (table["images"] == "transformer") & (table["label_smoothing"] == 0.1)
    table.loc[main, f"nearest_distance_{extractor}"] = 0.75
    table.loc[main, f"nearest_distance_{extractor}_real"] = 1.0
    return table


def _one_set(extractor: str, place: int, fid: float, noise: float) -> dict[str, float]:
    row = {
        f"fid_{extractor}": fid + noise,
        f"fid_{extractor}_std": [0.3, 0.4, 0.02, 0.01][place],
        f"fid_infinity_{extractor}": fid + noise - 0.125,
        f"is_{extractor}": [9.0, 8.0, 9.5, 9.75][place] + noise,
        f"is_{extractor}_std": 0.125,
        f"kid_{extractor}": 0.002,
        f"kid_{extractor}_std": 0.0005,
        "class_accuracy": [0.95, 0.9, 0.97, 0.985][place],
        "class_accuracy_std": 0.01,
        "samples": 1000,
        "is_splits": 1,
    }
    for kind in ("precision", "recall", "density", "coverage"):
        row[f"{kind}_{extractor}"] = 0.5 + place / 8 + noise / 10
        row[f"{kind}_random"] = 0.75 - place / 8 + noise / 10
        row[f"{kind}_{extractor}_std"] = row[f"{kind}_random_std"] = 0.01
    if place < 2:
        row |= {"nll": [1.5, 2.5][place], "parameters": 1_250_000, "steps": [8, 49][place]}
    return row


def evaluation_metrics(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Means over the main trainings, by set, as `evaluate` leaves them beside the rows."""
    main = rows[rows["label_smoothing"].isna() | (rows["label_smoothing"] == 0.1)]
    values = main.drop(columns=["label_smoothing", "seed"]).groupby("images").mean()
    kept = [name for name in values if not name.endswith("_std")]
    return {name: values.loc[name, kept].dropna().to_dict() for name in MODELS}


def real_rows(extractor="classifier") -> pd.DataFrame:
    """Real images have FID 0.5 at 100 and 0.125 at 1000; two disjoint sets, 0.1 apart."""
    return pd.DataFrame(
        {
            "samples": samples,
            "subset": subset,
            f"fid_{extractor}": fid + 0.1 * subset - 0.05,
            f"is_{extractor}": 9.75,
            "class_accuracy": 0.985,
        }
        for samples, fid in {50: 0.75, 100: 0.5, 1000: 0.125}.items()
        for subset in (0, 1)
    )


def cas_rows() -> pd.DataFrame:
    """With RandAugment MaskGIT's top-1 is 0.5, 0.6, 0.7; without, 0.1 less."""
    base = {"real": 0.8, "transformer": 0.6, "autoregressive": 0.3}
    return pd.DataFrame(
        {
            "images": images,
            "augmentation": augmentation,
            "seed": seed,
            "training_images": 4000 if images == "real" else 2000,
            "top1": base[images] + (seed - 1) / 10 - (augmentation == "none") / 10,
            "top5": 0.95,
        }
        for images in base
        for augmentation in ("none", "randaugment")
        for seed in (0, 1, 2)
    )


def temperature_rows(extractor="classifier") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "choice_temperature": temperature,
            "seed": seed,
            "samples": 100,
            f"fid_{extractor}": 1 + (temperature - 2) ** 2 / 10 + jitter(seed),
            f"is_{extractor}": 9 - temperature / 10,
            "class_accuracy": 0.9,
        }
        for temperature in (0.0, 2.0, 4.5, 12.0)
        for seed in SEEDS
    )


def editing_rows(extractor="classifier") -> pd.DataFrame:
    """MaskGIT beats the floor in every task but outpainting to the top; the images themselves are
    the best."""
    tasks = ("inpaint_center", "outpaint_right", "outpaint_left", "outpaint_top", "outpaint_bottom")
    fid = {"nearest": 3.0, "original": 0.5}
    return pd.DataFrame(
        {
            "task": task,
            "method": method,
            "seed": seed,
            "images": 50,
            f"fid_{extractor}": fid.get(method, 2 + 3 * (task[9:] == "top") + jitter(seed or 0)),
            f"is_{extractor}": 8.0,
            "class_accuracy": 0.8,
            "psnr_hole": np.nan if method == "original" else 12.0,
            "perceptual_hole": np.nan if method == "original" else 0.25,
        }
        for task in tasks
        for method, seed in [
            ("nearest", None),
            ("original", None),
            *(("maskgit", s) for s in SEEDS),
        ]
    )


def rejection_rows(extractor="classifier") -> pd.DataFrame:
    """Rejection lowers FID at one half; at 0.05 there are too few samples for a FID."""
    rows = []
    for network in ("transformer", "autoregressive"):
        for selection in ("rejection", "random"):
            for acceptance in (1.0, 0.5, 0.05):
                for seed in SEEDS:
                    kept = selection == "rejection" and acceptance < 1
                    few = acceptance == 0.05
                    noise = jitter(seed, kept)
                    rows.append(
                        {
                            "network": network,
                            "seed": seed,
                            "selection": selection,
                            "acceptance": acceptance,
                            "candidates": 2000,
                            "samples": round(2000 * acceptance),
                            f"fid_{extractor}": np.nan if few else (2.0 if kept else 3.0) + noise,
                            f"is_{extractor}": (9.5 if kept else 9.0) + noise,
                            "class_accuracy": 1.0 if kept else 0.9,
                            f"recall_{extractor}": (0.3 if kept else 0.5) + noise / 10,
                        }
                        | {f"{kind}_{extractor}": 0.5 for kind in ("precision", "density")}
                        | {f"coverage_{extractor}": 0.5}
                    )
    return pd.DataFrame(rows)


def reconstruction_rows() -> pd.DataFrame:
    """PSNR falls by 2 dB to one half masked, by 5 more to 0.9, by 2.5 from there to 0.95."""
    psnr = {0.0: 20.0, 0.5: 18.0, 0.9: 13.0, 0.95: 10.5}
    return pd.DataFrame(
        {
            "seed": seed,
            "mask_ratio": ratio,
            "draw": draw,
            "images": 8,
            "hidden": ratio,
            "psnr": value
            + (2 * ratio if draw < 0 else (draw - 0.5 + jitter(seed, place)) * (ratio > 0)),
            "psnr_std": 3.0 + max(draw, 0),
            "perceptual": ratio / 2 if draw < 0 else ratio,
            "perceptual_std": 0.1,
        }
        for seed in SEEDS
        for place, (ratio, value) in enumerate(psnr.items())
        for draw in (0, 1, -1)
    )


def speed_rows() -> pd.DataFrame:
    """Uncached decoding takes tokens/4 times as long as MaskGIT, cached twice as long."""
    return pd.DataFrame(
        {
            "method": method,
            "tokens": tokens,
            "batch_size": batch,
            "iterations": 8 if method == "maskgit" else tokens,
            "seconds_per_image": seconds / batch,
            "low": 0.9 * seconds / batch,
            "high": 1.2 * seconds / batch,
            "repeats": 8,
            "parameters": 1_000_000,
            "threads": 2,
            "device": "cpu",
        }
        for tokens in (16, 64, 256)
        for batch in (1, 32)
        for method, seconds in (
            ("maskgit", tokens / 1000),
            ("ar_cached", 2 * tokens / 1000),
            ("ar_uncached", tokens / 4 * tokens / 1000),
        )
    )


def pictures() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)

    def images(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    names = np.array(["zero", "one", "two <&>"])
    return {
        "evaluation/class_grid.npz": {
            "class_names": names,
            "transformer": images(3, 4, 8, 8, 1),
            "autoregressive": images(3, 4, 8, 8, 1),
            "real": images(3, 2, 8, 8, 1),
        },
        "evaluation/decoding.npz": {
            "images": images(5, 2, 8, 8, 3),
            "masked": rng.random((5, 2, 3, 3)) < 0.5,
        },
        "evaluation/neighbours.npz": {
            "samples": images(4, 8, 8, 1),
            "nearest": images(4, 5, 8, 8, 1),
            "distance": np.sort(rng.random((4, 5)), axis=1),
        },
        "editing/pictures.npz": {
            "inpainting": images(6, 3, 8, 8, 1),
            "class_edit": images(2, 5, 8, 8, 1),
            "class_edit_labels": names,
            "outpainting": images(3, 4, 8, 8, 1),
            "panorama": images(2, 8, 24, 1),
        },
        "reconstruction/pictures.npz": {
            "originals": images(4, 8, 8, 1),
            "inputs": images(3, 4, 8, 8, 1),
            "samples": images(3, 4, 8, 8, 1),
            "medians": images(3, 4, 8, 8, 1),
            "hidden": np.array([0.0, 0.5, 0.9]),
        },
    }


def write_results(
    folder: Path, rows: pd.DataFrame | None = None, extractor: str = "classifier"
) -> Path:
    """Write every result file, and a curve of each of the paper's schedules beside the folder;
    `rows` are the sweep's."""
    tables = {
        "sweep/rows.csv": sweep_rows(extractor=extractor) if rows is None else rows,
        "sweep/crossing.csv": crossing_rows(extractor),
        "evaluation/rows.csv": evaluation_rows(extractor),
        "evaluation/real.csv": real_rows(extractor),
        "cas/rows.csv": cas_rows(),
        "temperature/rows.csv": temperature_rows(extractor),
        "editing/rows.csv": editing_rows(extractor),
        "rejection/rows.csv": rejection_rows(extractor),
        "reconstruction/rows.csv": reconstruction_rows(),
        "speed_timings.csv": speed_rows(),
    }
    metrics = {
        "evaluation/metrics.json": evaluation_metrics(tables["evaluation/rows.csv"]),
        "prepare/metrics.json": {
            **{"train_images": 4000, "val_images": 1000, "classes": 3},
            "largest_class": 1 / 3,
        },
        "tokenizer/metrics.json": {"psnr": 18.75, "code_usage": 1.0},
    }
    arrays = pictures()
    for name in [*tables, *metrics, *arrays]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    for name, values in metrics.items():
        (folder / name).write_text(json.dumps(values))
    for name, each in arrays.items():
        np.savez(folder / name, **each)
    curves_of(folder).mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(BEST_FID):
        curve(4 - place / 2).to_csv(curves_of(folder) / f"{name}.csv", index=False)
    return folder


def curves_of(results: Path) -> Path:
    """The folder of curves that `write_results` leaves, where it lies in a project."""
    return results.parent / "data/schedules"


def analyse(results: Path, output: Path, params: Params) -> list[Path]:
    """Everything that the analysis makes of a folder of `write_results`."""
    return build(results, output, params)


def write_tables(results: Path, output: Path, params: Params) -> Path:
    """The tables that the analysis makes of a folder of `write_results`, and no figures."""
    for section in contents(read_results(results), params)[1]:
        for exhibit in section.exhibits:
            if isinstance(exhibit, Table):
                exhibit.write(output)
    return output


def write_source(folder: Path, stage: str, **changes) -> None:
    """What a stage records of its run."""
    source = {
        "run_id": f"{stage}-run",
        "key": "0123456789abcdef",
        "commit": "abcdef0123456789",
        "dirty": False,
        "finished": "2025-01-02T03:04:05Z",
        "seconds": 90.0,
        "host": "machine",
        "cpus": 2,
        "memory_gib": 16.0,
        "gpus": [],
        "params": {},
        "workers": [],
        "versions": {},
    }
    (folder / "sources").mkdir(exist_ok=True)
    (folder / f"sources/{stage}.json").write_text(json.dumps(source | changes))
