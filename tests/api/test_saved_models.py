"""Models that are saved, put on the Hub and opened again; and opened from released files."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from pipeline import MaskGIT
from pipeline.config import presets
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml
from pipeline.runtime.provenance import dvc_hash
from tests.api.hub import hub
from tests.errors import one_line
from tests.release import (
    TOKENIZER_CHECKPOINT,
    TRANSFORMER_CHECKPOINT,
    expected,
    needs_tokenizer,
)

ROWS = """\
images,label_smoothing,seed,fid_x,fid_x_std,fid_infinity_x,class_accuracy,is_x,is_splits
transformer,0.1,0,1.25,0.1,,0.75,,10
transformer,0.1,1,9.5,0.1,9.25,0.5,3.5,10
transformer,0.2,1,8.5,0.1,,0.5,3.5,10
autoregressive,0.1,1,7.5,0.1,,0.5,3.5,10
""".replace("_x", "_classifier")
NOTHING = "had no results of this model"


def description(folder: Path, **changes) -> dict:
    """The config.json of a saved model, after these changes to it."""
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))
    return values


def card_code(folder: Path) -> str:
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def test_a_saved_model_is_the_same_model(project, saved):
    again = MaskGIT.from_pretrained(saved, device="cpu")
    first = MaskGIT.from_pretrained(project, seed=1, device="cpu")
    assert again.classes == first.classes and again.defaults == first.defaults
    assert torch.equal(again.sample(count=6, seed=5), first.sample(count=6, seed=5))
    with pytest.raises(UserError, match="of seed 1 alone"):
        MaskGIT.from_pretrained(saved, seed=0)


def test_it_is_safetensors_and_json_and_text(saved):
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    parts = {f"{d}/{f}" for d in ("tokenizer", "transformer") for f in ("config.json",)}
    parts |= {f"{d}/model.safetensors" for d in ("tokenizer", "transformer")}
    assert names == {"config.json", "README.md", *parts}


def test_it_is_written_over_nothing(project, saved, tmp_path):
    model = MaskGIT.from_pretrained(project, device="cpu")
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").touch()
    for place in (saved, tmp_path / "thesis", tmp_path / "models/tokenizer/m"):
        with pytest.raises(UserError) as error:
            model.save_pretrained(place)
        one_line(error)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]
    assert not (tmp_path / "models").exists()


def test_weights_are_saved_in_float32_and_not_where_they_are_nan(saved, tmp_path):
    model = MaskGIT.from_pretrained(saved, device="cpu")
    model.transformer.bfloat16()
    folder = model.save_pretrained(tmp_path / "half")
    again = MaskGIT.from_pretrained(folder, device="cpu").transformer.state_dict()
    for name, value in model.transformer.state_dict().items():
        assert again[name].dtype == torch.float32 and torch.equal(again[name], value.float())
    with torch.no_grad():
        model.transformer.vocabulary_bias[0] = float("nan")
    with pytest.raises(UserError, match="vocabulary_bias of the transformer holds"):
        model.save_pretrained(tmp_path / "nan")
    assert not (tmp_path / "nan").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "config.json").write_text("{}"), "config.json"),
        (lambda f: (f / "config.json").write_text("nonsense"), "config.json"),
        (lambda f: description(f, format="other"), "format other"),
        (lambda f: description(f, classes=["one"]), "1 names of classes"),
        (lambda f: (f / "transformer/model.safetensors").unlink(), "transformer"),
        (lambda f: (f / "tokenizer/model.safetensors").write_bytes(b"x"), "tokenizer"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer/config.json"),
    ],
)
def test_what_is_damaged_is_one_line(saved, change, words):
    change(saved)
    with pytest.raises(UserError) as error:
        MaskGIT.from_pretrained(saved, device="cpu")
    assert words in one_line(error) and error.value.way_out == "save or download it again"


def test_the_card_has_the_numbers_of_the_runs_own_model(project, tmp_path, monkeypatch):
    folder = shutil.copytree(project, tmp_path / "project")
    stage = {"cmd": "x", "params": ["seed"], "deps": ["models/transformer"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    monkeypatch.chdir(folder)
    Path("results/evaluation").mkdir(parents=True)
    Path("results/evaluation/rows.csv").write_text(ROWS)
    locked = {"path": "models/transformer", "md5": dvc_hash(Path("models/transformer"))}
    seed = {"params.yaml": {"seed": read_yaml(Path("params.yaml"))["seed"]}}
    lock = {"stages": {"evaluate": {"cmd": "x", "deps": [locked], "params": seed}}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))

    def card(model: MaskGIT, name: str) -> str:
        return (model.save_pretrained(tmp_path / name) / "README.md").read_text()

    first = card(MaskGIT.from_pretrained(folder, device="cpu"), "first")
    assert "| fid_classifier | 1.25 |" in first and "is_classifier |" not in first
    second = MaskGIT.from_pretrained(folder, seed=1, device="cpu")
    shown = card(second, "second")
    assert "| fid_infinity_classifier | 9.25 |" in shown and "| is_classifier | 3.5 |" in shown
    assert "_std" not in shown and "is_splits" not in shown
    again = MaskGIT.from_pretrained(tmp_path / "second", device="cpu")
    assert "| fid_classifier | 9.5 |" in card(again, "twice")
    with torch.no_grad():
        for number, model in enumerate((second, again)):
            model.transformer.vocabulary_bias.add_(1)
            assert NOTHING in card(model, f"changed{number}")
    weights = Path("models/transformer/main/seed1")
    shutil.rmtree(weights)
    shutil.copytree("models/transformer/main/seed0", weights)
    assert NOTHING in card(MaskGIT.from_pretrained(folder, seed=1, device="cpu"), "other")


@pytest.mark.slow
def test_the_card_of_a_run_has_the_numbers_of_its_rows(finished, tmp_path):
    finished.run("python", "-m", "pipeline", "save", str(tmp_path / "saved"), "--replicate", "1")
    rows = pd.read_csv(finished.folder / "results/evaluation/rows.csv")
    own = rows[(rows["images"] == "transformer") & (rows["seed"] == 1)].iloc[0]
    card = (tmp_path / "saved/README.md").read_text()
    assert f"| fid_classifier | {own['fid_classifier']:.4g} |" in card
    assert f"| nll | {own['nll']:.4g} |" in card


def test_the_cards_code_runs_for_classes_of_any_name(saved, tmp_path, monkeypatch):
    values = description(saved)
    description(saved, classes=['3" wide\\', *values["classes"][1:]])
    again = MaskGIT.from_pretrained(saved, device="cpu").save_pretrained(tmp_path / 'my "own"')
    texts = {
        node.value
        for node in ast.walk(ast.parse(card_code(again)))
        if isinstance(node, ast.Constant)
    }
    assert {'3" wide\\', str(again)} <= texts
    monkeypatch.chdir(tmp_path)
    exec(card_code(again), {})
    assert (tmp_path / "sample.png").exists()


def test_a_place_without_a_model_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for place in ("nowhere/at/all", tmp_path):
        with pytest.raises(UserError) as error:
            MaskGIT.from_pretrained(place)
        assert error.value.subject == str(place)
        one_line(error)


def run(code: str, tmp_path: Path, endpoint: str) -> subprocess.CompletedProcess:
    """In a process of its own: the client reads its address and its cache's as it is imported."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = (sys.executable, "-c", f"from pipeline import MaskGIT\n{code}")
    return subprocess.run(
        command, env=os.environ | own | paths, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_repository_is_downloaded_without_what_could_be_executed(saved, tmp_path):
    (saved / "pytorch_model.bin").write_bytes(b"a pickle")
    (saved / "handler.py").write_text("raise SystemExit")
    code = "print(MaskGIT.from_pretrained('someone/digits').sample('class1', 2).shape)"
    with hub("someone/digits", saved) as (address, asked):
        done = run(code, tmp_path, address)
        missing = run("MaskGIT.from_pretrained('someone/else')", tmp_path, address)
    assert done.stdout == "torch.Size([2, 1, 8, 8])\n", done.stderr
    assert "config.json" in asked and not {"pytorch_model.bin", "handler.py"} & set(asked)
    assert "UserError: someone/else" in missing.stderr.strip().splitlines()[-1]
    offline = run(code, tmp_path, address)  # which is gone: the cache has it
    assert offline.stdout == done.stdout, offline.stderr
    push = f"MaskGIT.from_pretrained({str(saved)!r}).push_to_hub('me/digits', token='hf_x')"
    away = run(push, tmp_path, "http://127.0.0.1:9").stderr.strip().splitlines()[-1]
    assert "UserError: me/digits: " in away


def test_what_is_pushed_is_what_is_saved(project, monkeypatch):
    from huggingface_hub import HfApi

    seen = {}

    def create_repo(self, repo_id, private, exist_ok):
        seen["private"] = private
        return type("Url", (), {"repo_id": repo_id})

    def upload_folder(self, folder_path, **options):
        seen["card"] = (folder_path / "README.md").read_text()
        seen["model"] = MaskGIT.from_pretrained(folder_path, device="cpu")
        return f"https://huggingface.co/{options['repo_id']}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    model = MaskGIT.from_pretrained(project, device="cpu")
    assert model.push_to_hub("me/digits") == "https://huggingface.co/me/digits"
    assert seen["private"] is True and 'from_pretrained("me/digits")' in seen["card"]
    assert torch.equal(seen["model"].sample(count=3), model.sample(count=3))


TINY = {
    "data": {"image_size": 16, "channels": 3},
    "tokenizer": {"filters": 32, "multipliers": [1, 2, 2], "res_blocks": 2, "embedding_dim": 16},
    "transformer": {"layers": 3, "hidden": 32, "heads": 4, "mlp": 64},
}
TINY["tokenizer"]["codebook_size"] = 64


@needs_tokenizer
def test_released_checkpoints_reconstruct_as_the_authors_code_does(tmp_path, monkeypatch):
    smoke = read_yaml(presets.PRESETS / "smoke.yaml")
    values = smoke | {key: smoke.get(key, {}) | value for key, value in TINY.items()}
    (tmp_path / "tiny.yaml").write_text("# Preset tiny.\n" + yaml.safe_dump(values))
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    files = TOKENIZER_CHECKPOINT, TRANSFORMER_CHECKPOINT
    model = MaskGIT.from_released(*files, preset="tiny", device="cpu")
    theirs = expected()
    images = torch.from_numpy(theirs["image"]).permute(0, 3, 1, 2)
    tokens = model.tokenizer.encode(images)  # theirs are floats, ours are made of bytes
    assert torch.equal(tokens, torch.from_numpy(theirs["indices"]).long())
    rebuilt = torch.from_numpy(theirs["reconstruction"]).permute(0, 3, 1, 2).clamp(0, 1)
    assert (model.decode(tokens) / 255 - rebuilt).abs().max() < 0.5 / 255 + 1e-4
    assert model.sample(3, 2, iterations=4, guidance=0.5).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="classes: 1 names, and the model has 10 classes"):
        MaskGIT.from_released(*files, preset="tiny", classes=["one"])
