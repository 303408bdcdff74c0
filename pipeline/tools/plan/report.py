"""`python -m pipeline plan`: the plan as text."""

from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.config.presets import PRESETS
from pipeline.data.tokens import SHARD
from pipeline.runtime.dag import DVC_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, read_yaml
from pipeline.tools.plan.networks import DataSize, Network, Stage, plan_networks, plan_stages

NPY_HEADER = 128  # bytes


@dataclass(frozen=True)
class Known:
    """The published size of a data set."""

    images: int  # for training; all of them, where no split is published
    val: int | None
    classes: int


KNOWN = {
    "mnist5k": Known(5_000, None, 10),
    "torchvision:CIFAR10": Known(50_000, 10_000, 10),
    "folder:data/raw/imagenet": Known(1_281_167, 50_000, 1000),
    "folder:data/raw/places2": Known(1_803_460, 36_500, 365),
}


def data_size(params: Params, images: int | None = None, classes: int | None = None) -> DataSize:
    """The size of `data.source`: as given, else from the manifest of the prepared images, else
    published.

    Args:
        images: number of images in all; `data.val_fraction` of them are held out.
        classes: number of classes.

    Raises:
        UserError: nothing tells, or what is given is no size.
    """
    for option, value in (("--images", images), ("--classes", classes)):
        if value is not None and value < 1:
            raise UserError(f"plan: {option} {value} is no size; give 1 or more")
    source, manifest_file = params.data.source, IMAGES / "manifest.json"
    manifest = read_json(manifest_file) if manifest_file.exists() else {}
    known: Known | None
    if manifest.get("source") == source:
        counts = {split: sum(of.values()) for split, of in manifest["counts"].items()}
        known = Known(counts["train"], counts["val"], len(manifest["class_names"]))
        origin = str(manifest_file)
    else:
        known, origin = KNOWN.get(source), "published size"
    if images is not None:
        classes = classes or (known.classes if known else None)
        known = Known(images, None, classes) if classes else None
        origin = "as given"
    if not known:
        raise UserError(
            f"plan: the size of {source} is unknown before `dvc repro prepare`; give --images and "
            f"--classes"
        )
    val = known.val
    if val is None:
        val = round(params.data.val_fraction * known.images)
    train = known.images if known.val is not None else known.images - val
    return DataSize(train, val, classes or known.classes, origin)


def token_cache_bytes(params: Params, data: DataSize) -> int:
    """Size of the token cache: uint16 grids of every view, and int32 labels."""
    total = 0
    for images, views in ((data.train, params.tokens.crops_per_image), (data.val, 1)):
        files = -(-images // SHARD) + 1  # shards of grids, and one of labels
        total += files * NPY_HEADER + images * (2 * views * params.num_tokens + 4)
    return total


def _uncounted(stages: list[Stage]) -> list[str]:
    """The stages of the DAG that the plan leaves out."""
    planned = {stage.name for stage in stages}
    dag = read_yaml(PRESETS.parent / DVC_FILE)["stages"]
    return [name for name in dag if name not in planned]


def plan_text(params: Params, data: DataSize, tflops: float | None = None) -> str:
    """The plan of a run, as tables of its networks and of its stages.

    Args:
        tflops: rate that a device achieves, in 10¹² FLOP/s; without it no times are told.

    Raises:
        UserError: the rate is not above 0.
    """
    if tflops is not None and not tflops > 0:
        raise UserError(
            f"plan: --tflops {tflops:g} is no rate; give what a device achieves, as 0.3"
        )
    networks = plan_networks(params, data)
    stages = plan_stages(params, data, networks)
    cache = token_cache_bytes(params, data)
    return "\n\n".join(
        [
            _header(params, data, cache),
            _network_table(networks),
            _stage_table(stages, tflops),
            "FLOPs are of matrix products and convolutions, a multiply-add as two. Not counted: "
            "features of samples,\nvalidation, start-up, and the stages "
            f"{', '.join(_uncounted(stages))}. Memory is an estimate.",
        ]
    )


def _header(params: Params, data: DataSize, cache: int) -> str:
    p, t, size = params, params.transformer, params.data.image_size
    grids = data.train * p.tokens.crops_per_image + data.val
    lines = {
        f"preset {p.preset}": "nothing is trained or written by this command",
        "data": f"{p.data.source}: {data.train:,} + {data.val:,} images ({data.origin}), "
        f"{size}×{size}×{p.data.channels}, {data.classes} classes",
        "tokens": f"{p.grid}×{p.grid} of {p.tokenizer.codebook_size} codes, {grids:,} grids; "
        f"token cache {_bytes(cache)}",
        "transformers": f"{t.layers} layers, hidden {t.hidden}, {t.heads} heads, MLP {t.mlp}",
        "training": f"batch {p.training.batch_size} on {p.ray.num_workers} workers, "
        f"{'bfloat16' if p.training.bf16 else 'float32'}, schedule {p.training.mask_schedule}",
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
            row += [f"{n.steps:,}", _flops(n.step_flops), _flops(n.total_flops)]
            row += [
                f"≈ {_bytes(n.memory)}",
                "in the above" if n.checkpoint is None else _bytes(n.checkpoint),
            ]
        else:
            row += ["ready-made"]
        rows.append(row)
    headers = ["network", "parameters", "published", "steps", "a step", "in all"]
    headers += ["memory a worker", "checkpoint"]
    return tabulate(rows, headers, tablefmt="simple", colalign=("left", *["right"] * 7))


def _stage_table(stages: list[Stage], tflops: float | None) -> str:
    from tabulate import tabulate

    rows = [{"stage": s.name, "FLOPs": _flops(s.flops), "devices": s.devices} for s in stages]
    rows.append({"stage": "in all", "FLOPs": _flops(sum(s.flops for s in stages)), "devices": ""})
    if tflops is not None:
        seconds = [s.flops / (tflops * 1e12 * s.devices) for s in stages]
        for row, value in zip(rows, [*seconds, sum(seconds)], strict=True):
            row[f"time at {tflops:g} TFLOP/s a device"] = _duration(value)
    columns = len(rows[0]) - 1
    return tabulate(
        rows, headers="keys", tablefmt="simple", colalign=("left", *["right"] * columns)
    )


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
