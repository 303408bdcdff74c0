"""Small files that hold gigabytes, and folders that are not there: one line each."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.images.shards import SCHEMA, ImageShards
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash, write_json
from pipeline.runtime.result_files import read_csv
from tests.errors import one_line
from tests.project import ROOT


def shards(folder: Path, rows: int, **how) -> ImageShards:
    """Of pictures that are a million zeros each."""
    columns = {"key": ["k"] * rows, "label": [0] * rows, "image": [bytes(2**20)] * rows}
    pq.write_table(pa.table(columns, schema=SCHEMA), folder / "a.parquet", **how)
    entry = {"file": "a.parquet", "count": rows, "hash": file_hash(folder / "a.parquet")}
    manifest = {"class_names": ["a"], "counts": {"val": {"a": rows}}, "shards": {"val": [entry]}}
    write_json(folder / "manifest.json", manifest)
    return ImageShards(folder, "val")


def test_a_compressed_shard_is_not_unpacked(tmp_path):
    assert shards(tmp_path, 3, compression="none").read(0)[1] == bytes(2**20)
    packed = shards(tmp_path, 20, compression="zstd", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size < 2**16
    with pytest.raises(UserError, match=r"a\.parquet is damaged \(it is compressed\); run") as e:
        packed.read(0)
    one_line(e)


def test_a_shard_of_no_images_alone_is_one_line(tmp_path):
    with pytest.raises(UserError, match="there are none; run `dvc repro prepare`") as error:
        shards(tmp_path, 0, compression="none")
    one_line(error)


@pytest.mark.parametrize(
    "text",
    [
        b"," * (2**24 - 2) + b"\n",
        b"a,b\n1,2\n" + b"3," * 2**22 + b"4\n",
        b"a,b\r" + b"3," * 2**22 + b"4\r",
        ",".join(f"c{i}" for i in range(10**6)).encode() + b"\n",
    ],
    ids=["commas", "a row", "old Mac", "names"],
)
def test_a_table_of_a_million_columns_is_not_parsed(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"has a line of more than 1,000 columns; ") as error:
        read_csv(path)
    one_line(error)
    path.write_bytes(b",".join(b"c%d" % i for i in range(1000)) + b"\n")
    assert len(read_csv(path).columns) == 1000


def test_a_damaged_tail_of_another_kind_warns_of_nothing(tmp_path, recwarn):
    (tmp_path / "rows.csv").write_text("a\n" + "1\n" * 2**20 + "x\n" * 10)
    assert len(read_csv(tmp_path / "rows.csv")) == 2**20 + 10
    assert not recwarn.list


@pytest.mark.parametrize("module", ["pipeline", "stages.schedules", "analysis"])
def test_a_folder_whose_name_is_not_utf_8_is_one_line(tmp_path, module):
    folder = os.fsencode(tmp_path) + b"/pr\xff"
    os.mkdir(folder)
    command = (sys.executable, "-m", module, "params")
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)
    line = "error: the current folder's path is not UTF-8; rename the folder"
    assert ended.returncode == 1 and ended.stderr.startswith(line)
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["pipeline", "stages.schedules", "analysis"])
def test_a_deleted_folder_is_one_line(tmp_path, module):
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone && rmdir ../gone && exec {sys.executable} -m {module} params"
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    given.pop("DVC_ROOT", None)
    ended = subprocess.run(["bash", "-c", script], env=given, capture_output=True, text=True)
    assert ended.returncode == 1
    line = "error: the current folder cannot be read (No such file or directory); cd to the project"
    assert ended.stderr.startswith(line) and ended.stderr.count("\n") == 1
