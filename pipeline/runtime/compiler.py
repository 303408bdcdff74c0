"""What `torch.compile` takes from the machine beside PyTorch."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from pipeline.runtime.errors import UserError


def require_compiler(gpu: bool) -> None:
    """Find out before anything is trained: `torch.compile` builds at its first step, on CPUs its
    kernels, for GPUs what launches them.

    Raises:
        UserError: there is no compiler, or Python's headers are missing.
    """
    kind, names = "C", ["gcc", "clang"]
    if not gpu:
        kind, names = "C++", ["clang++" if sys.platform == "darwin" else "g++"]
    named = os.environ.get("CC" if gpu else "CXX")
    names = names if named is None else [named]
    if not any(map(shutil.which, names)):
        lacking = f"a {kind} compiler: {' or '.join(names)} is no command here"
    elif sys.platform == "linux" and not Path(sysconfig.get_path("include"), "Python.h").exists():
        lacking = f"Python's headers: {sysconfig.get_path('include')} has no Python.h"
    else:
        return
    raise UserError(
        f"training.compile: torch.compile needs {lacking}; install it (Debian: apt install "
        f"{'gcc' if gpu else 'g++'} libc6-dev python3-dev), or set training.compile to false"
    )
