"""If a param names a missing file, the run stops before its first stage."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.paths import check_files
from pipeline.runtime.dag import FILE_PARAMS
from tests.errors import refused
from tests.params import changed, write_params
from tests.project import ROOT


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(key: str, stage: str = "prepare", path: str = "no.bin", **extractors: str) -> None:
    section, name = key.split(".")
    changes = {section: {name: path} | extractors}
    write_params(Path(), **changes)
    check_files(changed(changes), stage)


@pytest.mark.parametrize("key", FILE_PARAMS)
def test_it_is_refused_by_prepare_and_by_the_stages_that_read_it(key, project):
    used = {"extractor": "inception", "second_extractor": "vgg"}
    extractors = used if key.startswith("evaluation.") else {}
    for stage in ("prepare", "evaluate" if extractors else "train_transformer"):
        other_inputs = ("tokenizer.pretrained", "classifier.pretrained")
        if stage != "train_transformer" or key not in other_inputs:  # it reads tokens
            with refused(key):
                check(key, stage, **extractors)
    with refused(key, match="is not a file"):
        check(key, path=str(project), **extractors)
    (project / "no.bin").touch()
    check(key, **extractors)


def test_a_stage_that_does_not_need_it_runs_without():
    check("tokenizer.pretrained", "train_transformer")
    check("evaluation.reference_statistics", "cas")
