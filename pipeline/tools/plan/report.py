"""`maskgit plan`: the plan as text."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.presets import PRESETS
from pipeline.runtime import limits
from pipeline.runtime.dag import read_stages
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import RUNS
from pipeline.tools.plan.idle import idle_devices
from pipeline.tools.plan.memory import stage_memory
from pipeline.tools.plan.networks import DataSize, Network, plan_networks
from pipeline.tools.plan.stages import plan_stages
from pipeline.tools.plan.storage import Storage, disk_bytes, plan_storage, token_cache_bytes
from pipeline.tools.plan.work import Device, Stage

WIDTH = 104  # of a line of text
STAGE_VALUES = ("flops", "float32", "devices", "core_seconds")


def _uncounted(stages: list[Stage]) -> list[str]:
    """The stages of the DAG that the plan leaves out."""
    planned = {stage.name for stage in stages}
    return [name for name in read_stages(PRESETS.parent) if name not in planned]


def plan_text(
    params: Params, data: DataSize, tflops: float | None = None, float32: float | None = None
) -> str:
    """The plan of a run, as tables of its networks and of its stages.

    Args:
        tflops: rate that a device achieves, in 10¹² FLOP/s; without it no times are told.
        float32: that of what is in float32; None: the same.

    Raises:
        UserError: a rate is none that a device may have.
    """
    device = _device(params, tflops, float32)
    networks = plan_networks(params, data)
    stages = plan_stages(params, data, networks)
    idle = idle_devices(params, stages, device)
    storage = plan_storage(params, data, networks)
    return "\n\n".join(
        [
            _header(params, data),
            _network_table(networks),
            _stage_table(stages, device),
            *(textwrap.fill(line, WIDTH) for line in idle),
            _stage_note(stages, params),
            _needs_table(storage, stage_memory(params, data, networks)),
            _storage_note(storage, data, params.ray.folder),
        ]
    )


def plan_values(
    params: Params, data: DataSize, tflops: float | None = None, float32: float | None = None
) -> dict[str, Any]:
    """The same as numbers: FLOPs, bytes, seconds, and rates in FLOP/s.

    Raises:
        UserError: as `plan_text`.
    """
    device = _device(params, tflops, float32)
    networks = plan_networks(params, data)
    stages = plan_stages(params, data, networks)
    storage = plan_storage(params, data, networks)
    return {
        "preset": params.preset,
        "data": asdict(data),
        "networks": [asdict(network) for network in networks],
        "stages": [
            asdict(stage)
            | {name: getattr(stage, name) for name in STAGE_VALUES}
            | {"seconds": stage.seconds(device) if device else None}
            for stage in stages
        ],
        "rates": asdict(device) if device else None,
        "storage": [asdict(each) for each in storage],
        "memory": stage_memory(params, data, networks),
        "in_all": {
            "flops": sum(stage.flops for stage in stages),
            "seconds": sum(stage.seconds(device) for stage in stages) if device else None,
            "disk_bytes": disk_bytes(storage),
        },
        "not_counted": _uncounted(stages),
    }


def _device(params: Params, tflops: float | None, float32: float | None) -> Device | None:
    for option, rate in (("--tflops", tflops), ("--tflops-float32", float32)):
        if rate is not None and not limits.SMALLEST <= rate <= limits.LARGEST:
            raise UserError(
                f"plan: {option} {rate:g} is no rate; give what a device achieves, as 0.3"
            )
    if tflops is None:
        if float32 is not None:
            raise UserError(
                "plan: --tflops-float32 needs --tflops, the rate of all else; give both"
            )
        return None
    return Device(1e12 * tflops, params.ray.cpus_per_worker, float32 and 1e12 * float32)


def _header(params: Params, data: DataSize) -> str:
    p, t, size = params, params.transformer, params.data.image_size
    grids = data.train * p.tokens.crops_per_image + data.val
    lines = {
        f"preset {p.preset}": "nothing is trained or written by this command",
        "data": f"{p.data.source}: {data.train:,} + {data.val:,} images ({data.origin}), "
        f"{size}×{size}×{p.data.channels}, {data.classes} classes",
        "tokens": f"{p.grid}×{p.grid} of {p.tokenizer.codebook_size} codes, {grids:,} grids; "
        f"token cache {_bytes(token_cache_bytes(params, data))}",
        "transformers": f"{t.layers} layers, hidden {t.hidden}, {t.heads} heads, MLP {t.mlp}",
        "training": f"batch {p.training.batch_size} on {p.ray.num_workers} workers, "
        f"{'bfloat16' if p.training.bf16 else 'float32'}, schedule {p.training.mask_schedule}; "
        f"{len(p.evaluation.seeds)} seeds × {1 + len(p.training.other_label_smoothings)} label "
        f"smoothings",
        "sweep": f"{len(p.sweep.schedules)} schedules × {len(p.sweep.seeds)} seeds, "
        f"{_sweep_training(p)}; T = {', '.join(map(str, p.sweep.iterations))}, "
        f"{p.sweep.samples:,} samples each",
    }
    return "\n".join(f"{name:<20}{text}" for name, text in lines.items())


def _sweep_training(params: Params) -> str:
    return "not trained" if params.transformer.pretrained else f"{params.sweep.steps:,} steps each"


def _network_table(networks: list[Network]) -> str:
    from tabulate import tabulate

    rows = []
    for n in networks:
        row = [n.name, f"{n.parameters:,}", "–" if n.published is None else _bytes(n.published)]
        if n.steps:
            times = f" × {n.trainings}" if n.trainings > 1 else ""
            row += [f"{n.steps:,}{times}", _flops(n.step_flops), _flops(n.total_flops)]
            kept = "in the above" if n.checkpoint is None else _bytes(n.checkpoint)
            row += [f"≈ {_bytes(n.memory)}", kept]
        else:
            row += ["ready-made"]
        rows.append(row)
    headers = ["network", "parameters", "published", "steps", "a step", "in all"]
    headers += ["memory of a step", "checkpoint"]
    return tabulate(rows, headers, tablefmt="simple", colalign=("left", *["right"] * 7))


def _stage_table(stages: list[Stage], device: Device | None) -> str:
    from tabulate import tabulate

    def row(name: str, of: list[Stage], devices: str) -> dict[str, str]:
        parts = {what: sum(s.flops_of(what) for s in of) for what in ("validation", "features")}
        parts["float32"] = sum(s.float32 for s in of)
        busy = sum(s.core_seconds for s in of)
        cells = {"stage": name, "FLOPs": _flops(sum(s.flops for s in of))}
        cells |= {what: _flops(flops) if flops else "–" for what, flops in parts.items()}
        cells |= {"devices": devices, "pictures, one core": _duration(busy) if busy >= 1 else "–"}
        if device:
            seconds = sum(s.seconds(device) for s in of)
            cells[f"time at {_rates(device)} TFLOP/s a device"] = _duration(seconds)
        return cells

    rows = [*(row(s.name, [s], f"{s.devices:.3g}") for s in stages), row("in all", stages, "")]
    columns = len(rows[0]) - 1
    return tabulate(
        rows, headers="keys", tablefmt="simple", colalign=("left", *["right"] * columns)
    )


def _stage_note(stages: list[Stage], params: Params) -> str:
    """What the columns mean, and what is not counted."""
    ray = params.ray
    loaders = (
        f"{ray.loaders_per_worker} (ray.loaders_per_worker) prepare those of trainings"
        if ray.loaders_per_worker
        else "RandAugment takes one"
    )
    return textwrap.fill(
        "FLOPs are of matrix products and convolutions, a multiply-add as two: of training, tokens "
        "and samples, and, of these also in columns of their own, of looks at validation images "
        "during and after training, of the features of images, and of all that is in float32, "
        "where GPUs are several times as slow (--tflops-float32; with it, what tokenizer.tf32 lets "
        "be rounded counts at half of the first rate, unless float32 is quicker). Devices are "
        "those at work on average. Pictures are decoded, cropped and augmented by the processors, "
        f"in the time of one core; cores of a device: {ray.cpus_per_worker} "
        f"(ray.cpus_per_worker), of which {loaders}. "
        "Of trainings the slower one of networks and processors is the time, elsewhere both are. "
        "Not counted: what devices say to each other, reading, "
        "metrics of features, perceptual distances, pictures that are shown, start-up, and "
        f"the stages {', '.join(_uncounted(stages))}. Memory is an "
        "estimate.",
        WIDTH,
    )


def _needs_table(storage: list[Storage], memory: dict[str, int]) -> str:
    from tabulate import tabulate

    def row(name: str, *sizes: int) -> list[str]:
        return [name, *(_bytes(size) if size else "–" for size in sizes)]

    rows = [row(s.stage, memory.get(s.stage, 0), s.outputs, s.live, s.passing) for s in storage]
    written = {s.stage for s in storage}
    rows += [row(name, size, 0, 0, 0) for name, size in memory.items() if name not in written]
    outputs, live = sum(s.outputs for s in storage), sum(s.live for s in storage)
    most = max(s.passing for s in storage)
    rows.append(row("in all, or at most", max(memory.values()), outputs, live, most))
    headers = ["stage", "memory a worker", "outputs", "live copies", "while it runs"]
    return tabulate(rows, headers, tablefmt="simple", colalign=("left", *["right"] * 4))


def _storage_note(storage: list[Storage], data: DataSize, runs: str) -> str:
    """What the columns mean, what the disk must hold, and what is not counted."""
    need = disk_bytes(storage)
    who = "`make clean`" if Path(runs).parts[:1] == (RUNS,) else "nobody"
    sizes = "as large as the source's files; smaller of large photographs"
    images = "" if data.shard_bytes else f"the prepared images ({sizes}), "
    return textwrap.fill(
        f"The disk must hold {_bytes(need)}: outputs twice, in the project and in "
        "DVC's cache (once where the file system shares blocks), live copies under "
        f"ray.storage_path, which {who} deletes, and what the stage that needs most needs besides "
        "while it runs. "
        f"Not counted: {images}tables, pictures, logs, MLflow's files. Memory is about "
        "what a worker has on its device, in steps and in looks between them, where all that "
        "predicts is in float32; what PyTorch needs besides, and the stage speed, are not counted.",
        WIDTH,
    )


def _rates(device: Device) -> str:
    rates = [device.rate] if device.float32 is None else [device.rate, device.float32]
    return " and ".join(f"{rate / 1e12:g}" for rate in rates)


def _flops(value: float) -> str:
    return f"{_scaled(value)}FLOP"


def _bytes(value: float) -> str:
    return f"{_scaled(value)}B"


def _scaled(value: float) -> str:
    """Three digits and a decimal prefix."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 999.5:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.4g} Z"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
