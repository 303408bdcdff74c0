"""Synthetic pictures, as the stages leave them."""

import numpy as np


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
