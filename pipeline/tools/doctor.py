"""`maskgit doctor`: is this machine, and this folder, ready for a run?

Each finding is something that was seen to stop or to slow a run, with the way out where it does.
"""

import os
import platform
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.runtime.compiler import require_compiler
from pipeline.runtime.dag import DVC_FILE, PARAMS_FILE, read_stages, stage_outputs
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.process import cores
from pipeline.runtime.project import RUNS
from pipeline.runtime.server import damage_of
from pipeline.runtime.server_errors import HOSTED, fault_of, mend_file
from pipeline.runtime.uris import redacted, server_of, sqlite_file, tracking_uri

State = Literal["good", "note", "fails"]  # a note stops nothing
GIB = 2**30
MEMORY = 4  # GiB that the default preset takes
WRITTEN = (".dvc", RUNS, "data", "models", "results", "analysis")  # folders of a project
DISK = 2  # GiB that it writes, with DVC's cache and what it logs


class Finding(NamedTuple):
    subject: str
    state: State
    found: str
    way_out: str = ""


def examine() -> list[Finding]:
    """Every check, in the order in which a new user meets them."""
    checks = (_python, _packages, _torch, _memory, _disk, _project, _params, _dvc, _ray, _tracking)
    return [_one(check) for check in checks]


def _one(check: Callable[[], Finding]) -> Finding:
    subject = check.__name__.removeprefix("_")
    try:
        return check()
    except UserError as error:
        found, _, way_out = str(error).partition("; ")
        return Finding(subject, "fails", found, way_out)
    except Exception as error:  # a broken installation raises nearly anything
        reason = one_line(f"{type(error).__name__}: {error}")
        way_out = "pip install --force-reinstall of what it names"
        return Finding(subject, "fails", reason, way_out)


def findings_text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<6} {finding.subject:<10} {finding.found}")
        if finding.way_out:
            lines.append(f"{'':<17} → {finding.way_out}")
    failing = sum(finding.state == "fails" for finding in findings)
    closing = f"{failing} of {len(findings)} would stop a run" if failing else "ready"
    return "\n".join([*lines, closing])


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", "good", found)


def _packages() -> Finding:
    """The requirements of the package, against what is installed."""
    from packaging.requirements import Requirement

    wrong = []
    requirements = [Requirement(text) for text in metadata.requires("maskgit-pipeline") or ()]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        return Finding("packages", "fails", one_line("; ".join(wrong)), "pip install -e .")
    return Finding("packages", "good", f"{len(needed)} required, all as they should be")


def _threads() -> str:
    """How many cores there are, and threads where OMP_NUM_THREADS or the system allow others."""
    there, used = os.cpu_count() or 1, cores()
    found = f"{there} core{'s' if there > 1 else ''}"
    return found if used == there else f"{used} thread{'s' if used > 1 else ''} on {found}"


def _torch() -> Finding:
    import torch

    from pipeline.runtime.device import quick_in_bfloat16

    version = f"PyTorch {torch.__version__}"
    quick = quick_in_bfloat16(torch.device("cpu"))
    precision = "" if quick else "; a CPU quicker in float32 than in bfloat16, and so in float32"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        count = torch.cuda.device_count()
        memory = gpu.total_memory / GIB
        found = f"{version}; {count} × {gpu.name}, {memory:.0f} GiB{precision}"
        return Finding("device", "good", found)
    capability = torch.backends.cpu.get_cpu_capability()
    found = f"{version}; CPU ({capability}), {_threads()}{precision}"
    if shutil.which("nvidia-smi"):
        way_out = "install a build of PyTorch for its CUDA (pytorch.org), or go on with the CPU"
        return Finding(
            "device", "note", f"{found}; there is a GPU that PyTorch does not see", way_out
        )
    return Finding("device", "good", found)


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / GIB
    if free < MEMORY:
        way_out = "end other programs, or take `maskgit preset smoke`"
        return Finding(
            "memory", "note", f"{free:.1f} GiB free; the default takes {MEMORY}", way_out
        )
    return Finding("memory", "good", f"{free:.1f} GiB free")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / GIB
    found = f"{free:.1f} GiB free in {Path.cwd()}"
    for folder in (Path.cwd(), *map(Path, WRITTEN)):  # of another user's run, perhaps
        if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return Finding("disk", "fails", f"{folder} cannot be written", "change its permissions")
    if free < DISK:
        return Finding("disk", "fails", found, f"make room: the default writes about {DISK} GiB")
    return Finding("disk", "good", f"{found} (`maskgit plan` says what a run writes)")


def _project() -> Finding:
    if not DVC_FILE.exists():
        found = f"none in {Path.cwd()}: {DVC_FILE} is missing"
        way_out = (
            "models of other places can be used here (--model); a run needs the clone's folder"
        )
        return Finding("project", "note", found, way_out)
    for stage in read_stages():  # which refuses a dvc.yaml that is damaged
        stage_outputs(stage)
    if not Path(".git").exists():
        way_out = "git init && git add -A && git commit, so that results name their commit"
        return Finding("project", "note", "this folder is no git repository", way_out)
    return Finding("project", "good", str(Path.cwd()))


def _params() -> Finding:
    from pipeline.config.named_files import check_files
    from pipeline.config.params import load_params

    if not PARAMS_FILE.exists():
        if not DVC_FILE.exists():
            return Finding("params", "note", "none, where there is no project")
        return Finding("params", "fails", f"{PARAMS_FILE} is missing", "maskgit preset mnist5k")
    try:
        params = load_params()
        if DVC_FILE.exists():
            check_files()
    except UserError as error:
        return Finding("params", "fails", str(error), "mend it, or take a preset: maskgit preset")
    from pipeline.runtime.cluster import cluster_address

    if params.training.compile and not cluster_address():  # else other machines train
        require_compiler(params.ray.use_gpu)
    return Finding("params", "good", f"preset {params.preset}, data {params.data.source}")


def _dvc() -> Finding:
    version = f"DVC {metadata.version('dvc')}"
    if DVC_FILE.exists() and not Path(".dvc").exists():
        return Finding(
            "DVC", "fails", f"{version}; .dvc is missing", "dvc init (--no-scm without git)"
        )
    if shutil.which("dvc") is None:
        way_out = "activate the environment: . .venv/bin/activate"
        return Finding("DVC", "fails", f"{version}; its command is not on the PATH", way_out)
    return Finding("DVC", "good", version)


def _ray() -> Finding:
    from pipeline.runtime.cluster import cluster_address, why_no_cluster

    version, address = f"Ray {metadata.version('ray')}", cluster_address()
    if reason := why_no_cluster(address):
        way_out = "start it (docs: Ray), or unset RAY_ADDRESS to run on this machine"
        return Finding("Ray", "fails", f"{version}; RAY_ADDRESS {address}: {reason}", way_out)
    found = f"{address} answers" if ":" in address else address or "each stage starts its own here"
    return Finding("Ray", "good", f"{version}; {found}")


def _tracking() -> Finding:
    from pipeline.runtime.cluster import why_unreachable

    version, uri = f"MLflow {metadata.version('mlflow')}", tracking_uri()
    if fault := fault_of(uri):
        return Finding("tracking", "note", f"{version}; {redacted(uri)} {fault[0]}", fault[1])
    if (file := sqlite_file(uri)) is not None:
        if not file.absolute().parent.exists():
            found = f"{version}; {redacted(uri)}: its folder is new, a run makes it"
            return Finding("tracking", "note", found, "mend MLFLOW_TRACKING_URI if it is a slip")
        if damage := damage_of(file):
            found = f"{version}; {redacted(uri)}: {damage}"
            return Finding("tracking", "note", found, mend_file(file))
        return Finding("tracking", "good", f"{version}; {redacted(uri)}")
    place = server_of(uri)
    if uri.startswith(HOSTED):
        way_out = "give it the credentials that `databricks configure` asks for, if it lacks them"
        found = f"{version}; {redacted(uri)}: its credentials are not looked at here"
        return Finding("tracking", "note", found, way_out)
    if place is None:
        return Finding("tracking", "good", f"{version}; {redacted(uri)}")
    if reason := why_unreachable(*place):
        found = f"{version}; {redacted(uri)}: {reason}"
        way_out = "runs go on and keep what they log; `maskgit sync` sends it once it answers"
        return Finding("tracking", "note", found, way_out)
    return Finding("tracking", "good", f"{version}; {redacted(uri)} answers")
