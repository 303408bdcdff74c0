"""The machine: Python, packages, device, memory and disk."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

from pipeline.runtime.errors import one_line
from pipeline.runtime.process import cores
from pipeline.tools.doctor.finding import GB, GIB, WRITTEN, Finding

MEMORY = 4  # GiB that the default preset takes
DISK = 0.2  # GB that the preset smoke takes, with what it logs


def python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", "good", found)


def packages() -> Finding:
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


def torch() -> Finding:
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


def _threads() -> str:
    """How many cores there are, and threads where OMP_NUM_THREADS or the system allow others."""
    there, used = os.cpu_count() or 1, cores()
    found = f"{there} core{'s' if there > 1 else ''}"
    return found if used == there else f"{used} thread{'s' if used > 1 else ''} on {found}"


def memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / GIB
    if free < MEMORY:
        way_out = "end other programs, or take `maskgit preset smoke`"
        return Finding(
            "memory", "note", f"{free:.1f} GiB free; the default takes {MEMORY}", way_out
        )
    return Finding("memory", "good", f"{free:.1f} GiB free")


def disk() -> Finding:
    free = shutil.disk_usage(".").free / GB
    for folder in (Path.cwd(), *map(Path, WRITTEN)):  # of another user's run, perhaps
        if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return Finding("disk", "fails", f"{folder} cannot be written", "change its permissions")
    found = f"{free:,.1f} GB free in {Path.cwd()}"
    if free < DISK:
        return Finding("disk", "fails", found, f"make room: the smallest preset takes {DISK} GB")
    return Finding("disk", "good", found)
