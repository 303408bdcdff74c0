"""Trains MaskGIT by Masked Visual Token Modeling for each pair of seed and label smoothing, or
converts released weights."""

from pipeline.config.params import Params
from pipeline.config.paths import TRANSFORMER
from pipeline.training.networks import convert_transformer, train_network
from pipeline.training.transformer import TransformerTask


def main(params: Params) -> str:
    if params.transformer.pretrained:
        metrics = convert_transformer(params)
    else:
        metrics = train_network(params, TransformerTask)
    return f"train_transformer: validation NLL {metrics['val_nll']:.3f}; models in {TRANSFORMER}"
