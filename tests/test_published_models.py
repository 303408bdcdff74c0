"""Published models that do not fit their own config, each other, or the params: one line each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import MaskGIT
from pipeline.config.paths import CLASSIFIER, TOKENIZER
from pipeline.data.tokens import TokenCache
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, write_json
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights import published
from pipeline.weights.published import MODELS, load_model, save_model
from tests.errors import one_line
from tests.pretrained_files import PUBLISHED
from tests.tiny_project import CLASSES, CODES
from tests.transformer_task import transformer_task

TRANSFORMER = Path("models/transformer/main/seed0")


@pytest.fixture
def own(project, tmp_path, monkeypatch) -> Path:
    """A copy of the tiny project, as the working directory."""
    folder = shutil.copytree(project, tmp_path / "own")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "folder", "changes"),
    [
        ("tokenizer", TOKENIZER, {"multipliers": [1] * 20_000, "res_blocks": 1024}),
        ("tokenizer", TOKENIZER, {"multipliers": [1] * 12, "res_blocks": 1024}),
        ("tokenizer", TOKENIZER, {"multipliers": []}),
        ("tokenizer", TOKENIZER, {"channels": 2}),
        ("transformer", TRANSFORMER, {"heads": 3}),
        ("transformer", TRANSFORMER, {"dropout": 1}),
        ("transformer", TRANSFORMER, {"layers": 1024}),
        ("classifier", CLASSIFIER, {"architecture": "large"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_sizes_of_a_network_are_checked_before_it_is_built(own, monkeypatch, kind, folder, changes):
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    config = MODELS[kind][1]
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
}


@pytest.mark.parametrize("name", PAIRS)
def test_networks_of_a_project_fit_each_other_and_its_params(own, name):
    change, line = PAIRS[name]
    change()
    with pytest.raises(UserError, match=f"{line}.*dvc repro") as error:
        MaskGIT.from_pretrained(own, device="cpu")
    assert str(own) in one_line(error)


def test_networks_of_a_saved_model_fit_each_other(own):
    saved = MaskGIT.from_pretrained(own, device="cpu").save_pretrained(own / "saved")
    transformer(saved / "transformer", tokens=64)
    tokenizer(saved / "tokenizer", multipliers=(1,) * 12)
    with pytest.raises(UserError, match=r"16384 pixels a side.*save or download it again"):
        MaskGIT.from_pretrained(saved, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"layers": None},
        {"layers": 1024, "hidden": 2**16, "mlp": 2**16},  # tens of terabytes
        {"hidden": 1e300},
        {"heads": "two"},
        {"surprise": 1},
        {"kind": "tokenizer"},
    ],
    ids=str,
)
def test_a_config_that_builds_no_such_network_is_one_line(tmp_path, change):
    save_model(tmp_path, "transformer", PUBLISHED, MaskGitTransformer(PUBLISHED).state_dict())
    config = read_json(tmp_path / "config.json") | change
    config = {key: value for key, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"dvc repro|delete it and run again") as error:
        load_model(tmp_path, "transformer")
    one_line(error)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"x" * 100])
def test_a_model_that_is_missing_or_damaged_is_one_line(tmp_path, name, content):
    save_model(tmp_path, "transformer", PUBLISHED, MaskGitTransformer(PUBLISHED).state_dict())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="dvc repro") as error:
        load_model(tmp_path, "transformer")
    assert str(tmp_path) in one_line(error)


def test_tokens_of_other_params_are_refused(tokens_dir, tiny, make_params):
    transformer_task(tiny(), tokens_dir)
    for change in ({"codebook_size": 8}, {"multipliers": [1, 1]}):
        values = {"codebook_size": 16} | change
        params = make_params(
            tokenizer=values, transformer={"layers": 1, "hidden": 16, "heads": 2, "mlp": 16}
        )
        with pytest.raises(UserError, match=r"49 tokens.*16 codes.*params\.yaml") as error:
            transformer_task(params, tokens_dir)
        one_line(error)


def test_tokens_that_cannot_be_read_name_their_stage(tokens_dir):
    (tokens_dir / "val-labels.npy").write_bytes(b"x")
    with pytest.raises(UserError, match="dvc repro cache_tokens") as error:
        TokenCache(tokens_dir, "val")
    one_line(error)
