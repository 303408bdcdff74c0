"""What was run, on what and by which code, for the head of the report."""

from collections.abc import Container
from pathlib import Path

from analysis.exhibits.formatting import count, extent, listed, millions, number, percent
from analysis.exhibits.inputs.results import Results
from analysis.report.provenance import commit
from pipeline.config.params import Params
from pipeline.runtime.provenance import Record


def data_name(params: Params) -> str:
    """The data set's own name: mnist5k, CIFAR10, or the folder's."""
    kind, _, name = params.data.source.partition(":")
    return Path(name).name or kind


def facts(results: Results, params: Params, stale: Container[str]) -> list[tuple[str, str]]:
    """Pairs of a subject and what there is to say of it, without what is of a stage that is out of
    date."""
    return [fact for stage, fact in _facts(results, params) if stage not in stale]


def _facts(results: Results, params: Params) -> list[tuple[str, tuple[str, str]]]:
    """Each fact after the stage whose results it is of; "" for what is of all of them."""
    data, tokenizer, ours = results.data, results.tokenizer, results.evaluation["transformer"]
    size, network, training = params.data.image_size, params.transformer, params.training
    colours = "grey" if params.data.channels == 1 else "RGB"
    images = (
        f"{data_name(params)}: {count(data['train_images'])} training and "
        f"{count(data['val_images'])} validation images of {count(data['classes'])} classes, "
        f"{size}×{size} {colours}"
    )
    tokens = (
        f"{params.grid}×{params.grid} of {params.tokenizer.codebook_size} codes, "
        f"{percent(tokenizer['code_usage'])} of them used; PSNR {number(tokenizer['psnr'])} dB"
    )
    layers = (
        f"{network.layers} layers, hidden {network.hidden}, {network.heads} heads; "
        f"{millions(ours['parameters'])} parameters with the tokenizer"
    )
    trained = _weights(params) or (
        f"{count(training.steps)} steps of {training.batch_size} images, schedule "
        f"{training.mask_schedule}; baseline {count(params.autoregressive.steps)} steps"
    )
    decoding = (
        f"T = {params.decoding.iterations}, choice temperature "
        f"{params.decoding.choice_temperature:g}, guidance {params.decoding.guidance_scale:g}"
    )
    metrics = (
        f"features of {results.extractor}; second network {results.second_extractor}; "
        f"{count(params.evaluation.samples)} samples"
    )
    devices = listed(sorted(set(results.speed["device"].astype(str))))
    device = f"{devices}, {extent(results.speed['threads'])} threads (Figure 4)"
    return [
        ("", ("Preset", params.preset)),
        ("prepare", ("Data", images)),
        ("train_tokenizer", ("Tokens", tokens)),
        ("evaluate", ("Transformer", layers)),
        ("evaluate", ("Training", trained)),
        ("evaluate", ("Decoding", decoding)),
        ("evaluate", ("Metrics", metrics)),
        ("speed", ("Device", device)),
        *(("", fact) for fact in _run(results)),
    ]


def _weights(params: Params) -> str:
    weights = params.transformer.pretrained
    return f"none: weights of the file {Path(weights).name}" if weights else ""


def _run(results: Results) -> list[tuple[str, str]]:
    """Code, machine and cost, as far as the stages recorded them."""
    entries = list(results.sources.values())
    if not entries:
        return []
    commits = sorted({commit(entry) for entry in entries})
    machines = sorted({_machine(entry) for entry in entries})
    hours = sum(entry["seconds"] for entry in entries) / 3600
    duration = f"{hours:.1f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes"
    return [
        ("Machine", listed(machines)),
        *_workers(entries),
        ("Cost", f"{duration} in {len(entries)} stages, one after the other"),
        ("Commit", listed(commits)),
        ("Finished", max(entry["finished"] for entry in entries)),
    ]


def _machine(entry: Record) -> str:
    gpus = [f"{entry['gpus'].count(name)} × {name}" for name in sorted(set(entry["gpus"]))]
    return ", ".join([f"{entry['cpus']} CPUs", f"{entry['memory_gib']:g} GiB", *gpus])


def _workers(entries: list[Record]) -> list[tuple[str, str]]:
    """The machines that worked for the stages' own, if others did."""
    found = {
        (worker["host"], worker["device"])
        for entry in entries
        for worker in entry["workers"]
        if worker["host"] != entry["host"]
    }
    if not found:
        return []
    hosts = len({host for host, _ in found})
    devices = listed(sorted({device for _, device in found}))
    return [("Workers", f"on {hosts} other host{'s' * (hosts > 1)}: {devices}")]
