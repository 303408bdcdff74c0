"""What the stages of the two transformers share: Ray Train around a run, pictures as it goes."""

from pathlib import Path

from pipeline.layout import IMAGES, RESULTS, TOKENIZER, TOKENS
from pipeline.models import load_model, save_model
from pipeline.params import Params
from pipeline.pictures import grid_picture, save_picture
from pipeline.released import load_pretrained
from pipeline.runtime.cluster import join_ray, require_resources
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import read_json, value_hash, write_csv, write_json
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.tracking import Run, stage_run
from pipeline.sampling import balanced_labels, masked_nll, sampler, tokens_to_images
from pipeline.tokens import TokenCache
from pipeline.training.distributed import TrainingJob, fit
from pipeline.training.transformer import transformer_config
from pipeline.transformer import MaskGitTransformer


def train_network(params: Params, network: str, target: Path) -> dict[str, float]:
    """Train one of the transformers, publish it as `target`, write its curves and metrics.

    Args:
        network: "transformer" or "autoregressive"; its stage is `train_<network>`.
    """
    stage, ray = f"train_{network}", params.ray
    key = stage_key(stage)
    join_ray()
    require_resources(ray.num_workers, ray.cpus_per_worker, ray.use_gpu, "ray.num_workers")
    with stage_run(stage, params, value_hash(key)) as run:
        folder = run_dir(stage, key, ray.storage_path)
        job = TrainingJob(
            params=params.model_dump(),
            tokens_dir=str(TOKENS.absolute()),
            num_classes=num_classes(),
            network=network,
            schedule=params.training.mask_schedule,
            seed=params.seed,
            name=network,
            run_dir=str(folder),
        )
        observer = Observer(run, params, TOKENIZER.absolute(), folder)
        state = fit(
            job, workers=ray.num_workers, on_row=observer.on_row, on_evaluate=observer.on_evaluate
        )
        history = state["history"]
        metrics = {"val_nll": history[-1]["val_nll"], "train_loss": history[-1]["loss"]}
        save_model(target, network, transformer_config(params, num_classes()), state["task"]["ema"])
        write_csv(RESULTS / network / "history.csv", history)
        write_json(RESULTS / network / "metrics.json", metrics)
        run.log_metrics(metrics)
    return metrics


def convert_transformer(params: Params, target: Path) -> dict[str, float]:
    """Publish `transformer.pretrained` as `target`, in place of training.

    Raises:
        UserError: the file does not hold this architecture; nothing is written then.
    """
    path = params.transformer.pretrained
    config = transformer_config(params, num_classes())
    weights = load_pretrained(path, config)
    key = stage_key("train_transformer")
    with stage_run("train_transformer", params, value_hash(key)) as run:
        model = MaskGitTransformer(config)
        model.load_state_dict(weights)
        device = pick_device()
        nll = masked_nll(
            model.to(device).eval().requires_grad_(False),
            *TokenCache(TOKENS, "val").everything(),
            schedule=params.training.mask_schedule,
            min_masking_rate=params.training.min_masking_rate,
            seed=params.seed,
            batch_size=500,
            device=device,
        )
        metrics = {"val_nll": nll}
        save_model(target, "transformer", config, weights)
        write_csv(RESULTS / "transformer/history.csv", [{"step": 0, "loss": None} | metrics])
        write_json(RESULTS / "transformer/metrics.json", metrics)
        run.log_metrics(metrics)
    return metrics


def num_classes() -> int:
    """Of the prepared data set."""
    return len(read_json(IMAGES / "manifest.json")["class_names"])


class Observer:
    """What the first worker logs as training goes: curves, and a grid of samples."""

    def __init__(self, run: Run, params: Params, tokenizer: Path, folder: Path):
        self.run, self.params, self.tokenizer, self.folder = run, params, tokenizer, folder

    def on_row(self, row: dict[str, float]) -> None:
        self.run.log_metrics(row, row["step"])

    def on_evaluate(self, model, step: int) -> None:
        columns = min(model.config.num_classes, 10)
        labels = balanced_labels(4 * columns, model.config.num_classes)
        tokenizer = load_model(self.tokenizer, "tokenizer", next(model.parameters()).device)
        tokens = sampler(model, self.params)(labels, self.params.seed)
        images = tokens_to_images(tokenizer, tokens)
        path = save_picture(grid_picture(images, columns), self.folder / f"samples_{step:07d}.png")
        self.run.log_artifact(path)
