"""A copy of the project that tests run like a user's clone."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import SystemRandom

import psutil
from ruamel.yaml import YAML

from pipeline.runtime.files import read_yaml

ROOT = Path(__file__).parents[1]
# Ray's workers let other processes go first, so that a test beside them would starve them.
FAIR = {"RAY_worker_niceness": "0"}
# Outputs that hold times, which no second run repeats.
TIMED = (
    *("results/sources", "results/speed"),
    *("analysis/timings", "analysis/sources", "analysis/figures", "analysis/report.html"),
)


def free_port() -> int:
    """Return a free loopback port for a server that starts seconds later. It is below 32768,
    because systems give higher ports to connections, which could take it by then."""
    for port in iter(lambda: SystemRandom().randrange(20_000, 32_768), None):  # never seeded
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


# A password, concatenated so that no test file holds it.
SECRET = "-".join(("tr0ub", "4dor"))


def files_with_secret(*folders: Path) -> list[Path]:
    """Return the files in the folders that hold the password."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10 * len(folders)
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def trained(log: str) -> set[str]:
    """Return the names of the networks that a log says were trained."""
    return set(re.findall(r"(\S+) \d+/\d+  (?:loss|reconstruction) ", log))


class Project:
    """A folder with the project's files, in which tests run commands."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "RAY_"))}
        self.env |= FAIR | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # The environment's own `pipeline` is the checkout's; this copy comes first.
            "PYTHONPATH": str(folder),
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@t",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@t",
        }
        self.env.pop("MLFLOW_TRACKING_URI", None)
        # DVC must not see bytecode, and lines must not be buffered.
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
            self.env.pop(name, None)

    @classmethod
    def clone(cls, folder: Path) -> "Project":
        """Copy the checkout's files to `folder`, and commit them in a new git repository there."""
        listed = subprocess.run(
            ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        (folder / "dvc.lock").unlink(missing_ok=True)
        project = cls(folder)
        for command in ("git init -q", "git add -A", "git commit -q -m clone"):
            project.run(*command.split())
        return project

    def record_params(self, folder: Path) -> None:
        """Make each stage that DVC runs here write the params that it reads to `<folder>/<stage>`,
        one per line."""
        config = self.folder / "pipeline/config"
        shutil.copy2(ROOT / "tests/recording.py", config / "recording.py")
        with open(config / "params.py", "a") as code:
            code.write("\n\nfrom pipeline.config.recording import record\nrecord(Params)\n")
        folder.mkdir()
        self.env["PARAMS_READ"] = str(folder)

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def run(self, *command: str, ok: bool | None = True, timeout: int = 900, **env: str) -> str:
        """Run a command to its end; return its stdout and stderr. A wrong exit code fails the test,
        unless `ok` is None."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        said = f"{command}: {result.returncode}\n{result.stdout}"
        assert ok is None or (result.returncode == 0) == ok, said
        return result.stdout

    def start(self, *command: str, log: Path) -> subprocess.Popen:
        """Start a command in its own process group; its output goes to the log."""
        with open(log, "w") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stage(self, name: str, **kwargs) -> str:
        return self.run("python", "-m", "stages", name, **kwargs)

    def set(self, **values) -> None:
        """Change params by dotted key (dots written as `__`), as a user edits params.yaml."""
        yaml, path = YAML(), self.folder / "params.yaml"
        document = yaml.load(path)
        for key, value in values.items():
            *parents, last = key.split("__")
            section = document
            for parent in parents:
                section = section[parent]
            section[last] = value
        yaml.dump(document, path)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that occurs once in a file."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file}: {old}"
        path.write_text(text.replace(old, new))

    def repro(self, *targets: str) -> tuple[list[str], str]:
        """Run `dvc repro`; return the stages that ran and the output."""
        log = self.run("dvc", "repro", *targets)
        return re.findall(r"Running stage '(\w+)'", log), log

    def outputs(self) -> dict[str, str]:
        """Return DVC's hash of each output without times."""
        stages = read_yaml(self.folder / "dvc.lock")["stages"].values()
        entries = [out for stage in stages for out in stage["outs"]]
        return {e["path"]: e["md5"] for e in entries if not e["path"].startswith(TIMED)}

    def kill_stage_when(self, name: str, ready, *, by_dvc: bool = False) -> None:
        """Start a stage, and SIGKILL it as soon as `ready()` is true. With `by_dvc`, start DVC
        instead and kill it with all of its child processes."""
        log = self.folder / f"{name}.killed.log"
        command = ("dvc", "repro", name) if by_dvc else ("python", "-m", "stages", name)
        process = self.start(*command, log=log)
        deadline = time.monotonic() + 240
        while not ready():
            assert process.poll() is None, f"{name} ended before it was killed:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{name} was not ready in time:\n{log.read_text()}"
            time.sleep(0.02)
        if by_dvc:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()

    def processes(self) -> list[psutil.Process]:
        """Return the processes that work in this folder: DVC, a stage and all of its Ray."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
        return found

    def all_ended(self) -> bool:
        """Whether all processes in this folder end within about a minute, in which Ray's agents
        notice a kill."""
        deadline = time.monotonic() + 90
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return not left
