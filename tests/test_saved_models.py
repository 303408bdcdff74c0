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
from pipeline.api.saving import require_free
from pipeline.config import presets
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.files import read_yaml, write_json
from pipeline.runtime.provenance import dvc_hash
from tests.hub import hub
from tests.release import FOLDER, expected, needs_fixture

ROWS = """\
images,label_smoothing,seed,fid_x,fid_x_std,fid_infinity_x,class_accuracy,is_x
transformer,0.1,0,1.25,0.1,,0.75,
transformer,0.1,1,9.5,0.1,9.25,0.5,3.5
transformer,0.2,1,8.5,0.1,,0.5,3.5
autoregressive,0.1,1,7.5,0.1,,0.5,3.5
""".replace("_x", "_classifier")


def test_a_saved_model_is_the_same_model(project, saved):
    again = MaskGIT.from_pretrained(saved, device="cpu")
    first = MaskGIT.from_pretrained(project, seed=1, device="cpu")
    assert again.classes == first.classes and again.defaults == first.defaults
    assert torch.equal(again.sample(count=6, seed=5), first.sample(count=6, seed=5))


def test_it_is_safetensors_and_json_and_text(saved):
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    parts = ("config.json", "model.safetensors")
    assert names == {
        "config.json",
        "README.md",
        *(f"{folder}/{part}" for folder in ("tokenizer", "transformer") for part in parts),
    }


def test_it_is_written_over_itself_and_over_nothing_else(project, saved, tmp_path):
    model = MaskGIT.from_pretrained(project, device="cpu")
    assert model.save_pretrained(saved) == saved
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    with pytest.raises(UserError, match="other is there already and no saved model"):
        model.save_pretrained(tmp_path / "other")
    (tmp_path / "mine/tokenizer").mkdir(parents=True)
    for name in ("config.json", "README.md", "tokenizer/config.json"):
        (tmp_path / "mine" / name).write_text('{"mine": 1}')
    with pytest.raises(UserError, match="mine is there already and no saved model"):
        model.save_pretrained(tmp_path / "mine")
    (saved / "README.md").unlink()
    (saved / "README.md").mkdir()
    (saved / "README.md/notes.txt").touch()
    with pytest.raises(UserError, match="m is there already and no saved model"):
        model.save_pretrained(saved)
    assert (saved / "README.md/notes.txt").exists()
    shutil.rmtree(saved / "tokenizer")
    (saved / "tokenizer").touch()
    with pytest.raises(UserError, match="m is there already and no saved model"):
        model.save_pretrained(saved)
    (saved / "notes.txt").touch()  # and a config.json, as many folders have one
    with pytest.raises(UserError, match="m is there already and no saved model"):
        model.save_pretrained(saved)
    assert (saved / "notes.txt").exists()


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

    def card(seed: int) -> str:
        model = MaskGIT.from_pretrained(folder, seed=seed, device="cpu")
        return (model.save_pretrained(tmp_path / "saved") / "README.md").read_text()

    assert "| FID (classifier) | 1.25 |" in card(0) and "| IS " not in card(0)
    shown = card(1)
    assert "| FID∞ (classifier) | 9.25 |\n| FID (classifier) | 9.5 |" in shown
    assert "| IS (classifier) | 3.5 |" in shown
    assert "| samples recognised as their class | 0.5 |" in shown and "_std" not in shown
    again = MaskGIT.from_pretrained(tmp_path / "saved", device="cpu")
    again.save_pretrained(tmp_path / "twice")
    with pytest.raises(ArgumentError, match="is a saved model, of seed 1 alone"):
        MaskGIT.from_pretrained(tmp_path / "saved", seed=0)
    with pytest.raises(ArgumentError, match=r"revision: .* is a folder here and has none"):
        MaskGIT.from_pretrained(tmp_path / "saved", revision="v1")
    assert "| FID (classifier) | 9.5 |" in (tmp_path / "twice/README.md").read_text()
    changed = MaskGIT.from_pretrained(folder, seed=1, device="cpu")
    changed.transformer.vocabulary_bias.data += 1  # in memory alone
    changed.save_pretrained(tmp_path / "changed")
    assert "had no results of this model" in (tmp_path / "changed/README.md").read_text()
    weights = Path("models/transformer/main/seed1")
    shutil.rmtree(weights)
    shutil.copytree("models/transformer/main/seed0", weights)
    assert "9.5" not in card(1) and "had no results of this model" in card(1)


@pytest.mark.slow
def test_the_card_of_a_run_has_the_numbers_of_its_rows(finished, tmp_path, monkeypatch):
    finished.run("python", "-m", "pipeline", "save", str(tmp_path / "saved"), "--replicate", "1")
    rows = pd.read_csv(finished.folder / "results/evaluation/rows.csv")
    own = rows[(rows["images"] == "transformer") & (rows["seed"] == 1)].iloc[0]
    card = (tmp_path / "saved/README.md").read_text()
    monkeypatch.chdir(tmp_path)
    model = MaskGIT.from_pretrained(os.path.relpath(finished.folder), seed=1, device="cpu")
    assert (model.save_pretrained(tmp_path / "saved") / "README.md").read_text() == card
    assert f"| FID (classifier) | {own['fid_classifier']:.4g} |" in card
    assert f"| NLL of masked tokens | {own['nll']:.4g} |" in card


@pytest.mark.slow
def test_the_card_opens_the_model_that_it_describes(saved, tmp_path):
    code = (saved / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        (sys.executable, "-c", code),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sample.png").exists()


def test_the_cards_code_holds_for_classes_of_any_name(saved, tmp_path):
    config = saved / "config.json"
    values = json.loads(config.read_text())
    values["classes"][0] = '3" wide\\'
    config.write_text(json.dumps(values))
    again = MaskGIT.from_pretrained(saved, device="cpu").save_pretrained(tmp_path / 'my "own"')
    code = (again / "README.md").read_text().split("```python\n")[1].split("```")[0]
    texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    assert {'3" wide\\', str(again)} <= texts


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["defaults"]["decoding"].update(iterations=1),
        lambda values: values["classes"].reverse(),
    ],
)
def test_numbers_are_of_the_classes_and_the_decoding_that_were_measured(saved, tmp_path, change):
    def card(values: dict) -> str:
        write_json(saved / "config.json", values)
        model = MaskGIT.from_pretrained(saved, device="cpu")
        return (model.save_pretrained(tmp_path / "again") / "README.md").read_text()

    values = json.loads((saved / "config.json").read_text())
    values["measured"] = {"fid_classifier": 9.5}
    assert "| FID (classifier) | 9.5 |" in card(values)
    change(values)
    assert "had no results of this model" in card(values)


@pytest.mark.parametrize("place", ["nowhere", "a/b/c", "./here", "/no/where"])
def test_what_is_no_folder_and_no_repository_is_one_line(place):
    with pytest.raises(UserError, match="neither a folder that exists nor a repository"):
        MaskGIT.from_pretrained(place)


def test_a_folder_without_a_model_says_what_is_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"holds no model: neither a project's params\.yaml nor"):
        MaskGIT.from_pretrained(tmp_path)


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
    assert done.stdout == "torch.Size([2, 1, 8, 8])\n", done.stderr
    assert "config.json" in asked and not {"pytorch_model.bin", "handler.py"} & set(asked)
    offline = run(code, tmp_path, address)  # which is gone: the cache has it
    assert offline.stdout == done.stdout, offline.stderr


@pytest.mark.slow
def test_a_repository_that_is_not_there_is_one_line(saved, tmp_path):
    code = "MaskGIT.from_pretrained('someone/else')"
    with hub("someone/digits", saved) as (address, _):
        done = run(code, tmp_path, address)
    last = done.stderr.strip().splitlines()[-1]
    assert "someone/else is no folder here, and the Hub does not give it" in last


def test_what_is_pushed_is_what_is_saved(project, monkeypatch):
    import huggingface_hub

    seen = {}

    class Api:
        def __init__(self, token):
            seen["token"] = token

        def create_repo(self, repository, private, exist_ok):
            seen["private"] = private
            return f"https://huggingface.co/{repository}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            seen["card"] = (folder_path / "README.md").read_text()
            seen["model"] = MaskGIT.from_pretrained(folder_path, device="cpu")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    model = MaskGIT.from_pretrained(project, device="cpu")
    assert model.push_to_hub("me/digits") == "https://huggingface.co/me/digits"
    assert seen["private"] is True and 'from_pretrained("me/digits")' in seen["card"]
    assert torch.equal(seen["model"].sample(count=3), model.sample(count=3))


@pytest.mark.slow
def test_a_hub_that_is_away_is_one_line_when_something_is_pushed(saved, tmp_path):
    code = f"MaskGIT.from_pretrained({str(saved)!r}).push_to_hub('me/digits', token='hf_x')"
    last = run(code, tmp_path, "http://127.0.0.1:9").stderr.strip().splitlines()[-1]
    assert "UserError: me/digits: the Hub does not take it (ConnectError: " in last


@needs_fixture
def test_released_checkpoints_reconstruct_as_the_authors_code_does(tmp_path, monkeypatch):
    changes = {
        "data": {"image_size": 16, "channels": 3},
        "tokenizer": {
            "filters": 32, "multipliers": [1, 2, 2], "res_blocks": 2, "embedding_dim": 16,
            "codebook_size": 64,
        },
        "transformer": {"layers": 3, "hidden": 32, "heads": 4, "mlp": 64},
    }  # fmt: skip
    smoke = read_yaml(presets.PRESETS / "smoke.yaml")
    values = smoke | {key: smoke.get(key, {}) | value for key, value in changes.items()}
    (tmp_path / "tiny.yaml").write_text("# Preset tiny.\n" + yaml.safe_dump(values))
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    files = [FOLDER / f"{name}_tiny_checkpoint" for name in ("tokenizer", "transformer")]
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


def test_an_empty_path_is_not_the_current_folder(saved, monkeypatch):
    monkeypatch.chdir(saved)
    with pytest.raises(UserError, match=r"source: is no path \(it is empty\); give one"):
        MaskGIT.from_pretrained("")


def test_a_path_that_none_can_have_is_one_line_before_the_model_is_opened(tmp_path):
    with pytest.raises(UserError, match=r"folder: .*is no path \(.*\); give one"):
        require_free(tmp_path / ("x" * 300))
