"""What the params ask for, where they are valid: a data set, devices and room on the disk."""

import contextlib
import inspect
import io
import os
import shutil
from pathlib import Path

from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES
from pipeline.config.trainings import named_by, workers_per_classifier
from pipeline.data.images.shards import MANIFEST, read_manifest
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.prepare.datasets import FOLDERS, open_source
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import in_project, of_project
from pipeline.runtime.ray_cluster import cluster_address
from pipeline.tools.doctor.finding import GB, Finding

CLUSTER = "run on a cluster (docs/cluster.md)"


def data() -> Finding | None:
    """Whether the data set is there; of a folder, whether the stage prepare would take its classes
    and splits, and what it would pass over."""
    if (params := _params()) is None:
        return None
    source = params.data.source
    kind, _, argument = source.partition(":")
    if _prepared() == source:
        if kind == "folder" and not of_project(argument).is_dir():
            found = f"{source}, prepared in {IMAGES}, is gone: other params of data would need it"
            return Finding("data", "note", found)
        return Finding("data", "good", f"{source}, prepared in {IMAGES}")
    if kind == "torchvision":
        return _torchvision(argument, params.data.download_dir)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        opened = open_source(source, params.data.download_dir, params.data.image_size)
    count = len(opened.class_names)
    found = f"{len(opened.items):,} images of {count:,} class{'es' if count > 1 else ''}"
    passed_over = [line.removeprefix("data.source: ") for line in said.getvalue().splitlines()]
    return Finding("data", "note" if passed_over else "good", "; ".join([found, *passed_over]))


def _prepared() -> str | None:
    """The source of the images that are prepared."""
    if not ((IMAGES / MANIFEST).exists() and any(IMAGES.glob("*.arrow"))):
        return None
    try:
        return read_manifest(IMAGES).get("source")
    except UserError:  # the stage prepare makes it anew
        return None


def _torchvision(name: str, downloads: str) -> Finding:
    import torchvision

    if not inspect.isclass(getattr(torchvision.datasets, name, None)) or name in FOLDERS:
        found = f"torchvision has no data set '{name}'"
        return Finding("data", "fails", found, "mend data.source: see torchvision's docs")
    if not os.access(_there(in_project(downloads)), os.W_OK | os.X_OK):
        return Finding("data", "fails", f"{downloads} cannot be written", "name another folder")
    found = f"torchvision:{name} is not prepared yet: what torchvision can, it downloads"
    return Finding("data", "note", found, f"put its files into {downloads} if it cannot")


def workers() -> Finding | None:
    """Whether this machine has the workers' cores and GPUs, where no cluster is joined. (Whether
    that has them Ray says as a stage joins.)"""
    if (params := _params()) is None:
        return None
    import torch

    cpus, gpu = params.ray.cpus_per_worker, params.ray.use_gpu
    key, count = _most_workers(params)
    asked = f"{_of(count, 'worker')} of {_of(cpus, 'core')}{' and a GPU' if gpu else ''}"
    asked += " each" if count > 1 else ""
    has = {"GPU": torch.cuda.device_count(), "core": os.cpu_count() or 1}
    needs = {"GPU": count if gpu else 0, "core": count * cpus}
    if cluster_address():  # one worker is the stage's own process, and works here
        needs = {"GPU": int(gpu and params.ray.num_workers == 1), "core": 0}
    short = [kind for kind in needs if needs[kind] > has[kind]]
    if not short:
        return Finding("workers", "good", asked)
    found = f"{asked}, and this machine has {_of(has[short[0]], short[0])}"
    way_out = f"lower {key}, or {CLUSTER}"
    if short[0] == "GPU" and not has["GPU"]:
        way_out = f"set ray.use_gpu to false, or {CLUSTER}"
    elif count == 1:
        way_out = f"lower ray.cpus_per_worker, or {CLUSTER}"
    return Finding("workers", "fails", found, way_out)


def _most_workers(params: Params) -> tuple[str, int]:
    """The param that asks for most workers at once, and how many."""
    trial, classifier = "sweep.workers_per_trial", "cas.workers_per_classifier"
    counts = [
        ("ray.num_workers", params.ray.num_workers),
        (named_by(params, trial), trial_workers(params).count),
        (named_by(params, classifier), workers_per_classifier(params)),
    ]
    return max(counts, key=lambda each: each[1])


def _of(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def room() -> Finding | None:
    """Whether the disk has room for what a run writes, as `maskgit plan` counts it."""
    if (params := _params()) is None:
        return None
    runs = in_project(params.ray.folder)
    if not os.access(_there(runs), os.W_OK | os.X_OK):
        return Finding("room", "fails", f"{runs} cannot be written", "name another folder")
    from pipeline.tools.plan.data import data_size
    from pipeline.tools.plan.networks import plan_networks
    from pipeline.tools.plan.storage import outputs_bytes, plan_storage, runs_bytes

    try:
        size = data_size(params)
    except UserError:
        found = "what a run writes is not known before its stage prepare"
        return Finding("room", "note", found, "maskgit plan --images COUNT --classes COUNT")
    storage = plan_storage(params, size, plan_networks(params, size))
    apart = _there(runs).stat().st_dev != Path.cwd().stat().st_dev
    live, outputs = runs_bytes(storage), outputs_bytes(storage)
    here = 0 if apart else live
    places = [_room(Path.cwd(), outputs + here, 2 * outputs + here)]
    if apart:
        places.append(_room(runs, live, live))
    return max(places, key=lambda each: ("good", "note", "fails").index(each.state))


def _room(folder: Path, least: int, most: int) -> Finding:
    """Whether a disk has room for so many bytes, the least where DVC's cache shares blocks with
    outputs. Of a run that was begun some are there already; what is too much for the whole disk
    never fits."""
    disk = shutil.disk_usage(_there(folder))
    found = f"a whole run writes about {most / GB:,.1f} GB in {folder}, besides the images; "
    found += f"{disk.free / GB:,.1f} GB are free"
    if most <= disk.free:
        return Finding("room", "good", found)
    way_out = "make room, or name another disk (`maskgit plan`: what each stage writes)"
    return Finding("room", "fails" if least > disk.total else "note", found, way_out)


def _there(folder: Path) -> Path:
    """The nearest folder above that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _params() -> Params | None:
    """None where there are none, or none that are valid, which is found of the params."""
    try:
        return load_params() if PARAMS_FILE.exists() else None
    except (UserError, OSError):
        return None
