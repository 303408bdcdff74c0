"""What the params ask for, where they are valid: a data set, devices and room on the disk."""

import os
import shutil
from pathlib import Path

from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES
from pipeline.data.images.shards import MANIFEST, read_manifest
from pipeline.prepare.layout import class_folders, splits
from pipeline.runtime.cluster import cluster_address
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import of_project
from pipeline.tools.doctor.finding import Finding

GB = 10**9


def data() -> Finding | None:
    """Whether the data set is here. Its pictures are for the stage prepare to look at."""
    if (params := _params()) is None:
        return None
    source, downloads = params.data.source, Path(params.data.download_dir)
    if (IMAGES / MANIFEST).exists() and read_manifest(IMAGES).get("source") == source:
        return Finding("data", "good", f"{source}, prepared in {IMAGES}")
    kind, _, argument = source.partition(":")
    if kind == "folder":
        return _folder(of_project(argument))
    if kind == "torchvision" and not of_project(str(downloads)).exists():
        found = f"{source} is downloaded into {downloads}, where torchvision can"
        return Finding("data", "note", found, "put its files there where this machine cannot")
    return Finding("data", "good", source)


def _folder(root: Path) -> Finding:
    try:
        if not root.is_dir():
            way_out = "put the data set there, or give its place as data.source: folder:PATH"
            return Finding("data", "fails", f"there is no folder {root}", way_out)
        first = next(iter(splits(root).values()))
        count = len(class_folders(first))
    except OSError as error:
        raise UserError(f"{root} cannot be read ({error.strerror}); mend it") from error
    if not count:
        return Finding(
            "data", "fails", f"{first} has no class folders", "put each class in its own"
        )
    return Finding("data", "good", f"{count} class{'es' if count > 1 else ''} in {first}")


def workers() -> Finding | None:
    """Whether this machine has the workers' devices, where no cluster is joined that may."""
    if (params := _params()) is None:
        return None
    import torch

    count, cpus, gpus = params.ray.num_workers, params.ray.cpus_per_worker, params.ray.use_gpu
    asked = f"{count} of {cpus} core{'s' if cpus > 1 else ''}{' and a GPU' if gpus else ''}"
    if address := cluster_address():
        return Finding("workers", "good", f"{asked}, for the cluster at {address} to hold")
    has = {"core": os.cpu_count() or 1}
    needs = {"core": count * cpus}
    if gpus:
        has["GPU"], needs["GPU"] = torch.cuda.device_count(), count
    short = [kind for kind in reversed(needs) if needs[kind] > has[kind]]
    if not short:
        return Finding("workers", "good", asked)
    kind = short[0]
    there = f"this machine has {has[kind]} {kind}{'' if has[kind] == 1 else 's'}"
    way_out = "lower ray.num_workers, or run on a cluster (docs/cluster.md)"
    if kind == "GPU" and not has["GPU"]:
        way_out = "set ray.use_gpu to false, or run on a cluster that has them (docs/cluster.md)"
    return Finding("workers", "fails", f"{asked}, and {there}", way_out)


def room() -> Finding | None:
    """Whether the disk has room for all that a run writes, as `maskgit plan` counts it."""
    if (params := _params()) is None:
        return None
    from pipeline.tools.plan.data import data_size
    from pipeline.tools.plan.networks import plan_networks
    from pipeline.tools.plan.storage import disk_bytes, plan_storage

    try:
        size = data_size(params)
    except UserError:  # before its data set is prepared
        found = "not known before the stage prepare (but see `maskgit plan --images --classes`)"
        return Finding("room", "good", found)
    need = disk_bytes(plan_storage(params, size, plan_networks(params, size))) / GB
    free = shutil.disk_usage(".").free / GB
    found = f"a whole run writes about {need:,.1f} GB besides the images; {free:,.1f} GB are free"
    if need > free:
        way_out = "make room, unless it is there already (`maskgit plan`: what each stage writes)"
        return Finding("room", "note", found, way_out)
    return Finding("room", "good", found)


def _params() -> Params | None:
    """None where there are none, or none that are valid, which is found of the params."""
    try:
        return load_params() if PARAMS_FILE.exists() else None
    except UserError:
        return None
