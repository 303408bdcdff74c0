"""A folder of result files as the stages leave them, small and with known right answers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits.inputs import paper
from analysis.report.build import build
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
FILES = [
    "sweep/rows.csv",
    "evaluation/metrics.json",
    "evaluation/class_grid.npz",
    "evaluation/decoding.npz",
    "evaluation/neighbours.npz",
    "cas/rows.csv",
    "temperature/rows.csv",
    "editing/rows.csv",
    "editing/pictures.npz",
    "rejection/rows.csv",
    "reconstruction/rows.csv",
    "reconstruction/pictures.npz",
    "speed_timings.csv",
    "prepare/metrics.json",
    "tokenizer/metrics.json",
]


def sweep_rows(schedules=BEST_FID, seeds=(0, 1), extractor="classifier") -> pd.DataFrame:
    """FID is lowest at T = 8 and IS highest at T = 16; seeds differ by 0.2 in FID."""
    return pd.DataFrame(
        {
            "schedule": name,
            "iterations": iterations,
            "seed": seed,
            "samples": 100,
            "nll": paper.TABLE_3[name].nll - 1 if name in paper.TABLE_3 else 0.5,
            f"fid_{extractor}": schedules[name] + abs(iterations - 8) + 0.2 * seed,
            f"is_{extractor}": 20.0 - schedules[name] - abs(iterations - 16) / 10,
            f"kid_{extractor}": 0.002,
            f"precision_{extractor}": 0.7,
            f"recall_{extractor}": 0.4,
            "class_accuracy": 0.9,
        }
        for name in schedules
        for iterations in (4, 8, 16)
        for seed in seeds
    )


def curve(power: float) -> pd.DataFrame:
    """A concave schedule, the more so the larger the power, as the stage `schedules` leaves it."""
    r = np.linspace(0, 1, 13)
    return pd.DataFrame({"r": r, "gamma_49": 1 - r**power / 2, "gamma_256": 1 - r**power})


def evaluation_metrics(extractor="classifier") -> dict[str, dict[str, float]]:
    """MaskGIT is better than VQGAN∗ by FID, far beyond the noise, and worse by recall."""
    metrics = {}
    for place, name in enumerate(MODELS):
        metrics[name] = {
            f"fid_{extractor}": [3.5, 4.5, 0.5, 0.25][place],
            f"fid_{extractor}_std": [0.3, 0.4, 0.0, 0.0][place],
            f"is_{extractor}": [9.0, 8.0, 9.5, 9.75][place],
            f"is_{extractor}_std": 0.125,
            f"kid_{extractor}": 0.002,
            f"kid_{extractor}_std": 0.0005,
            "class_accuracy": [0.95, 0.9, 0.97, 0.985][place],
            "samples": 1000 if place < 2 else 400,
        }
        for kind in ("precision", "recall", "density", "coverage"):
            metrics[name][f"{kind}_{extractor}"] = 0.5 + place / 8
            metrics[name][f"{kind}_random"] = 0.75 - place / 8
    networks = {"transformer": (1.5, 8), "autoregressive": (2.5, 49)}
    for name, (nll, steps) in networks.items():
        metrics[name] |= {"nll": nll, "parameters": 1_250_000, "steps": steps}
    metrics["transformer"] |= {
        f"nearest_distance_{extractor}": 0.75,
        f"nearest_distance_{extractor}_real": 1.0,
    }
    return metrics


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
            f"fid_{extractor}": 1 + (temperature - 2) ** 2 / 10 + 0.2 * seed,
            f"is_{extractor}": 9 - temperature / 10,
            "class_accuracy": 0.9,
        }
        for temperature in (0.0, 2.0, 4.5, 12.0)
        for seed in (0, 1)
    )


def editing_rows(extractor="classifier") -> pd.DataFrame:
    """MaskGIT beats the floor in every task but outpainting to the top."""
    tasks = ("inpaint_center", "outpaint_right", "outpaint_left", "outpaint_top", "outpaint_bottom")
    return pd.DataFrame(
        {
            "task": task,
            "method": "maskgit" if seed is not None else "nearest",
            "seed": seed,
            "images": 50,
            f"fid_{extractor}": 3.0 if seed is None else 2 + 3 * (task[9:] == "top") + 0.2 * seed,
            f"is_{extractor}": 8.0,
            "class_accuracy": 0.8,
        }
        for task in tasks
        for seed in (None, 0, 1)
    )


def rejection_rows(extractor="classifier") -> pd.DataFrame:
    """Rejection lowers FID at one half; at 0.05 there are too few samples for a FID."""
    rows = []
    for network in ("transformer", "autoregressive"):
        for selection in ("rejection", "random"):
            for acceptance in (1.0, 0.5, 0.05):
                kept = selection == "rejection" and acceptance < 1
                few = acceptance == 0.05
                rows.append(
                    {
                        "network": network,
                        "selection": selection,
                        "acceptance": acceptance,
                        "candidates": 2000,
                        "samples": round(2000 * acceptance),
                        f"fid_{extractor}": np.nan if few else 2.0 if kept else 3.0,
                        f"fid_{extractor}_std": np.nan if few else 0.1,
                        f"is_{extractor}": 9.5 if kept else 9.0,
                        f"is_{extractor}_std": 0.05,
                        "class_accuracy": 1.0 if kept else 0.9,
                    }
                    | {f"{kind}_{extractor}": 0.5 for kind in ("precision", "density", "coverage")}
                    | {f"recall_{extractor}": 0.3 if kept else 0.5}
                )
    return pd.DataFrame(rows)


def reconstruction_rows() -> pd.DataFrame:
    """PSNR falls by 2 dB to one half masked, by 10 dB from there to all but a tenth."""
    psnr = {0.0: 20.0, 0.5: 18.0, 0.9: 8.0}
    rows = [
        {
            "mask_ratio": ratio,
            "draw": draw,
            "images": 8,
            "psnr": value + (draw - 0.5) * (ratio > 0),
            "psnr_std": 3.0 + draw,
            "perceptual": ratio,
            "perceptual_std": 0.1,
        }
        for ratio, value in psnr.items()
        for draw in (0, 1)
    ]
    rows += [
        {
            "mask_ratio": ratio,
            "draw": -1,
            "images": 8,
            "psnr": value + 2 * ratio,
            "psnr_std": 3.0,
            "perceptual": ratio / 2,
            "perceptual_std": 0.1,
        }
        for ratio, value in psnr.items()
    ]
    return pd.DataFrame(rows)


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
            "repeats": 5,
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
            "class_edit": images(2, 4, 8, 8, 1),
            "class_edit_labels": names,
            "outpainting": images(3, 4, 8, 8, 1),
            "panorama": images(2, 8, 24, 1),
        },
        "reconstruction/pictures.npz": {
            "originals": images(4, 8, 8, 1),
            "inputs": images(3, 4, 8, 8, 1),
            "samples": images(3, 4, 8, 8, 1),
            "medians": images(3, 4, 8, 8, 1),
            "mask_ratios": np.array([0.0, 0.5, 0.9]),
        },
    }


def write_results(
    folder: Path, rows: pd.DataFrame | None = None, extractor: str = "classifier"
) -> Path:
    """Write every file of `FILES`, and a curve of each of the paper's schedules beside the folder;
    `rows` are the sweep's."""
    tables = {
        "sweep/rows.csv": sweep_rows(extractor=extractor) if rows is None else rows,
        "cas/rows.csv": cas_rows(),
        "temperature/rows.csv": temperature_rows(extractor),
        "editing/rows.csv": editing_rows(extractor),
        "rejection/rows.csv": rejection_rows(extractor),
        "reconstruction/rows.csv": reconstruction_rows(),
        "speed_timings.csv": speed_rows(),
    }
    metrics = {
        "evaluation/metrics.json": evaluation_metrics(extractor),
        "prepare/metrics.json": {"train_images": 4000, "val_images": 1000, "classes": 3},
        "tokenizer/metrics.json": {"psnr": 18.75, "code_usage": 1.0},
    }
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    for name, values in metrics.items():
        (folder / name).write_text(json.dumps(values))
    for name, arrays in pictures().items():
        np.savez(folder / name, **arrays)
    curves_of(folder).mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(BEST_FID):
        curve(4 - place / 2).to_csv(curves_of(folder) / f"{name}.csv", index=False)
    return folder


def curves_of(results: Path) -> Path:
    """The folder of curves that `write_results` leaves, where it lies in a project."""
    return results.parent / "data/schedules"


def analyse(results: Path, output: Path, params: Params) -> list[Path]:
    """Everything that the analysis makes of a folder of `write_results`."""
    return build(results, curves_of(results), output, params)


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
    }
    (folder / "sources").mkdir(exist_ok=True)
    (folder / f"sources/{stage}.json").write_text(json.dumps(source | changes))
