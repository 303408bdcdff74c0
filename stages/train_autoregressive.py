"""The autoregressive baseline VQGAN∗ with Ray Train, at the transformer's training params but for
those of its own section."""

from pipeline.layout import AUTOREGRESSIVE
from pipeline.params import Params
from pipeline.runtime.network import train_network
from pipeline.runtime.stage import run_stage


def main(params: Params) -> str:
    own = {"steps", "label_smoothing"}
    training = params.training.model_copy(update=params.autoregressive.model_dump(include=own))
    params = params.model_copy(update={"training": training})
    metrics = train_network(params, "autoregressive", AUTOREGRESSIVE)
    return (
        f"train_autoregressive: validation NLL {metrics['val_nll']:.3f}; model in {AUTOREGRESSIVE}"
    )


if __name__ == "__main__":
    run_stage(main)
