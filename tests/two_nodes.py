"""Two nodes in this process, each with a disk of its own, and what stands for Ray between them."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.runtime import site as sites
from pipeline.runtime.home import Home, Place, Project
from pipeline.runtime.site import Site


class Cluster:
    """The nodes "home" and "away".

    Args:
        folder, storage: the project's, at home.
        needed: what of the folder every worker needs.
    """

    def __init__(
        self, folder: Path, storage: Path, needed: list[str], monkeypatch: pytest.MonkeyPatch
    ):
        self.calls, self.node = list[str](), "home"
        self._actor, self._monkeypatch = Home(str(folder), str(storage)), monkeypatch
        inputs = tuple(Place(0, name) for name in needed)
        project = Project(str(folder), str(storage), "runs", ("a mark",), "actor", inputs)
        monkeypatch.setitem(sys.modules, "ray", self)
        monkeypatch.setattr(sites, "_sees", lambda project: self.node == "home")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "away"))
        self._sites: dict[str, Site] = {}
        self.at("home", Site(project))

    def at(self, node: str, site: Site | None = None) -> Site | None:
        """This process is on that node now."""
        self.node = node
        if node not in self._sites and site:
            self._sites[node] = site
        sites._opened.cache_clear()
        self._monkeypatch.setattr(sites, "_here", self._sites.get(node))
        return self._sites.get(node)

    def get_actor(self, name: str) -> "Cluster":
        assert name == "actor"
        return self

    def get(self, value: Any) -> Any:
        return value

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> Any:
            self.calls.append(name)
            return getattr(self._actor, name)(*arguments)

        return SimpleNamespace(remote=ask)
