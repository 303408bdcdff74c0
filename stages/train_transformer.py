"""Stage 5: Masked Visual Token Modeling with Ray Train."""

from pathlib import Path

from pipeline.layout import IMAGES, RESULTS, TOKENIZER, TOKENS, TRANSFORMER
from pipeline.models import load_model, save_model
from pipeline.params import Params
from pipeline.pictures import grid_picture, save_picture
from pipeline.runtime.cluster import join_ray, require_resources
from pipeline.runtime.files import read_json, value_hash, write_csv, write_json
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import Run, stage_run
from pipeline.sampling import balanced_labels, generate, tokens_to_images
from pipeline.training.distributed import TrainingJob, fit
from pipeline.training.transformer import transformer_config


def main(params: Params) -> str:
    key = stage_key("train_transformer")
    join_ray()
    ray = params.ray
    require_resources(ray.num_workers, ray.cpus_per_worker, ray.use_gpu, "ray.num_workers")
    with stage_run("train_transformer", params, value_hash(key)) as run:
        num_classes = len(read_json(IMAGES / "manifest.json")["class_names"])
        folder = run_dir("train_transformer", key, ray.storage_path)
        job = TrainingJob(
            params=params.model_dump(),
            tokens_dir=str(TOKENS.absolute()),
            num_classes=num_classes,
            schedule=params.training.mask_schedule,
            seed=params.seed,
            name="transformer",
            run_dir=str(folder),
        )
        observer = Observer(run, params, TOKENIZER.absolute(), folder / "samples.png")
        state = fit(
            job, workers=ray.num_workers, on_row=observer.on_row, on_evaluate=observer.on_evaluate
        )
        history = state["history"]
        metrics = {"val_nll": history[-1]["val_nll"], "train_loss": history[-1]["loss"]}
        save_model(
            TRANSFORMER,
            "transformer",
            transformer_config(params, num_classes),
            state["task"]["ema"],
        )
        write_csv(RESULTS / "transformer/history.csv", history)
        write_json(RESULTS / "transformer/metrics.json", metrics)
        run.log_metrics(metrics)
    return f"train_transformer: validation NLL {metrics['val_nll']:.3f}; model in {TRANSFORMER}"


class Observer:
    """What the first worker logs as training goes: curves, and a grid of samples."""

    def __init__(self, run: Run, params: Params, tokenizer: Path, picture: Path):
        self.run, self.params, self.tokenizer, self.picture = run, params, tokenizer, picture

    def on_row(self, row: dict[str, float]) -> None:
        self.run.log_metrics(row, row["step"])

    def on_evaluate(self, model, step: int) -> None:
        device = next(model.parameters()).device
        steps = generate(
            model,
            balanced_labels(4 * min(model.config.num_classes, 10), model.config.num_classes),
            iterations=self.params.decoding.iterations,
            schedule=self.params.training.mask_schedule,
            choice_temperature=self.params.decoding.choice_temperature,
            bf16=self.params.decoding.bf16,
            seed=self.params.seed,
            device=device,
        )
        images = tokens_to_images(
            load_model(self.tokenizer, "tokenizer", device), steps[-1].sampled
        )
        path = self.picture.with_name(f"samples_{step:07d}.png")
        save_picture(grid_picture(images, min(model.config.num_classes, 10)), path)
        self.run.log_artifact(path)


if __name__ == "__main__":
    run_stage(main)
