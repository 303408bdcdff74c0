"""The part that the stages of both transformers share: a run of Ray Train, and its outputs."""

from pathlib import Path
from typing import Any

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
from pipeline.config.paths import RESULTS, TOKENIZER, TOKENS
from pipeline.data.tokens import TokenCache
from pipeline.masking import masked_nll
from pipeline.runtime.cluster import join_ray, require_resources
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.pictures import grid_picture, save_picture
from pipeline.runtime.stage import Stage
from pipeline.runtime.tracking import Run
from pipeline.sampling import Network, balanced_labels, sampler
from pipeline.tokenizer import tokens_to_images
from pipeline.training.loop import averaged_weights
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.job import TrainingJob
from pipeline.training.transformer.ray_train import fit
from pipeline.weights.configs import transformer_config
from pipeline.weights.published import load_model, save_model
from pipeline.weights.released.opening import open_pretrained_transformer


def train_network(
    params: Params, network: str, task: type[TransformerTask], target: Path
) -> dict[str, float]:
    """Train one of the transformers, publish it as `target`, write its curves and metrics.

    Args:
        network: "transformer" or "autoregressive"; its stage is `train_<network>`.
    """
    ray, classes = params.ray, TokenCache(TOKENS, "train").num_classes
    join_ray()
    require_resources(ray.num_workers, ray.cpus_per_worker, ray.use_gpu, "ray.num_workers")
    with Stage(f"train_{network}", params) as stage:
        job = TrainingJob(
            params=params.model_dump(),
            tokens_dir=str(TOKENS.absolute()),
            num_classes=classes,
            task=task,
            seed=params.seed,
            name=network,
            run_dir=str(stage.folder()),
        )
        observer = Observer(stage.run, params, TOKENIZER.absolute(), Path(job.run_dir))
        state = fit(
            job, workers=ray.num_workers, on_row=observer.on_row, on_evaluate=observer.on_evaluate
        )
        history = state["history"]
        metrics = {"val_nll": history[-1]["val_nll"], "train_loss": history[-1]["loss"]}
        weights = averaged_weights(state["task"]["average"])
        save_model(target, network, transformer_config(params, classes), weights)
        _write_results(network, history, metrics, stage.run)
    return metrics


def convert_transformer(params: Params, target: Path) -> dict[str, float]:
    """Publish `transformer.pretrained` as `target`, in place of training.

    Raises:
        UserError: the file does not hold this architecture, or not as many classes as the data set
            has; nothing is written then.
    """
    device = pick_device()
    model = open_pretrained_transformer(params, device, TokenCache(TOKENS, "train").num_classes)
    with Stage("train_transformer", params) as stage:
        nll = masked_nll(
            model,
            *TokenCache(TOKENS, "val").everything(),
            schedule=params.training.mask_schedule,
            min_masking_rate=params.training.min_masking_rate,
            seed=params.seed,
            device=device,
        )
        metrics = {"val_nll": nll}
        save_model(target, "transformer", model.config, model.state_dict())
        _write_results("transformer", [{"step": 0, "loss": None} | metrics], metrics, stage.run)
    return metrics


def _write_results(
    network: str, history: list[dict[str, Any]], metrics: dict[str, float], run: Run
) -> None:
    write_csv(RESULTS / network / "history.csv", history)
    write_json(RESULTS / network / "metrics.json", metrics)
    run.log_metrics(metrics)


class Observer:
    """Logs, on the first worker, the curves of a training and a grid of samples."""

    def __init__(self, run: Run, params: Params, tokenizer: Path, folder: Path):
        self.run, self.params, self.tokenizer, self.folder = run, params, tokenizer, folder

    def on_row(self, row: dict[str, float]) -> None:
        self.run.log_metrics(row, int(row["step"]))

    def on_evaluate(self, model: Network, step: int) -> None:
        columns = min(model.config.num_classes, 10)
        labels = balanced_labels(4 * columns, model.config.num_classes)
        tokenizer = load_model(self.tokenizer, "tokenizer", next(model.parameters()).device)
        autoregressive = isinstance(model, AutoregressiveTransformer)
        draw = sampler(model, self.params.decoding_settings(autoregressive=autoregressive))
        images = tokens_to_images(tokenizer, draw(labels, self.params.seed))
        path = save_picture(grid_picture(images, columns), self.folder / f"samples_{step:07d}.png")
        self.run.log_artifact(path)
