"""Hostile inputs, each tried in a process that may take 20 s and 4 GB for one.

`python -m tests.fuzzing KIND SEED` tries all cases of a kind and prints a JSON list of outcomes.
"""

import importlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.project import ROOT

KINDS = ("image_sets",)
SECONDS, BYTES = 20, 4 * 2**30
LONGEST = 700  # characters of a message


class Case(NamedTuple):
    """One input and what it is given to."""

    name: str
    must: str  # "refuse", "accept", or "either" where damage may be harmless
    run: Callable[[Path], object]  # with an empty folder of its own


class Outcome(NamedTuple):
    name: str
    must: str
    got: str  # "refused", "accepted", or what no input may lead to
    message: str

    @property
    def well(self) -> bool:
        wanted = {
            "refuse": ("refused",),
            "accept": ("accepted",),
            "either": ("refused", "accepted"),
        }
        return self.got in wanted[self.must]


class Late(BaseException):
    """Not an Exception, so that no handler takes it for a damaged file."""


def outcomes(kind: str, seed: int) -> list[Outcome]:
    """Of every case of a kind, in a process of its own."""
    command = [sys.executable, "-m", "tests.fuzzing", kind, str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        return [Outcome(kind, "either", f"died with {done.returncode}", done.stderr[-2000:])]
    return [Outcome(*row) for row in json.loads(done.stdout.splitlines()[-1])]


def cases(kind: str, seed: int) -> list[Case]:
    return importlib.import_module(f"tests.fuzz_{kind}").cases(random.Random(f"{kind} {seed}"))


def _try(case: Case) -> Outcome:
    from pipeline.runtime.errors import UserError

    got, message = "accepted", ""
    with tempfile.TemporaryDirectory() as folder:
        signal.alarm(SECONDS)
        try:
            case.run(Path(folder))
        except UserError as error:
            got, message = "refused", str(error)
            if not message.isprintable() or len(message) > LONGEST:
                got = "not one line"
        except Late:
            got = f"took more than {SECONDS} s"
        except MemoryError:
            got = "took more than 4 GB"
        except BaseException as error:
            got, message = f"traceback: {type(error).__name__}", str(error)[:300]
        finally:
            signal.alarm(0)
    return Outcome(case.name, case.must, got, message)


def _late(*args) -> None:
    raise Late


def _used() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    import torch

    torch.set_num_threads(1)
    kind, seed = sys.argv[1], int(sys.argv[2])
    chosen = cases(kind, seed)
    signal.signal(signal.SIGALRM, _late)
    resource.setrlimit(resource.RLIMIT_AS, (_used() + BYTES, resource.RLIM_INFINITY))
    print()
    print(json.dumps([_try(case) for case in chosen]))


if __name__ == "__main__":
    main()
