"""Hostile result files: arrays that promise what they do not hold, tables that were cut, and what
`maskgit summary` says of them. Nothing is written then."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits.inputs.results import read_results
from analysis.report.build import build
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import RESULT_ARRAYS
from pipeline.tools import summary as tool
from tests.errors import one_line
from tests.params import make_params
from tests.synthetic_results import analyse, curves_of, write_source

GRID, NEAR = "evaluation/class_grid.npz", "evaluation/neighbours.npz"
REBUILT, EDITS, DECODING = (
    "reconstruction/pictures.npz",
    "editing/pictures.npz",
    "evaluation/decoding.npz",
)


def refuse(results: Path, name: str, what: str = "") -> None:
    with pytest.raises(UserError, match=f"{name}.*{what}.*`dvc repro [a-z]+`$") as error:
        read_results(results, curves_of(results))
    one_line(error)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(b ^ 0x5A for b in content[middle : middle + 40])
    path.write_bytes(content)


def compressed_and_flipped(path: Path) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **arrays)
    flipped(path)


def one_array(path: Path) -> None:
    with path.open("wb") as out:
        np.save(out, np.zeros(3))


def unknown_method(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        place = -1
        while (place := content.find(magic, place + 1)) >= 0:
            content[place + offset : place + offset + 2] = b"\x63\0"
    path.write_bytes(content)


def promising(shape: tuple[int, ...], written: int, dtype: str = "|u1"):
    """Replaces class_grid's `transformer` by a member with a header of that shape, and so many
    zeros, packed."""

    def damage(path: Path) -> None:
        with np.load(path) as file:
            arrays = {k: v for k, v in file.items() if k != "transformer"}
        np.savez(path, **arrays)
        header = io.BytesIO()
        head = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, head)
        with (
            zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("transformer.npy", "w", force_zip64=True) as out,
        ):
            out.write(header.getvalue())
            for _ in range(0, written, 2**24):
                out.write(bytes(min(2**24, written)))

    return damage


def objects(path: Path) -> None:
    np.savez(path, class_names=np.array([{}], dtype=object))


BYTES = {
    "flipped bytes": flipped,
    "flipped bytes, packed": compressed_and_flipped,
    "an array in its place": one_array,
    "an unknown method": unknown_method,
    "a header of 1e15 bytes": promising((10**5, 10**4, 10**6, 1, 1), 3),
    "a header of 8 GB": promising((8 * 10**9, 1, 1, 1, 1), 3),
    "more than fits": promising((1, 1, 1, RESULT_ARRAYS, 1), RESULT_ARRAYS),
    "objects": objects,
}


@pytest.mark.parametrize("damage", BYTES.values(), ids=BYTES)
def test_an_archive_that_is_damaged_is_named_before_it_is_unpacked(results, damage):
    damage(results / GRID)
    refuse(results, GRID)


VALUES = [
    (GRID, "transformer", lambda a: a[..., :1].astype(float) * np.nan),
    (GRID, "transformer", lambda a: np.full(a.shape, "x")),
    (GRID, "transformer", lambda a: np.zeros((2, 2, 7, 9, 9), np.uint8)),
    (GRID, "class_names", lambda a: a[:2]),
    (DECODING, "masked", lambda a: np.zeros((3, 1, 2, 2), bool)),
    (DECODING, "masked", lambda a: a * np.nan),
    (NEAR, "distance", lambda a: a * np.nan),
    (NEAR, "distance", lambda a: -a),
    (NEAR, "distance", lambda a: a[:1, :1]),
    (NEAR, "nearest", lambda a: a[:1]),
    (REBUILT, "hidden", lambda a: a[:1]),
    (REBUILT, "hidden", lambda a: a * np.nan),
    (REBUILT, "inputs", lambda a: a.astype(np.int64) * 10**15),
    (EDITS, "class_edit_labels", lambda a: a[:1]),
]


@pytest.mark.parametrize(("name", "array", "change"), VALUES)
def test_an_array_of_another_kind_shape_or_range_is_named(results, name, array, change):
    with np.load(results / name) as file:
        arrays = dict(file)
    np.savez(results / name, **arrays | {array: change(arrays[array])})
    refuse(results, name)


def test_a_record_is_read_before_anything_is_written(results, params, tmp_path):
    write_source(results, "cas", seconds="long")
    with pytest.raises(UserError, match=r"cas\.json is damaged in seconds.*`dvc repro cas`"):
        analyse(results, tmp_path / "out", params)
    assert not (tmp_path / "out").exists()


def test_rows_that_the_params_of_the_run_ask_for_are_missed(results):
    asked = {
        "sweep.schedules": ["linear", "cosine"],
        "sweep.iterations": [4, 8],
        "sweep.seeds": [0, 2],
    }
    write_source(results, "sweep", params=asked)
    read_results(results, curves_of(results))
    rows = pd.read_csv(results / "sweep/rows.csv")
    gone = (rows["schedule"] == "cosine") & (rows["iterations"] == 8) & (rows["seed"] == 2)
    rows[~gone].to_csv(results / "sweep/rows.csv", index=False)
    refuse(results, "sweep/rows.csv", "no row of schedule cosine, iterations 8, seed 2")


def test_a_failure_while_drawing_leaves_the_old_report_whole(
    results, params, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    for name in ("tables/table1.csv", "figures/old.png", "report.html"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("old")
    before = sorted(path for path in out.rglob("*"))
    monkeypatch.setattr("analysis.report.build._make", broken)
    with pytest.raises(ZeroDivisionError):
        build(results, curves_of(results), out, params)
    assert sorted(out.rglob("*")) == before and not (results / "metrics.json").exists()
    assert all(path.read_text() == "old" for path in before if path.is_file())


def broken(folder: Path, *_) -> None:
    (folder / "tables").mkdir()
    (folder / "tables/table1.csv").write_text("new")
    raise ZeroDivisionError


@pytest.fixture
def project(results, tmp_path, monkeypatch) -> Path:
    """The working directory is a project with the results, which no record judges."""
    params = make_params(sweep={"iterations": [4, 8, 16]})
    (tmp_path / "params.yaml").write_text(params.model_dump_json())
    rows = pd.read_csv(results / "evaluation/rows.csv")
    rows.assign(rfid_classifier=0.5).to_csv(results / "evaluation/rows.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert "PSNR 18.8 dB" in tool.summary() and "best" not in tool.summary_values()
    return results


def without(**words: str | int):
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[~np.logical_and.reduce([rows[k] == v for k, v in words.items()])]

    return change


TABLES = [
    ("cas/rows.csv", "no column", lambda rows: rows.drop(columns="top1")),
    ("cas/rows.csv", "no way", without(augmentation="randaugment")),
    ("cas/rows.csv", "no row", lambda rows: rows[:0]),
    ("evaluation/rows.csv", "none rebuilt", without(images="reconstruction")),
    ("evaluation/rows.csv", "no network", without(images="transformer")),
    ("evaluation/rows.csv", "no seed", without(images="transformer", seed=1)),
    ("evaluation/rows.csv", "text", lambda rows: rows.assign(fid_classifier="oops")),
    ("evaluation/rows.csv", "3", lambda rows: rows.assign(class_accuracy=3.0)),
    ("sweep/rows.csv", "none", lambda rows: rows.assign(fid_classifier=np.nan)),
    ("sweep/rows.csv", "half", lambda rows: rows[: len(rows) // 2]),
    ("sweep/rows.csv", "text", lambda rows: rows.assign(fid_classifier="x")),
]


@pytest.mark.parametrize(("name", "what", "change"), TABLES)
def test_the_summary_names_a_damaged_table(project, name, what, change):
    path = project / name
    rows = pd.read_csv(path, keep_default_na=False, na_values=[""])
    change(rows).to_csv(path, index=False)
    with pytest.raises(UserError, match=rf"^results/{name} .*`dvc repro`$") as error:
        tool.summary()
    one_line(error)


@pytest.mark.parametrize("how", ["empty", "binary", "folder", "fifo", "device"])
def test_the_summary_reads_nothing_but_files(project, how):
    path = project / "cas/rows.csv"
    path.unlink()
    if how in ("empty", "binary"):
        path.write_bytes(b"" if how == "empty" else bytes(range(256)) * 9)
    elif how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for tell in (tool.summary, tool.summary_values):
        with pytest.raises(UserError, match=r"^results/cas/rows.csv .*`dvc repro`$"):
            tell()


@pytest.mark.parametrize("value", ["x", None, 0, "missing", [1]])
@pytest.mark.parametrize(("name", "key"), [("tokenizer", "psnr"), ("prepare", "classes")])
def test_the_summary_names_a_damaged_metric(project, name, key, value):
    path = project / f"{name}/metrics.json"
    values = json.loads(path.read_text()) | {key: value}
    if value == "missing":
        del values[key]
    path.write_text(json.dumps([1] if value == [1] else values))
    with pytest.raises(UserError, match=rf"^results/{name}/metrics.json .*`dvc repro`$"):
        tool.summary()


JSON = {
    "rows twice": lambda rows: pd.concat([rows, rows]),
    "text": lambda rows: rows.assign(fid_classifier="oops"),
    "no column": lambda rows: rows.drop(columns="images"),
    "seeds of text": lambda rows: rows.assign(seed="x"),
    "infinite": lambda rows: rows.assign(fid_classifier=np.inf),
}


@pytest.mark.parametrize("change", JSON.values(), ids=JSON)
def test_the_summary_as_json_names_a_damaged_table(project, change):
    path = project / "evaluation/rows.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"^results/evaluation/rows.csv .*`dvc repro`$"):
        tool.summary_values()
