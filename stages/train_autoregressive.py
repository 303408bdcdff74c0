"""Trains the autoregressive baseline VQGAN∗ for each pair of seed and label smoothing, with
MaskGIT's training params except for the number of steps."""

from pipeline.config.params import Params
from pipeline.config.paths import AUTOREGRESSIVE
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.networks import train_network


def main(params: Params) -> str:
    steps = {"steps": params.autoregressive.steps}
    training = params.training.model_copy(update=steps)
    params = params.model_copy(update={"training": training})
    nll = train_network(params, AutoregressiveTask)["val_nll"]
    return f"train_autoregressive: validation NLL {nll:.3f}; models in {AUTOREGRESSIVE}"
