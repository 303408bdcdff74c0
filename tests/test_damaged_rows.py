"""Rows that a killed run has kept are looked at before they become results, though whole."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.images.samples import SPLIT, keep_if_all_written
from pipeline.data.images.shards import MANIFEST
from pipeline.evaluation.images import mapped_images
from pipeline.experiments.ablation.trial import Cell, Trial
from pipeline.experiments.cas import CasJob
from pipeline.experiments.reject import KEYS, _kept
from pipeline.runtime.checksums import write_noted
from pipeline.runtime.errors import UserError
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.job import TransformerRecipe, transformer_job
from tests.errors import one_line

ROW = dict.fromkeys((*KEYS, "class_accuracy"), 1)
FOREIGN = [
    None,
    5,
    "text",
    [],
    {},
    [1, 2],
    [[]],
    [{}],
    {"rows": []},
    [ROW, None],
    [ROW, {"seed": 1}],
]


@pytest.mark.parametrize("value", FOREIGN, ids=json.dumps)
def test_rows_of_a_selection(tmp_path, value):
    cell = tmp_path / "0.8.json"
    write_noted(cell, value)
    with pytest.raises(UserError, match=r"0\.8\.json is damaged.*delete it") as error:
        _kept(cell)
    one_line(error)


def test_whole_rows_of_a_selection(tmp_path):
    write_noted(tmp_path / "0.8.json", [ROW, ROW])
    assert _kept(tmp_path / "0.8.json") == [ROW, ROW]


OWN = {"schedule": "cosine", "seed": 1, "iterations": 4, "fid": 1.0, "nll": None}
NO_ROWS = [None, 5, [], {}, [ROW], {"seed": 1}]
NO_ROWS += [
    OWN | odd for odd in ({"fid": "x"}, {"fid": math.nan}, {"iterations": "4"}, {"nll": []})
]
OTHERS = [OWN | other for other in ({"schedule": "linear"}, {"seed": 7}, {"iterations": 8})]


def trial(folder: Path) -> Trial:
    params, cell = {"training": {"mask_schedule": "cosine"}}, Cell("cosine", 4, str(folder))
    return Trial(1, [cell], [cell], str(folder), None, params, str(folder), str(folder))


@pytest.mark.parametrize("value", NO_ROWS + OTHERS, ids=json.dumps)
@pytest.mark.parametrize("part", ["row", "timing"])
def test_a_cell_of_something_else(tmp_path, part, value):
    one = trial(tmp_path)
    write_noted(one.cells[0].path, {"row": OWN, "timing": OWN} | {part: value})
    with pytest.raises(UserError, match=r"T0004\.json is damaged.*delete it") as error:
        one.rows(), one.timings()
    one_line(error)


def test_a_whole_cell(tmp_path):
    one = trial(tmp_path)
    write_noted(one.cells[0].path, {"row": OWN, "timing": OWN})
    assert one.rows() == one.timings() == [OWN] and one.history() == []
    assert one.crossing() == [{"schedule": "cosine", "decoding_schedule": "cosine"} | OWN]


STEP = {"step": 5, "loss": 1.5, "val_nll": 2.0}


@pytest.mark.parametrize(
    "value",
    [5, None, [], ["x"], [{}], [STEP | {"loss": "x"}], [STEP, STEP | {"val_nll": math.inf}]],
)
def test_a_history_of_something_else(tmp_path, params, value):
    recipe = TransformerRecipe(TransformerTask, params.model_dump(), "tokens", 3, 0)
    job = transformer_job(
        params, recipe, network="transformer", name="main", folder=tmp_path, workers=1
    )
    write_noted(job.trained, {"history": [STEP], "seconds": 1})
    assert job.history == [STEP]
    write_noted(job.trained, {"history": value, "seconds": 1})
    with pytest.raises(UserError, match=r"training\.json is damaged: it has no history; delete"):
        job.history  # noqa: B018


NEEDED = ("top1", "top5", "training_images")
CAS = {"images": "real", "augmentation": "none", "seed": 0} | dict.fromkeys(NEEDED, 1)


def cas_row(folder: Path) -> object:
    return CasJob("real", "none", 0, {}, str(folder), "images", "samples", "classifier").row()


FOREIGN_CAS = [{"top1": "x"}, {"top5": math.nan}, {"top1": None}, {"images": "x"}, {"seed": 1}]


@pytest.mark.parametrize(
    "value", [None, 5, [], {}, *(CAS | odd for odd in FOREIGN_CAS)], ids=json.dumps
)
def test_a_result_of_another_classifier(tmp_path, value):
    write_noted(tmp_path / "result.json", CAS)
    assert cas_row(tmp_path) == CAS
    write_noted(tmp_path / "result.json", value)
    with pytest.raises(UserError, match=r"result\.json is damaged.*delete it, run again") as error:
        cas_row(tmp_path)
    one_line(error)


@pytest.mark.parametrize(
    "value", [np.zeros((3, 1)), np.zeros((3, 1, 4, 4)), np.zeros((0, 1, 4, 4), np.uint8)], ids=str
)
def test_an_array_of_no_images(tmp_path, value):
    np.save(tmp_path / "a.npy", value)
    with pytest.raises(UserError, match=r"a\.npy is damaged: it holds .*delete it, run again"):
        mapped_images(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(b"no array" * 99)
    with pytest.raises(UserError, match=r"a\.npy is damaged .*delete it, run again"):
        mapped_images(tmp_path / "a.npy")


@pytest.mark.parametrize("value", [{}, [], {"shards": None}, {"shards": {SPLIT: [{"file": 5}]}}])
def test_a_manifest_of_samples_that_names_no_shards_is_made_again(tmp_path, capsys, value):
    write_noted(tmp_path / MANIFEST, value)
    assert not keep_if_all_written(tmp_path)
    assert "made again" in capsys.readouterr().out and not (tmp_path / MANIFEST).exists()
