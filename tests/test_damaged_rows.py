"""Rows that a killed run has kept are looked at before they become results, though whole."""

import json
import math
from pathlib import Path

import pytest
import torch

from pipeline.config.replicates import main_replicates
from pipeline.data.images.samples import SPLIT, keep_if_all_written
from pipeline.data.images.shards import MANIFEST
from pipeline.experiments.ablation.trial import Cell, Trial
from pipeline.experiments.cas import CasJob
from pipeline.experiments.reject import _kept
from pipeline.experiments.speed import kept_speed_rows, speed_rows
from pipeline.runtime.checksums import write_noted
from pipeline.runtime.errors import UserError
from pipeline.runtime.kept import kept_row
from pipeline.training.loop import Workers
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.job import TransformerRecipe, transformer_job
from tests.errors import one_line

KEPT = {"class_accuracy": 1.0, "samples": 8, "fid_classifier": 2.5, "is_classifier": 1.5}
IMPOSSIBLE = [
    {"class_accuracy": 7.0},
    {"samples": 0.5},
    {"fid_classifier": -1},
    {"is_classifier": "x"},
]


@pytest.fixture
def replicate(params):
    return main_replicates(params, "transformer")[0]


def selected(**other: object) -> list[dict]:
    own = {"network": "transformer", "seed": 0, "acceptance": 0.8, "candidates": 10} | KEPT
    return [own | {"selection": selection} | other for selection in ("rejection", "random")]


FOREIGN = [
    *(None, 5, "text", [], {}, [1, 2], [[]], [{}], {"rows": []}),
    *(selected()[:1], selected() + selected(), selected()[::-1], [selected()[0], None]),
    *(selected(**odd) for odd in IMPOSSIBLE),
    *(
        selected(class_accuracy=None),
        selected(network="foo"),
        selected(seed=99),
        selected(seed=False),
        selected(acceptance=0.1),
    ),
    [{k: v for k, v in row.items() if k != "fid_classifier"} for row in selected()],
]


@pytest.mark.parametrize("value", FOREIGN, ids=json.dumps)
def test_rows_of_a_selection(tmp_path, replicate, value):
    cell = tmp_path / "0.8.json"
    write_noted(cell, value)
    with pytest.raises(UserError, match=r"0\.8\.json is damaged.*delete it") as error:
        _kept(cell, replicate, 0.8, "classifier")
    one_line(error)


@pytest.mark.parametrize("value", [selected(), selected(fid_classifier=None)], ids=json.dumps)
def test_whole_rows_of_a_selection(tmp_path, replicate, value):
    write_noted(tmp_path / "0.8.json", value)
    assert _kept(tmp_path / "0.8.json", replicate, 0.8, "classifier") == value


def test_a_row_that_says_what_the_stage_says_itself(tmp_path):
    write_noted(tmp_path / "4.5.json", KEPT)
    assert kept_row(tmp_path / "4.5.json", needed=KEPT, absent=("seed",)) == KEPT
    write_noted(tmp_path / "4.5.json", KEPT | {"seed": 5})
    with pytest.raises(UserError, match=r"4\.5\.json is damaged"):
        kept_row(tmp_path / "4.5.json", needed=KEPT, absent=("seed",))


def test_rows_of_times(tmp_path, params):
    params = params.model_copy(update={"speed": params.speed.model_copy(update={"repeats": 1})})
    cell, cpu = tmp_path / "cpu-1-2.json", torch.device("cpu")
    rows = speed_rows(params, 2, 3, cpu)
    write_noted(cell, rows)
    assert kept_speed_rows(cell, params, 2, cpu) == rows
    for odd in ({"tokens": 9}, {"method": "x"}, {"low": 0}, {"low": None}, {"device": "x"}):
        write_noted(cell, [rows[0] | odd, *rows[1:]])
        with pytest.raises(UserError, match=r"cpu-1-2\.json is damaged.*delete it"):
            kept_speed_rows(cell, params, 2, cpu)


OWN = {"schedule": "cosine", "seed": 1, "iterations": 4, "nll": None} | KEPT
OWN |= dict.fromkeys(("train_seconds", "decode_seconds", "seconds"), 0.5)
NO_ROWS = [None, 5, [], {}, [OWN], {"seed": 1}, *(OWN | odd for odd in IMPOSSIBLE)]
NO_ROWS += [
    OWN | odd for odd in ({"nll": "x"}, {"nll": math.nan}, {"iterations": "4"}, {"nll": []})
]
OTHERS = [OWN | other for other in ({"schedule": "linear"}, {"seed": 7}, {"iterations": 8})]


def trial(folder: Path) -> Trial:
    params: dict = {"training": {"mask_schedule": "cosine"}}
    params["evaluation"], cell = {"extractor": "classifier"}, Cell("cosine", 4, str(folder))
    alone = Workers(1, 1, False, 0)
    return Trial(1, [cell], [cell], str(folder), None, alone, params, str(folder), str(folder))


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
    [
        *(5, None, [], ["x"], [{}], [STEP | {"loss": "x"}], [STEP, STEP | {"val_nll": math.inf}]),
        *([STEP | {"step": None}], [STEP | {"step": 1e30}], [STEP | {"step": 10**30}]),
        *([STEP | {"val_nll": None}], [STEP | {"loss": 10**400}], [STEP, STEP]),
    ],
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


FOREIGN_CAS = [{"top1": "x"}, {"top5": math.nan}, {"top1": -3}, {"top1": None}]
FOREIGN_CAS += [{"images": "x"}, {"seed": 1}]


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


def names(*files: object) -> dict:
    return {"shards": {SPLIT: [{"file": file} for file in files]}}


NO_SHARDS = [{}, [], {"shards": None}, names(5), names(), names(""), names(".")]


@pytest.mark.parametrize("value", NO_SHARDS)
def test_a_manifest_of_samples_that_names_no_shards_is_made_again(tmp_path, capsys, value):
    write_noted(tmp_path / MANIFEST, value)
    assert not keep_if_all_written(tmp_path)
    assert "made again" in capsys.readouterr().out and not (tmp_path / MANIFEST).exists()


def test_a_manifest_of_samples_that_names_other_files_removes_none_of_them(tmp_path, capsys):
    folder, others = tmp_path / "project" / "samples", tmp_path / "others"
    for place in (folder, others):
        place.mkdir(parents=True)
    (others / "mine.txt").write_text("mine")
    for name in (str(others), "../../others", "../../others/mine.txt", str(others / "mine.txt")):
        write_noted(folder / MANIFEST, names("samples-00000.parquet", name))
        assert not keep_if_all_written(folder)
        assert "names other files" in capsys.readouterr().out
    assert (others / "mine.txt").read_text() == "mine"
