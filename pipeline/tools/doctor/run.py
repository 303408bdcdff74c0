"""What the params ask for, where they are valid: a data set, devices and room on the disk."""

import contextlib
import inspect
import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES
from pipeline.config.trainings import named_by, workers_per_classifier, workers_per_trial
from pipeline.data.images.shards import MANIFEST, read_manifest
from pipeline.prepare.datasets import FOLDERS, open_source
from pipeline.runtime.cluster import cluster_address
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import in_project
from pipeline.tools.doctor.finding import GB, WRITTEN, Finding, State

CLUSTER = "run on a cluster (docs/cluster.md)"


def data() -> Finding | None:
    """Whether the data set is there; of a folder, whether the stage prepare would take it."""
    if (params := _params()) is None:
        return None
    source = params.data.source
    if _prepared() == source:
        return Finding("data", "good", f"{source}, prepared in {IMAGES}")
    kind, _, argument = source.partition(":")
    if kind == "torchvision":
        return _torchvision(argument, params.data.download_dir)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # lines of what it passes over
        opened = open_source(source, params.data.download_dir, params.data.image_size)
    count = len(opened.class_names)
    found = f"{len(opened.items):,} images of {count:,} class{'es' if count > 1 else ''}"
    lines = said.getvalue().splitlines()
    return Finding("data", "note" if lines else "good", found, "; ".join(lines))


def _prepared() -> str | None:
    """The source of the images that are prepared."""
    if not (IMAGES / MANIFEST).exists():
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
    found = f"torchvision:{name} is downloaded into {downloads} where it is not there"
    return Finding("data", "note", found, "put its files there if this machine cannot download")


def workers() -> Finding | None:
    """Whether this machine has the workers' cores and GPUs, where no cluster is joined. (Whether
    that has them Ray says as a stage joins.)"""
    if (params := _params()) is None:
        return None
    import torch
    from ray._private.utils import get_num_cpus  # a container's, where that has fewer

    cpus, gpu = params.ray.cpus_per_worker, params.ray.use_gpu
    key, count = _most_workers(params)
    asked = f"{_of(count, 'worker')} of {_of(cpus, 'core')}{' and a GPU' if gpu else ''}"
    asked += " each" if count > 1 else ""
    has = {"GPU": torch.cuda.device_count(), "core": int(get_num_cpus(True))}
    needs = {"GPU": count if gpu else 0, "core": count * cpus}
    if cluster_address():
        needs["core"] = 0
        if params.ray.num_workers > 1:  # a stage's own process may do without
            needs["GPU"] = 0
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
        (named_by(params, trial), workers_per_trial(params)),
        (named_by(params, classifier), workers_per_classifier(params)),
    ]
    return max(counts, key=lambda each: each[1])


def _of(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def room() -> Finding | None:
    """Whether the disk has room for what a run writes, as `maskgit plan` counts it."""
    if (params := _params()) is None:
        return None
    runs = Path(in_project(params.ray.folder))
    for folder in (runs, Path(in_project(params.data.download_dir))):
        if not os.access(_there(folder), os.W_OK | os.X_OK):
            return Finding("room", "fails", f"{folder} cannot be written", "name another folder")
    from pipeline.tools.plan.data import data_size
    from pipeline.tools.plan.networks import plan_networks
    from pipeline.tools.plan.storage import outputs_bytes, plan_storage, runs_bytes

    try:
        size = data_size(params)
    except UserError:  # before its data set is prepared
        found = "not known before the stage prepare (but see `maskgit plan --images --classes`)"
        return Finding("room", "good", found)
    storage = plan_storage(params, size, plan_networks(params, size))
    apart = _there(runs).stat().st_dev != Path.cwd().stat().st_dev
    live, outputs = runs_bytes(storage), outputs_bytes(storage)
    here = 0 if apart else live
    places = [_room(Path.cwd(), outputs + here, 2 * outputs + here, map(Path, WRITTEN))]
    if apart:
        places.append(_room(runs, live, live, [runs]))
    return max(places, key=lambda each: ("good", "note", "fails").index(each.state))


def _room(folder: Path, least: int, most: int, written: Iterable[Path]) -> Finding:
    """Whether a disk has room for so many bytes: the least where DVC's cache shares blocks with
    outputs; less what is written already."""
    free = shutil.disk_usage(_there(folder)).free
    found = f"a whole run writes about {most / GB:,.1f} GB in {folder}, besides the images; "
    found += f"{free / GB:,.1f} GB are free"
    if most <= free:
        return Finding("room", "good", found)
    there = sum(map(_size, written))
    if most <= free + there:
        return Finding("room", "good", f"{found}, and {there / GB:,.1f} GB are written")
    state: State = "fails" if least > free + there else "note"
    return Finding("room", state, found, "make room (`maskgit plan`: what each stage writes)")


def _size(folder: Path) -> int:
    """Bytes of all files in it."""
    places = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in places)


def _there(folder: Path) -> Path:
    """The nearest folder above that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _params() -> Params | None:
    """None where there are none, or none that are valid, which is found of the params."""
    try:
        return load_params() if PARAMS_FILE.exists() else None
    except (UserError, OSError):
        return None
