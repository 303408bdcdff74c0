"""The autoregressive baseline VQGAN∗ with Ray Train, at the transformer's training params but for
those of its own section."""

from pipeline.config.params import Params
from pipeline.config.paths import AUTOREGRESSIVE
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.networks import train_network
from stages.running import run_stage


def main(params: Params) -> str:
    own = {"steps", "label_smoothing"}
    training = params.training.model_copy(update=params.autoregressive.model_dump(include=own))
    params = params.model_copy(update={"training": training})
    metrics = train_network(params, "autoregressive", AutoregressiveTask, AUTOREGRESSIVE)
    return (
        f"train_autoregressive: validation NLL {metrics['val_nll']:.3f}; model in {AUTOREGRESSIVE}"
    )


if __name__ == "__main__":
    run_stage(main)
