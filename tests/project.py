"""A copy of the project to run for real, as a user's clone would be."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom

ROOT = Path(__file__).parents[1]
# Ray's workers let other processes go first, so that a test beside them would starve them.
FAIR = {"RAY_worker_niceness": "0"}


def free_port() -> int:
    """A port of loopback that is free, for a server that starts seconds later. It is below those
    that systems give to connections (32768 and more): one of those could have taken it by then."""
    for port in iter(lambda: SystemRandom().randrange(20_000, 32_768), None):  # never seeded
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


# A password, put together so that no file of the tests has it.
SECRET = "-".join(("tr0ub", "4dor"))


def files_with_secret(*folders: Path) -> list[Path]:
    """The files below the folders that hold the password."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10 * len(folders)
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def trained(log: str) -> set[str]:
    """What a log says was trained: classifiers, tokenizers, transformers, trials."""
    return set(re.findall(r"(\S+) \d+/\d+  (?:loss|reconstruction) ", log))


class Project:
    """A folder with the project's files in it, and commands run there."""

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
        # Few users set these: DVC must not see bytecode, and lines must come when they are printed.
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
            self.env.pop(name, None)

    @classmethod
    def clone(cls, folder: Path) -> "Project":
        """The checkout's files as they are now, committed in a repository of their own."""
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
        """From now on a stage that DVC runs here notes the params that it reads, in
        `<folder>/<stage>`, a line each."""
        config = self.folder / "pipeline/config"
        shutil.copy2(ROOT / "tests/recording.py", config / "recording.py")
        with open(config / "params.py", "a") as code:
            code.write("\n\nfrom pipeline.config.recording import record\nrecord(Params)\n")
        folder.mkdir()
        self.env["PARAMS_READ"] = str(folder)

    @contextmanager
    def environment_inside(self) -> Iterator[None]:
        """Meanwhile the environment's programs are those of `.venv` in this folder."""
        (link := self.folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        before = self.env["PATH"]
        self.env["PATH"] = f"{link}/bin{os.pathsep}{before}"
        try:
            yield
        finally:
            self.env["PATH"] = before
            link.unlink()

    def copy(self, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def run(self, *command: str, ok: bool = True, timeout: int = 900, **env: str):
        """Run to the end; (exit code, stdout + stderr). Fails the test on a wrong exit code."""
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
        assert (result.returncode == 0) == ok, f"{command}: {result.returncode}\n{result.stdout}"
        return result.stdout

    def stage(self, name: str, **kwargs) -> str:
        return self.run("python", "-m", "stages", name, **kwargs)

    def set(self, **values) -> None:
        """Change params by dotted key (dots written as `__`), as a user edits params.yaml."""
        from ruamel.yaml import YAML

        yaml = YAML()
        path = self.folder / "params.yaml"
        document = yaml.load(path)
        for key, value in values.items():
            *parents, last = key.split("__")
            section = document
            for parent in parents:
                section = section[parent]
            section[last] = value
        yaml.dump(document, path)

    def edit(self, file: str, old: str, new: str) -> None:
        """Change a text that a file holds once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file}: {old}"
        path.write_text(text.replace(old, new))

    def repro(self, *targets: str) -> tuple[list[str], str]:
        """`dvc repro`: the stages that ran, and what was printed."""
        log = self.run("dvc", "repro", *targets)
        return re.findall(r"Running stage '(\w+)'", log), log

    def kill_stage_when(
        self, name: str, ready, timeout: float = 240, *, by_dvc: bool = False
    ) -> str:
        """Start a stage, SIGKILL it as soon as `ready()` is true; what it had printed. `by_dvc`: it
        is DVC that is started and killed, at once with what it has started."""
        log = self.folder / f"{name}.killed.log"
        with open(log, "w") as handle:
            process = subprocess.Popen(
                ("dvc", "repro", name) if by_dvc else ("python", "-m", "stages", name),
                cwd=self.folder,
                env=self.env,
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=by_dvc,
            )
        deadline = time.monotonic() + timeout
        while not ready():
            assert process.poll() is None, f"{name} ended before it was killed:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{name} was not ready in time:\n{log.read_text()}"
            time.sleep(0.02)
        if by_dvc:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        return log.read_text()

    def strays(self) -> list[str]:
        """Command lines of processes that still work in this folder."""
        import psutil

        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.folder):
                    found.append(" ".join(process.cmdline()))
            except (psutil.Error, OSError):
                continue
        return found

    def all_ended(self) -> bool:
        """Whether no process works in this folder any more, or soon: Ray's agents notice a kill
        within about a minute."""
        deadline = time.monotonic() + 90
        while self.strays() and time.monotonic() < deadline:
            time.sleep(1)
        return self.strays() == []
