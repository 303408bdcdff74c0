"""Hostile models and caches whose hashes fit: one line each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import MaskGIT
from pipeline.config.paths import CLASSIFIER, IMAGES, TOKENIZER
from pipeline.data.images.png import encode_png
from pipeline.data.images.samples import SPLIT, open_samples
from pipeline.data.images.shards import ROW_GROUP, SCHEMA, ImageShards
from pipeline.data.images.views import View
from pipeline.data.tokens import TokenCache
from pipeline.runtime.checksums import note_hash
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash, read_json, write_json
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.tokens import write_manifest
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights import published
from pipeline.weights.published import load_model, save_model
from tests.damage import no_file
from tests.errors import one_line
from tests.images import noise_image
from tests.tiny_project import CLASSES, CODES, with_params

TRANSFORMER = Path("models/transformer/main/seed0")


@pytest.fixture
def own(project, tmp_path, monkeypatch) -> Path:
    """A copy of the tiny project, as the working directory."""
    folder = shutil.copytree(project, tmp_path / "own")
    monkeypatch.chdir(folder)
    return folder


def told(path: Path, **changes) -> None:
    """Change a JSON file, and the hash that is noted of it."""
    path.write_text(json.dumps(read_json(path) | changes))
    note_hash(path)


@pytest.mark.parametrize(
    ("kind", "folder", "changes"),
    [
        ("tokenizer", TOKENIZER, {"multipliers": [1] * 1_000_000}),
        ("tokenizer", TOKENIZER, {"multipliers": [1] * 20_000, "res_blocks": 1024}),
        ("tokenizer", TOKENIZER, {"multipliers": [1] * 12, "res_blocks": 1024}),
        ("tokenizer", TOKENIZER, {"multipliers": []}),
        ("tokenizer", TOKENIZER, {"filters": 48}),
        ("tokenizer", TOKENIZER, {"channels": 2}),
        ("tokenizer", TOKENIZER, {"codebook_size": 1}),
        ("transformer", TRANSFORMER, {"heads": 3}),
        ("transformer", TRANSFORMER, {"dropout": 1.5}),
        ("transformer", TRANSFORMER, {"dropout": 1}),
        ("transformer", TRANSFORMER, {"layers": 1024}),
        ("classifier", CLASSIFIER, {"architecture": "large"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_sizes_of_a_network_are_within_the_bounds_of_params(
    own, monkeypatch, kind, folder, changes
):
    """And are looked at first: within them too a network may take 13 seconds to build."""
    told(folder / "config.json", **changes)
    config = published.MODELS[kind][1]
    monkeypatch.setitem(published.MODELS, kind, (lambda *_: pytest.fail("was built"), config))
    with pytest.raises(UserError, match=r"config\.json: .*dvc repro") as error:
        load_model(folder, kind)
    assert str(folder) in one_line(error)


def transformer(folder: Path, tokens: int = 16, codes: int = CODES, classes: int = CLASSES) -> None:
    config = TransformerConfig(tokens, codes, classes, 1, 16, 2, 16, 0.1)
    save_model(folder, "transformer", config, MaskGitTransformer(config).state_dict())


def tokenizer(folder: Path, channels: int = 1, multipliers: tuple[int, ...] = (1, 1)) -> None:
    config = TokenizerConfig(channels, 32, multipliers, 1, 8, CODES)
    save_model(folder, "tokenizer", config, Tokenizer(config).state_dict())


PAIRS: dict[str, tuple[Callable[[], None], str]] = {
    "15 tokens": (lambda: transformer(TRANSFORMER, tokens=15), "15 tokens .* no square"),
    "25 tokens": (lambda: transformer(TRANSFORMER, tokens=25), r"25 tokens .* asks for 16"),
    "64 codes": (lambda: transformer(TRANSFORMER, codes=64), "codebooks of 11 and 64"),
    "10 classes": (lambda: transformer(TRANSFORMER, classes=10), "names 3 classes, .* has 10"),
    "colours": (lambda: tokenizer(TOKENIZER, channels=3), r"3 channels, .* asks for 1"),
    "a level": (lambda: tokenizer(TOKENIZER, multipliers=(1, 1, 1)), "4 pixels a token"),
    "no names": (lambda: told(IMAGES / "manifest.json", class_names=10), "no list of names"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_networks_of_a_project_fit_each_other_and_its_params(own, name):
    change, line = PAIRS[name]
    change()
    with pytest.raises(UserError, match=f"{line}.*dvc repro") as error:
        MaskGIT.from_pretrained(own, device="cpu")
    assert str(own) in one_line(error)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda f: transformer(f / "transformer", tokens=15), "15 tokens .* no square"),
        (
            lambda f: (
                transformer(f / "transformer", tokens=64),
                tokenizer(f / "tokenizer", multipliers=(1,) * 12),
            ),
            "16384 pixels a side, more than the limit",
        ),
    ],
    ids=["no square", "side"],
)
def test_networks_of_a_saved_model_fit_each_other(own, change, line):
    saved = MaskGIT.from_pretrained(own, device="cpu").save_pretrained(own / "saved")
    change(saved)
    with pytest.raises(UserError, match=f"{line}.*save or download it again") as error:
        MaskGIT.from_pretrained(saved, device="cpu")
    assert str(saved) in one_line(error)


def label(folder: Path, split: str, value: int, classes: int | None) -> None:
    """Give the first image of a split another label."""
    labels = np.load(folder / f"{split}-labels.npy").astype(np.int32)
    labels[0] = value
    np.save(folder / f"{split}-labels.npy", labels)
    note_hash(folder / f"{split}-labels.npy")
    if classes is not None:
        write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"classes": 3})


@pytest.mark.parametrize("classes", [3, None], ids=["of 3 classes", "older"])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("value", [4, 12, 5_000_000, 2**31 - 1])
def test_labels_of_tokens_are_of_classes(tokens_dir, split, value, classes):
    label(tokens_dir, split, value, classes)
    with pytest.raises(UserError, match=rf"{value}.*dvc repro cache_tokens") as error:
        TokenCache(tokens_dir, split)
    assert str(tokens_dir) in one_line(error)


def test_the_number_of_classes_is_that_of_the_images(tokens_dir, make_params):
    assert TokenCache(tokens_dir, "val").num_classes == 3  # older: that of train
    shards = read_json(tokens_dir / "manifest.json")["shards"]
    params = make_params(data={"image_size": 28}, tokenizer={"codebook_size": 16})
    for split in shards:
        note_hash(tokens_dir / f"{split}-labels.npy")
    write_manifest(tokens_dir, params, "of the tokenizer", shards, classes=7)
    assert [TokenCache(tokens_dir, split).num_classes for split in shards] == [7, 7]


@pytest.mark.parametrize("classes", [0, -1, 10**7, "3", None, 3.0, True])
def test_a_number_of_classes_that_is_none_is_one_line(tokens_dir, classes):
    told(tokens_dir / "manifest.json", classes=classes)
    with pytest.raises(UserError, match=r"classes.*dvc repro cache_tokens") as error:
        TokenCache(tokens_dir, "train")
    one_line(error)


@pytest.mark.parametrize("shape", [(6, 0, 49), (6, 2, 0)], ids=str)
def test_a_shard_of_no_tokens_is_one_line(tokens_dir, shape):
    path = tokens_dir / "val-00000.npy"
    np.save(path, np.zeros(shape, np.uint16))
    np.save(tokens_dir / "val-labels.npy", np.zeros(shape[0], np.int32))
    manifest = read_json(tokens_dir / "manifest.json")
    manifest["shards"]["val"] = [{"file": path.name, "count": shape[0], "hash": file_hash(path)}]
    write_json(tokens_dir / "manifest.json", {k: v for k, v in manifest.items() if k != "grid"})
    with pytest.raises(UserError, match="dvc repro cache_tokens") as error:
        TokenCache(tokens_dir, "val").everything()
    one_line(error)


def test_a_shard_of_no_images_beside_others_is_one_line(tokens_dir):
    path = tokens_dir / "train-00001.npy"
    manifest = read_json(tokens_dir / "manifest.json")
    first = np.load(tokens_dir / manifest["shards"]["train"][0]["file"])
    np.save(path, first[:0])
    entry = {"file": path.name, "count": 0, "hash": file_hash(path)}
    manifest["shards"]["train"].append(entry)
    write_json(tokens_dir / "manifest.json", manifest)
    with pytest.raises(UserError, match=f"no image in {path.name}.*cache_tokens") as error:
        TokenCache(tokens_dir, "train")
    one_line(error)


def huge() -> bytes:
    """A PNG's header of 60,000 × 60,000 pixels."""
    content = bytearray(encode_png(noise_image(8, 8, "L")))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


BAD_PICTURES = {
    "null": None,
    "empty": b"",
    "text": b"a picture, perhaps",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "huge": huge(),
}


def put(path: Path, row: int, column: str, value) -> None:
    """Change a value in a shard, and the hashes of it."""
    table = pq.read_table(path).to_pydict()
    table[column][row] = value
    plain = pa.table(table, schema=SCHEMA)
    pq.write_table(plain, path, row_group_size=ROW_GROUP, compression="none")
    note_hash(path)
    manifest = read_json(path.parent / "manifest.json")
    for shard in (s for of in manifest["shards"].values() for s in of if s["file"] == path.name):
        shard["hash"] = file_hash(path)
    told(path.parent / "manifest.json", **manifest)


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_picture_is_named_by_its_shard_and_row(own, kind):
    put(IMAGES / "train-00001.parquet", 3, "image", BAD_PICTURES[kind])
    view = View(ImageShards(IMAGES, "train"), with_params().data)
    for read in (view.centers, lambda chosen: view.crops(chosen, 0)):
        with pytest.raises(
            UserError, match=r"train-00001\.parquet.*\brow 3 .*dvc repro prepare"
        ) as error:
            read([53])  # 50 are in the first shard
        one_line(error)


def test_a_bad_picture_of_a_sample_is_made_again_by_another_stage(own):
    (folder,) = {p.parent for p in own.glob("**/transformer/**/seed0/samples-00000.parquet")}
    put(folder / "samples-00000.parquet", 2, "image", b"")
    view = View(open_samples(folder), with_params().data)
    with pytest.raises(UserError, match=rf"{SPLIT}-00000.*row 2 .*dvc repro evaluate") as error:
        view.centers([2])
    one_line(error)


def test_a_picture_without_a_key_is_refused(own):
    put(IMAGES / "train-00000.parquet", 7, "key", None)
    with pytest.raises(UserError, match=r"train-00000\.parquet.*row 7 has no key.*prepare"):
        ImageShards(IMAGES, "train").read(0)


@pytest.mark.parametrize(
    "names",
    [10, None, "abc", {"a": 0, "b": 1, "c": 2}, [1, 2, 3], ["class0", "class0", "class2"], []],
    ids=str,
)
def test_class_names_that_are_none_are_refused(own, names):
    told(IMAGES / "manifest.json", class_names=names)
    with pytest.raises(UserError, match=r"manifest\.json.*class_names.*dvc repro prepare") as error:
        ImageShards(IMAGES, "train")
    one_line(error)


def test_a_name_of_two_classes_is_one_where_the_manifest_was_written_so(own):
    """torchvision's ImageNet has two cranes."""
    names, shown = ["crane", "crane", "maillot"], ImageShards(IMAGES, "train").class_names
    counts = {
        split: {"crane": of[shown[0]] + of[shown[1]], "maillot": of[shown[2]]}
        for split, of in read_json(IMAGES / "manifest.json")["counts"].items()
    }
    told(IMAGES / "manifest.json", class_names=names, counts=counts)
    assert ImageShards(IMAGES, "train").class_names == ["crane", "crane", "maillot"]


@pytest.mark.parametrize("digest", [None, "", 7, "0" * 63])
@pytest.mark.parametrize("kind", ["images", "tokens"])
def test_a_shard_without_a_hash_is_refused(own, tokens_dir, kind, digest):
    folder = IMAGES if kind == "images" else tokens_dir
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    manifest = read_json(folder / "manifest.json")
    manifest["shards"]["train"][0]["hash"] = digest
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(UserError, match=r"has no hash.*dvc repro") as error:
        (ImageShards if kind == "images" else TokenCache)(folder, "train")
    assert str(folder) in one_line(error)


@pytest.mark.parametrize("what", ["fifo", "folder", "zero"])
@pytest.mark.parametrize("name", ["parquet", "npy", "labels"])
def test_what_is_no_file_at_a_shards_place_is_made_again_by_its_stage(own, tokens_dir, name, what):
    path = {
        "parquet": IMAGES / "train-00000.parquet",
        "npy": tokens_dir / "train-00001.npy",
        "labels": tokens_dir / "train-labels.npy",
    }[name]
    path.unlink()
    no_file(what, path)
    stage = "prepare" if name == "parquet" else "cache_tokens"
    with pytest.raises(UserError, match=f"{path.name} is no file; run `dvc repro {stage}`"):
        (ImageShards if name == "parquet" else TokenCache)(path.parent, "train")
