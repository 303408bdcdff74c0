"""A project whose stage has pushed what it made to a DVC remote on S3."""

import os
from pathlib import Path

import pytest
from dvc.config import Config
from dvc.repo import Repo

from pipeline.runtime.remote import default_remote
from pipeline.tools.submit.remote import push
from tests.project import SECRET

MADE = {"a.bin": b"pixels", "in/b ü.bin": b"x" * 70_000, "empty": b""}
DAG = """
stages:
  prepare: {cmd: cp -r source/images source/table.csv data, outs: [data/images, data/table.csv]}
"""


def configure(**settings: str) -> None:
    """Let the project here have a default remote, with those settings besides what it has."""
    with Config(".dvc").edit("local") as config:
        config["core"] |= {"remote": "store", "no_scm": True}
        config["remote"].setdefault("store", {}).update(settings)


def make_and_push() -> None:
    with Repo() as repo:
        repo.reproduce(force=True)
    push(default_remote())


def pushed_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that has pushed what its stage made to a store; the working directory."""
    (folder / "data").mkdir(parents=True)
    (folder.parent / "runs").mkdir()
    monkeypatch.chdir(folder)
    for name, content in MADE.items():
        path = Path("source/images", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    Path("source/table.csv").write_text("a table\n")
    Path("dvc.yaml").write_text(DAG)
    Repo.init(no_scm=True).close()
    keys = {"access_key_id": "me", "secret_access_key": SECRET}
    endpoint = {"endpointurl": os.environ["AWS_ENDPOINT_URL"]}
    configure(url="s3://store/of/mine", **keys, **endpoint)
    make_and_push()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)  # the remote's settings have them
