"""The sizes at which networks are timed, and a network of PyTorch's own layers to compare with."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.config.params import Params
from pipeline.config.presets import preset_params
from pipeline.runtime.files import file_hash, write_json
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import LAYER_NORM_EPS, MaskGitTransformer, TransformerConfig
from pipeline.weights.configs import transformer_config

IMAGES = 4096  # of the synthetic token cache


@dataclass(frozen=True)
class Size:
    """The networks of some params, and the batch they are timed with."""

    name: str
    params: Params
    classes: int
    batch: int
    extrapolate: bool  # time only some positions of autoregressive sampling without a cache

    @property
    def config(self) -> TransformerConfig:
        return transformer_config(self.params, self.classes)


class EncoderLayerTransformer(MaskGitTransformer):
    """The comparison: the same architecture with torch's own layers as its blocks (their GELU is
    the exact one, which costs less)."""

    def __init__(self, config: TransformerConfig):
        super().__init__(dataclasses.replace(config, layers=0))
        self.config = config
        layers = [
            nn.TransformerEncoderLayer(
                config.hidden,
                config.heads,
                config.mlp,
                config.dropout,
                activation="gelu",
                layer_norm_eps=LAYER_NORM_EPS,
                batch_first=True,
            )
            for _ in range(config.layers)
        ]
        for layer in layers:
            layer.dropout.p = 0.0  # between the MLP's two layers, where BERT has none
        self.blocks = nn.ModuleList(layers)


class EncoderLayerTask(TransformerTask):
    network = EncoderLayerTransformer


def open_size(name: str, device: torch.device) -> Size:
    """The default's size, or the paper's with a batch that suits the device."""
    if name == "default":
        params, classes = preset_params("mnist5k"), 10
        batch = params.training.batch_size
    else:
        params, classes = preset_params("imagenet256"), 1000
        batch = 4 if device.type == "cpu" else 64
    training = {"batch_size": batch, "compile": False}
    params = params.model_copy(
        update={
            "training": params.training.model_copy(update=training),
            "ray": params.ray.model_copy(update={"num_workers": 1}),
        }
    )
    extrapolate = name == "paper" and device.type == "cpu"
    return Size(name, params, classes, batch, extrapolate)


def write_synthetic_cache(size: Size, folder: Path) -> None:
    """Write random tokens as a token cache."""
    rng, params = np.random.default_rng(0), size.params
    shards = {}
    for split, images in (("train", IMAGES), ("val", 1)):
        shape = (images, params.tokens.crops_per_image, params.num_tokens)
        tokens = rng.integers(0, params.tokenizer.codebook_size, shape, dtype=np.uint16)
        path = folder / f"{split}-00000.npy"
        np.save(path, tokens)
        labels = folder / f"{split}-labels.npy"
        np.save(labels, rng.integers(0, size.classes, images, np.int32))
        shards[split] = [{"file": path.name, "count": images, "hash": file_hash(path)}]
    own = {"codebook_size": params.tokenizer.codebook_size, "classes": size.classes}
    manifest = own | {"shards": shards}
    write_json(folder / "manifest.json", manifest)
