"""Real photographs, in colour: from a folder of files to tokens, and a transformer of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.data.shards import (
    ImageBatches,
    ImageShards,
    View,
    stratified_split,
    write_manifest,
    write_shards,
)
from pipeline.data.sources import open_source
from pipeline.perceptual import open_perceptual
from pipeline.sampling import balanced_labels, sampler, tokens_to_images
from pipeline.tokens import TokenCache, cache_tokens
from pipeline.tokens import write_manifest as write_token_manifest
from pipeline.training.tokenizer import TokenizerTask, psnr, reconstruct, tokenizer_config
from pipeline.training.transformer import TransformerTask

CPU = torch.device("cpu")
SIDE = 64  # of the crops, which are shown at half of that


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """scikit-learn's two photographs, a temple and a flower, in 54 square pieces each; every other
    one a JPEG, the rest PNGs."""
    root = tmp_path_factory.mktemp("photos")
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        tops, lefts = range(0, photo.shape[0] - SIDE + 1, SIDE), range(0, photo.shape[1] - SIDE + 1, SIDE)
        for i, (top, left) in enumerate((t, l) for t in tops for l in lefts):
            piece = Image.fromarray(photo[top : top + SIDE, left : left + SIDE])
            piece.save(root / name / f"{i:03d}.{('jpg', 'png')[i % 2]}", quality=95)
    return root
