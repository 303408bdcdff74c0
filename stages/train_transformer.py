"""Masked Visual Token Modeling with Ray Train, or released weights in its place."""

from pipeline.config.params import Params
from pipeline.config.paths import TRANSFORMER
from pipeline.training.networks import convert_transformer, train_network
from pipeline.training.transformer import TransformerTask
from stages.running import main_schedule, run_stage


def main(params: Params) -> str:
    if params.transformer.pretrained:
        metrics = convert_transformer(params, TRANSFORMER)
    else:
        metrics = train_network(params, "transformer", TransformerTask, TRANSFORMER)
    return f"train_transformer: validation NLL {metrics['val_nll']:.3f}; model in {TRANSFORMER}"


if __name__ == "__main__":
    run_stage(main, curves=main_schedule)
