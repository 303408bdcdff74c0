"""`maskgit doctor`: checks whether this machine and folder are ready for a run."""

import contextlib
import io
import os
import platform
import shutil
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pipeline.config.params import Params, load_params
from pipeline.config.paths import IMAGES
from pipeline.runtime.dag import DVC_FILE, read_stages
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import read_json
from pipeline.runtime.project import in_project
from pipeline.runtime.ray_cluster import cluster_address, why_no_cluster, why_unreachable
from pipeline.runtime.secrets import redacted, server_of


class Finding(NamedTuple):
    subject: str
    state: str  # "good", "note" (a run still works), or "fails" (a run would stop)
    found: str
    way_out: str = ""


def examine() -> list[Finding]:
    """Run all checks, in the order in which a new user would meet problems."""
    run = (ray, tracking) if find_spec("ray") else ()  # without Ray, an install only draws samples
    found = [_one(check) for check in (packages, device, *run, project)]
    if DVC_FILE.exists():
        found.append(_one(params))
        if found[-1].state != "fails":
            found += [_one(check, load_params()) for check in (data, workers, disk)]
    return found


def _one(check: Callable[..., Finding], *given: Params) -> Finding:
    try:
        return check(*given)
    except UserError as error:
        found, _, way_out = str(error).partition("; ")
    except Exception as error:  # a broken installation raises nearly anything
        found = f"{type(error).__name__}: {error}"
        way_out = "check permissions, or install the package again"
    return Finding(check.__name__, "fails", found, way_out)


def findings_text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<6} {finding.subject:<10} {one_line(finding.found)}")
        if finding.way_out:
            lines.append(f"{'':<17} → {one_line(finding.way_out)}")
    failing = sum(finding.state == "fails" for finding in findings)
    closing = f"{failing} of {len(findings)} checks fail: a run would stop" if failing else "ready"
    return "\n".join([*lines, closing])


def packages() -> Finding:
    """Check that the packages that `maskgit-pipeline` requires are installed. In a project, also
    check the packages that its extra `pipeline` requires."""
    from packaging.requirements import Requirement

    wrong, extras = [], ("", "pipeline") if DVC_FILE.exists() else ("",)
    for text in metadata.requires("maskgit-pipeline") or ():
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in extras):
            with contextlib.suppress(metadata.PackageNotFoundError):
                if wanted.specifier.contains(metadata.version(wanted.name), prereleases=True):
                    continue
            wrong.append(text.partition(";")[0].strip())
    if wrong:
        way_out = "run `pip install 'maskgit-pipeline[pipeline]'`, or `make env` in a clone"
        return Finding("packages", "fails", f"not installed: {', '.join(wrong)}", way_out)
    return Finding("packages", "good", f"Python {platform.python_version()}, all requirements met")


def device() -> Finding:
    import torch

    from pipeline.runtime.precision import choice

    found, gpus = f"PyTorch {torch.__version__}; {os.cpu_count()} cores", torch.cuda.device_count()
    if gpus:
        return Finding("device", "good", f"{found}; {gpus} × {torch.cuda.get_device_name(0)}")
    if shutil.which("nvidia-smi"):
        way_out = "install PyTorch for the GPU's CUDA version (pytorch.org), or use the CPU"
        return Finding("device", "note", f"{found}; PyTorch does not see the GPU", way_out)
    return Finding("device", "good", f"{found}; {choice()}")


def ray() -> Finding:
    found, address = f"Ray {metadata.version('ray')}", cluster_address()
    if reason := why_no_cluster(address):
        way_out = "start the cluster, or unset RAY_ADDRESS to run on this machine"
        return Finding("ray", "fails", f"{found}; RAY_ADDRESS {address}: {reason}", way_out)
    return Finding("ray", "good", f"{found}; {address or 'each stage starts Ray on this machine'}")


def tracking() -> Finding:
    from pipeline.runtime.mlflow_sync import tracking_uri

    uri = tracking_uri()
    found, server = f"MLflow {metadata.version('mlflow')}; {redacted(uri)}", server_of(uri)
    if uri.startswith("http") and server is None:
        way_out = "set MLFLOW_TRACKING_URI to a URL such as http://host:5000"
        return Finding("tracking", "note", f"{found} is not a valid address", way_out)
    if server and (reason := why_unreachable(*server)):
        way_out = "runs continue and store their logs; `maskgit sync` sends the logs later"
        return Finding("tracking", "note", f"{found}: {reason}", way_out)
    return Finding("tracking", "good", found)


def project() -> Finding:
    if not DVC_FILE.exists():
        way_out = "to run stages, work in a clone of the project; `sample --model` works anywhere"
        return Finding("project", "note", f"{Path.cwd()} has no project", way_out)
    read_stages()  # raises if dvc.yaml is damaged
    missing = {
        ".dvc": ("fails", "dvc init (--no-scm without git)"),
        ".git": ("note", "git init && git add -A && git commit, so that results name their commit"),
    }
    for name, (state, way_out) in missing.items():
        if not Path(name).exists():
            return Finding("project", state, f"{name} is missing", way_out)
    return Finding("project", "good", str(Path.cwd()))


def params() -> Finding:
    params = load_params()
    return Finding("params", "good", f"preset {params.preset}, data {params.data.source}")


def data(params: Params) -> Finding:
    """Check that the data set exists; list the files that the stage `prepare` would skip."""
    source, manifest = params.data.source, IMAGES / "manifest.json"
    if manifest.exists() and read_json(manifest).get("source") == source:
        return Finding("data", "good", f"{source}, prepared in {IMAGES}")
    if source.startswith("torchvision:"):
        way_out = f"without a network, put the files into {params.data.download_dir}"
        return Finding("data", "note", f"the stage prepare downloads {source}", way_out)
    from pipeline.prepare.datasets import open_source

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        opened = open_source(source, params.data.download_dir, params.stored_side)
    found = f"{len(opened.items):,} images of {len(opened.class_names):,} classes"
    skipped = said.getvalue().splitlines()
    return Finding("data", "note" if skipped else "good", "; ".join([found, *skipped]))


def workers(params: Params) -> Finding:
    """Check that this machine has enough cores and GPUs for the workers. (If RAY_ADDRESS names a
    cluster, each stage checks the cluster instead.)"""
    import torch

    count, each = params.ray.num_workers, params.ray.cpus_per_worker
    has = {"GPUs": torch.cuda.device_count(), "cores": os.cpu_count() or 1}
    needs = {"GPUs": count * params.ray.use_gpu, "cores": count * each}
    found = ", ".join(f"{needs[kind]} of {has[kind]} {kind}" for kind in has)
    if not cluster_address() and any(has[kind] < needs[kind] for kind in has):
        way_out = "lower ray.num_workers or ray.cpus_per_worker, set ray.use_gpu to false, "
        way_out += "or set RAY_ADDRESS to run on a cluster"
        return Finding("workers", "fails", f"a run needs {found}", way_out)
    return Finding("workers", "good", f"a run uses {found}")


def disk(params: Params) -> Finding:
    """Check that the disks of the project and of `ray.storage_path` have room for a run."""
    from pipeline.tools.plan import Plan, data_size

    try:
        need = Plan(params, data_size(params)).disk_bytes()
    except UserError:
        return Finding("disk", "note", "the size of a run is unknown before the stage prepare")
    free = []
    for folder in (Path.cwd(), in_project(params.ray.folder)):
        there = next(place for place in (folder, *folder.parents) if place.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError(str(there), "cannot be written", "change its permissions")
        free.append(shutil.disk_usage(there).free)
    found = f"a whole run writes about {need / 1e9:,.1f} GB; {min(free) / 1e9:,.1f} GB are free"
    if min(free) < need:
        way_out = "free disk space, or set ray.storage_path to a folder on another disk"
        return Finding("disk", "note", found, way_out)
    return Finding("disk", "good", found)
