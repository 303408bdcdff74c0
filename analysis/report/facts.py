"""What was run, on what and by which code, for the head of the report."""

from pathlib import Path

from analysis.exhibits.formatting import count, extent, listed, millions, number, percent
from analysis.exhibits.inputs.results import Results
from pipeline.config.params import Params


def data_name(params: Params) -> str:
    """The data set's own name: mnist5k, CIFAR10, or the folder's."""
    kind, _, name = params.data.source.partition(":")
    return Path(name).name or kind


def facts(results: Results, params: Params) -> list[tuple[str, str]]:
    """Pairs of a subject and what there is to say of it."""
    data, tokenizer, ours = results.data, results.tokenizer, results.evaluation["transformer"]
    size, network, training = params.data.image_size, params.transformer, params.training
    colours = "grey" if params.data.channels == 1 else "RGB"
    evaluation = params.evaluation
    return [
        ("Preset", params.preset),
        (
            "Data",
            f"{data_name(params)}: {count(data['train_images'])} training and "
            f"{count(data['val_images'])} validation images of {count(data['classes'])} classes, "
            f"{size}×{size} {colours}",
        ),
        (
            "Tokens",
            f"{params.grid}×{params.grid} of {params.tokenizer.codebook_size} codes, "
            f"{percent(tokenizer['code_usage'])} of them used; PSNR {number(tokenizer['psnr'])} dB",
        ),
        (
            "Transformer",
            f"{network.layers} layers, hidden {network.hidden}, {network.heads} heads; "
            f"{millions(ours['parameters'])} parameters with the tokenizer",
        ),
        (
            "Training",
            _weights(params)
            or f"{count(training.steps)} steps of {training.batch_size}, {training.mask_schedule} "
            f"schedule; baseline {count(params.autoregressive.steps)} steps",
        ),
        (
            "Decoding",
            f"T = {params.decoding.iterations}, choice temperature "
            f"{params.decoding.choice_temperature:g}, guidance {params.decoding.guidance_scale:g}",
        ),
        (
            "Metrics",
            f"features of {results.extractor}; second network {results.second_extractor}; "
            f"{count(evaluation.samples)} samples",
        ),
        *_run(results),
    ]


def _weights(params: Params) -> str:
    weights = params.transformer.pretrained
    return f"released weights: {Path(weights).name}" if weights else ""


def _run(results: Results) -> list[tuple[str, str]]:
    """Code, machine and cost, as far as the stages recorded them."""
    speed = results.speed
    devices = listed(sorted(set(speed["device"].astype(str))))
    found = [("Device", f"{devices}, {extent(speed['threads'])} threads (Figure 4)")]
    entries = list(results.sources.values())
    if not entries:
        return found
    commits = sorted({f"{e['commit'][:12]}{' (changed)' * bool(e['dirty'])}" for e in entries})
    machines = sorted({_machine(entry) for entry in entries})
    hours = sum(entry["seconds"] for entry in entries) / 3600
    duration = f"{hours:.1f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes"
    return [
        *found,
        ("Machine", listed(machines)),
        ("Cost", f"{duration} in {len(entries)} stages, one after the other"),
        ("Commit", listed(commits)),
        ("Finished", max(entry["finished"] for entry in entries)),
    ]


def _machine(entry: dict) -> str:
    gpus = [f"{entry['gpus'].count(name)} × {name}" for name in sorted(set(entry["gpus"]))]
    return ", ".join([f"{entry['cpus']} CPUs", f"{entry['memory_gib']:g} GiB", *gpus])
