"""In a copy of the project, which DVC makes of what git and DVC know (`dvc exp run --temp`), params
still lead to files that neither knows, and features are the project's own."""

from pathlib import Path

import pytest

from pipeline.evaluation.feature_files import features_folder
from pipeline.prepare.datasets import open_source
from pipeline.runtime.project import in_copy
from tests.images import noise_image
from tests.tiny_project import with_params


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """The working directory; the project is `project` beside it."""
    for name in ("project", "copy"):
        (tmp_path / name / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_file_that_the_copy_lacks_is_the_projects(copy):
    project = copy.parent / "project"
    for folder, names in ((project, ("both", "one")), (copy, ("both",))):
        for name in names:
            (folder / name).write_text(folder.name)
    assert in_copy("both").read_text() == "copy"
    assert in_copy("one").read_text() == "project"
    assert in_copy("none") == Path("none")  # is named as the params name it
    assert in_copy(str(project / "one")) == project / "one"


def test_pictures_and_features_are_the_projects(copy):
    project = copy.parent / "project"
    for seed, name in enumerate("ab"):
        folder = project / "pictures" / name
        folder.mkdir(parents=True)
        noise_image(8, 8, seed=seed).save(folder / "0.png")
    assert open_source("folder:pictures", "data/raw", 8).class_names == ["a", "b"]
    assert features_folder(with_params()) == project / "runs/features"
