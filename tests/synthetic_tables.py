"""Synthetic tables and metrics, as the stages leave them, with known right answers."""

import numpy as np
import pandas as pd

from analysis.exhibits.inputs import paper

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
