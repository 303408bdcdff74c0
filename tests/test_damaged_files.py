"""Shards, samples and weights that were damaged: found, named, and made again where a run can."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.images.shards import ImageShards
from pipeline.data.images.writing import write_manifest, write_shards
from pipeline.data.tokens import TokenCache
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, tree_hash, write_json
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.published import MODELS, load_model, save_model
from tests.damage import DAMAGE, flip, named
from tests.errors import one_line
from tests.pretrained_files import PUBLISHED
from tests.test_shards import FakeSource
from tests.transformer_task import transformer_task


@pytest.fixture
def tokens(tokens_dir) -> Path:
    return tokens_dir


def swap(path: Path) -> None:
    """The same tokens in another order."""
    np.save(path, np.load(path)[::-1])


def short(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def other_grid(path: Path) -> None:
    np.save(path, np.load(path)[:, :, :36])


def other_type(path: Path) -> None:
    np.save(path, np.load(path).astype(np.int64))


@pytest.mark.parametrize("damage", [*DAMAGE, swap, short, other_grid, other_type], **named)
@pytest.mark.parametrize("told", [False, True])
def test_token_shards_are_those_of_the_manifest(tokens, damage, told):
    """By their hash; and where somebody wrote that anew, by their shape."""
    path = tokens / "train-00001.npy"
    damage(path)
    if told:
        if damage in (flip, swap):
            return  # nobody can tell
        manifest = read_json(tokens / "manifest.json")
        manifest["shards"]["train"][1]["hash"] = tree_hash(path)
        write_json(tokens / "manifest.json", manifest)
    with pytest.raises(UserError, match="dvc repro cache_tokens") as error:
        TokenCache(tokens, "train").everything()
    one_line(error)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(3, np.int32),
        np.full(20, -1, np.int32),
        np.zeros((20, 1), np.int32),
        np.zeros(20, np.float32),
        np.array([{}] * 20, dtype=object),
    ],
    ids=["few", "negative", "two axes", "float", "objects"],
)
def test_labels_that_are_none_are_refused(tokens, labels):
    np.save(tokens / "train-labels.npy", labels)
    with pytest.raises(UserError, match="dvc repro cache_tokens") as error:
        TokenCache(tokens, "train")
    one_line(error)


def test_tokens_of_other_params_are_refused(tokens, tiny, make_params):
    transformer_task(tiny(), tokens)
    for change in ({"codebook_size": 8}, {"multipliers": [1, 1]}):
        values = {"codebook_size": 16} | change
        params = make_params(
            tokenizer=values, transformer={"layers": 1, "hidden": 16, "heads": 2, "mlp": 16}
        )
        with pytest.raises(UserError, match=r"49 tokens.*16 codes.*params\.yaml") as error:
            transformer_task(params, tokens)
        one_line(error)


@pytest.mark.parametrize("key", ["shards", "train", "hash", "count", "file"])
def test_a_manifest_without_a_key_is_one_line(tokens, key):
    text = (tokens / "manifest.json").read_text().replace(f'"{key}"', '"x"')
    (tokens / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="damaged") as error:
        TokenCache(tokens, "train")
    one_line(error)


@pytest.fixture
def images(tmp_path) -> Path:
    """Shards of 150 images."""
    folder, source = tmp_path / "images", FakeSource([75, 75])
    split = {"train": list(range(100)), "val": list(range(100, 150))}
    shards = {name: write_shards(source, i, name, 80, folder) for name, i in split.items()}
    write_manifest(folder, source.class_names, "fake", shards)
    return folder


@pytest.mark.parametrize(
    "damage", [*DAMAGE, Path.unlink], ids=["cut", "flip", "zero", "empty", "gone"]
)
def test_image_shards_are_those_of_the_manifest(images, damage):
    damage(images / "train-00000.parquet")
    with pytest.raises(UserError, match="dvc repro prepare") as error:
        ImageShards(images, "train").read(0)
    one_line(error)


def test_labels_of_no_class_are_refused(images):
    manifest = read_json(images / "manifest.json")
    manifest |= {"class_names": ["one"], "counts": {}}
    write_json(images / "manifest.json", manifest)
    with pytest.raises(UserError, match="labels of no class"):
        ImageShards(images, "train")


@pytest.mark.parametrize("damage", DAMAGE, **named)
def test_a_damaged_shard_of_a_killed_run_is_made_again(tmp_path, capsys, damage):
    whole = write_shards(FakeSource([10]), list(range(10)), "train", 4, tmp_path / "whole")
    folder = tmp_path / "killed"
    write_shards(FakeSource([10]), list(range(10)), "train", 4, folder)
    damage(folder / "train-00001.parquet")
    source = FakeSource([10])
    assert write_shards(source, list(range(10)), "train", 4, folder) == whole
    assert sorted(source.was_read) == [4, 5, 6, 7]
    assert "train-00001.parquet is damaged" in capsys.readouterr().out


@pytest.fixture
def model(tmp_path) -> Path:
    network = MaskGitTransformer(PUBLISHED)
    save_model(tmp_path / "model", "transformer", PUBLISHED, network.state_dict())
    return tmp_path / "model"


@pytest.mark.parametrize("damage", DAMAGE, **named)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_published_weights_are_those_that_were_written(model, damage, name):
    load_model(model, "transformer")
    damage(model / name)
    with pytest.raises(UserError, match=r"damaged: its bytes.*dvc repro") as error:
        load_model(model, "transformer")
    assert name in one_line(error)


def test_sums_are_what_sha256sum_reads_and_no_content(model):
    if shutil.which("sha256sum"):
        result = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=model, capture_output=True)
        assert result.returncode == 0 and result.stdout.count(b": OK") == 2
    before = tree_hash(model)
    (model / "SHA256SUMS").unlink()
    assert tree_hash(model) == before
    load_model(model, "transformer")  # as models of older versions are


@pytest.mark.parametrize(
    "change",
    [
        {"layers": None},
        {"layers": 10**9},
        {"layers": 1024, "hidden": 2**16, "mlp": 2**16},  # tens of terabytes
        {"hidden": -4},
        {"hidden": 1e300},
        {"heads": "two"},
        {"surprise": 1},
        {"kind": None},
        {"kind": "tokenizer"},
        {"num_tokens": 5},
    ],
    ids=str,
)
def test_a_config_that_builds_no_such_network_is_one_line(model, change):
    (model / "SHA256SUMS").unlink()
    config = read_json(model / "config.json") | change
    write_json(model / "config.json", {k: v for k, v in config.items() if v is not None})
    with pytest.raises(UserError, match=r"dvc repro|delete it and run again") as error:
        load_model(model, "transformer")
    one_line(error)


@pytest.mark.parametrize("kind", ["transformer", "autoregressive"])
def test_a_network_whose_tokens_fill_no_square_is_refused_wherever_it_is_used(kind, tmp_path):
    config = TransformerConfig(12, 8, 2, layers=1, hidden=8, heads=1, mlp=8, dropout=0.0)
    save_model(tmp_path / "model", kind, config, MODELS[kind][0](config).state_dict())
    with pytest.raises(UserError, match="num_tokens: 12 tokens fill no square") as error:
        load_model(tmp_path / "model", kind)
    one_line(error)


def test_a_list_of_hashes_that_cannot_be_read_hides_nothing_else(model):
    (model / "SHA256SUMS").unlink()
    os.mkfifo(model / "SHA256SUMS")  # opened, it would never end
    load_model(model, "transformer")


@pytest.mark.parametrize("written", ["{} *{}", "{}  {}"])
@pytest.mark.parametrize("spelled", [str.upper, str.lower])
def test_a_list_of_hashes_as_others_write_it_is_looked_at(model, written, spelled):
    name, hashes = "model.safetensors", {}
    for line in (model / "SHA256SUMS").read_text().splitlines():
        digest, file = line.split("  ")
        hashes[file] = digest
    lines = [written.format(spelled(digest), file) for file, digest in hashes.items()]
    (model / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    load_model(model, "transformer")
    (model / name).write_bytes((model / name).read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_model(model, "transformer")
