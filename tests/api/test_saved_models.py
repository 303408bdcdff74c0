"""Models that are saved, pushed to the Hub and opened again; the model that ships with the package;
and models opened from released files."""

import ast
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub.utils import filter_repo_objects
from scipy.stats import binomtest

from pipeline import MaskGIT
from pipeline.api.opening import SHIPPED, ModelWarning, is_barely_trained
from pipeline.config import presets
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import bug
from pipeline.runtime.files import read_yaml
from pipeline.runtime.provenance import dvc_hash
from tests.errors import refused
from tests.release import TOKENIZER_CHECKPOINT, TRANSFORMER_CHECKPOINT, expected, needs_tokenizer

ROWS = """\
images,label_smoothing,seed,fid_x,fid_x_std,fid_infinity_x,class_accuracy,is_x,is_splits,samples
transformer,0.1,0,1.25,0.1,,0.75,,10,100
transformer,0.1,1,9.5,0.1,9.25,0.35,3.5,10,100
transformer,0.2,1,8.5,0.1,,0.5,3.5,10,100
autoregressive,0.1,1,7.5,0.1,,0.5,3.5,10,100
""".replace("_x", "_classifier")
# Packages that a run needs and a small install lacks.
RUNS = "cryptography dvc matplotlib mlflow mlxtend pandas psutil ray tabulate torch_fidelity \
torchmetrics torchvision"
SMALL = f"""
import sys

sys.modules |= dict.fromkeys({RUNS!r}.split())  # importing them is an error
import pipeline
assert "MaskGIT" in dir(pipeline) and "torch" not in sys.modules
from pipeline.cli.app import main
sys.argv[1:] = "sample --count 2 -o a.png".split()
main()
"""


def description(folder: Path, **changes) -> dict:
    """Change values in the config.json of a saved model, and return all values."""
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))
    return values


def test_a_saved_model_is_the_same_model(project, saved):
    again = MaskGIT.from_pretrained(saved, device="cpu")
    first = MaskGIT.from_pretrained(project, seed=1, device="cpu")
    assert again.classes == first.classes and again.defaults == first.defaults
    assert torch.equal(again.sample(count=6, seed=5), first.sample(count=6, seed=5))
    with pytest.raises(UserError, match="only the model of seed 1"):
        MaskGIT.from_pretrained(saved, seed=0)
    files = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    names = ("config.json", "model.safetensors")
    weights = {f"{d}/{name}" for d in ("tokenizer", "transformer") for name in names}
    assert files == {"config.json", "README.md"} | weights


def test_it_is_written_over_nothing_and_may_be_half(saved, tmp_path):
    model = MaskGIT.from_pretrained(saved, device="cpu")
    with pytest.raises(UserError, match="not an empty folder"):
        model.save_pretrained(saved)
    model.transformer.bfloat16()
    again = MaskGIT.from_pretrained(model.save_pretrained(tmp_path / "half"), device="cpu")
    half = model.transformer.state_dict()
    for name, weight in again.transformer.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, half[name].float())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "config.json").write_text("{}"), "config.json"),
        (lambda f: description(f, format="other"), "format"),
        (lambda f: (f / "transformer/model.safetensors").unlink(), "transformer"),
        (lambda f: (f / "tokenizer/model.safetensors").write_bytes(b"x"), "tokenizer"),
    ],
)
def test_what_is_damaged_is_one_line(saved, change, words):
    change(saved)
    with refused(match=f"{words}.*; save or download the model again$"):
        MaskGIT.from_pretrained(saved, device="cpu")


def test_the_card_has_the_numbers_of_the_runs_own_model(own_project, tmp_path):
    folder, stage = own_project, {"cmd": "x", "params": ["seed"], "deps": ["models/transformer"]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    for path, text in {
        "evaluation/rows.csv": ROWS,
        "evaluation/metrics.json": '{"real": {"class_accuracy": 0.9}}',
        "prepare/metrics.json": '{"classes": 3, "largest_class": 0.34}',
    }.items():
        Path("results", path).parent.mkdir(parents=True, exist_ok=True)
        Path("results", path).write_text(text)
    locked = {"path": "models/transformer", "md5": dvc_hash(Path("models/transformer"))}
    seed = {"params.yaml": {"seed": read_yaml(Path("params.yaml"))["seed"]}}
    lock = {"stages": {"evaluate": {"cmd": "x", "deps": [locked], "params": seed}}}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))

    def card(model: MaskGIT, name: str) -> str:
        return (model.save_pretrained(tmp_path / name) / "README.md").read_text()

    with warnings.catch_warnings(action="error"):
        first = card(MaskGIT.from_pretrained(folder, device="cpu"), "first")
    assert "| fid_classifier | 1.25 |" in first and "is_classifier |" not in first
    assert "Barely trained" not in first
    rows = Path("results/evaluation/rows.csv")
    rows.write_text(ROWS.split("\n")[0] + "\n")  # as before seed 1 was added to evaluation.seeds
    unmeasured = MaskGIT.from_pretrained(folder, seed=1, device="cpu")
    assert "## Measured\n\nNothing" in card(unmeasured, "unmeasured")
    rows.write_text(ROWS)
    with pytest.warns(ModelWarning, match="barely trained"):  # 35% of 3 classes
        second = MaskGIT.from_pretrained(folder, seed=1, device="cpu")
    shown = card(second, "second")
    assert "| fid_infinity_classifier | 9.25 |" in shown and "| is_classifier | 3.5 |" in shown
    assert "_std" not in shown and "is_splits" not in shown and "**Barely trained**" in shown
    with pytest.warns(ModelWarning, match="barely trained"):
        again = MaskGIT.from_pretrained(tmp_path / "second", device="cpu")
    assert "| fid_classifier | 9.5 |" in card(again, "twice")
    for number, model in enumerate((second, again)):
        model.transformer.vocabulary_bias.add_(1)
        assert "## Measured\n\nNothing" in card(model, f"changed{number}")
    weights = Path("models/transformer/main/seed1")
    shutil.rmtree(weights)
    shutil.copytree("models/transformer/main/seed0", weights)
    other = MaskGIT.from_pretrained(folder, seed=1, device="cpu")
    assert "## Measured\n\nNothing" in card(other, "other")


@pytest.mark.parametrize("samples", [50, 1000])
def test_barely_trained_is_recognised_near_chance(samples):
    for found in range(0, samples + 1, samples // 50):
        low = binomtest(found, samples).proportion_ci(0.95, method="wilson").low
        assert is_barely_trained(found / samples, 0.97, samples, 0.1) == (low < 0.187)


def test_the_cards_code_runs_for_classes_of_any_name(saved, tmp_path, monkeypatch):
    values = description(saved)
    description(saved, classes=['3" wide\\', *values["classes"][1:]])
    again = MaskGIT.from_pretrained(saved, device="cpu").save_pretrained(tmp_path / 'my "own"')
    code = (again / "README.md").read_text().split("```python\n")[1].split("```")[0]
    nodes = ast.walk(ast.parse(code))
    assert {'3" wide\\', str(again)} <= {n.value for n in nodes if isinstance(n, ast.Constant)}
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "sample.png").exists()


def test_where_nothing_was_trained_the_model_of_the_package_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(ModelWarning, match=r"no trained model here: .*mnist5k.*600 steps"):
        model = MaskGIT.from_pretrained(device="cpu")
    images = model.sample(count=20)
    assert images.shape == (20, 1, 28, 28) and model.classes == tuple("0123456789")
    assert 20 < images.float().mean() < 50  # as in MNIST, 33
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*.*")) < 3e6
    Path("models/tokenizer").mkdir(parents=True)  # a model trained here, incomplete
    for place in (None, "nowhere/at/all", tmp_path):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with refused(place or "."):
            MaskGIT.from_pretrained(place)


@pytest.mark.slow
def test_a_small_install_draws(tmp_path):
    command = (sys.executable, "-c", SMALL)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("samples in a.png\n") and "the package" in done.stderr
    assert "maskgit-pipeline[pipeline]" in bug(ModuleNotFoundError("ray", name="ray"), "maskgit")


def test_a_repository_is_downloaded_without_what_could_be_executed(saved, monkeypatch):
    def download(repository: str, allow_patterns: list[str], revision: str) -> str:
        files = [path.relative_to(saved).as_posix() for path in saved.rglob("*.*")]
        extra = ["pytorch_model.bin", "handler.py", "tokenizer/model.pkl"]
        assert {*filter_repo_objects(files + extra, allow_patterns=allow_patterns)} == {*files}
        assert (repository, revision) == ("someone/digits", "main")
        return str(saved)

    monkeypatch.setattr("pipeline.api.model.snapshot_download", download)
    model = MaskGIT.from_pretrained("someone/digits", revision="main", device="cpu")
    assert model.sample("class1", 2).shape == (2, 1, 8, 8)


def test_what_is_pushed_is_what_is_saved(project, monkeypatch):
    from huggingface_hub import HfApi

    model = MaskGIT.from_pretrained(project, device="cpu")

    def create_repo(self, repo_id, private, exist_ok):
        assert private
        return type("Url", (), {"repo_id": repo_id})

    def upload_folder(self, folder_path, **options):
        assert 'from_pretrained("me/digits")' in (folder_path / "README.md").read_text()
        pushed = MaskGIT.from_pretrained(folder_path, device="cpu")
        assert torch.equal(pushed.sample(count=3), model.sample(count=3))
        return f"https://huggingface.co/{options['repo_id']}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert model.push_to_hub("me/digits") == "https://huggingface.co/me/digits"


@needs_tokenizer
def test_released_checkpoints_reconstruct_as_the_authors_code_does(tmp_path, monkeypatch):
    tiny = {
        "base": "smoke",
        "data": {"image_size": 16, "channels": 3},
        "tokenizer": {"filters": 32, "multipliers": [1, 2, 2], "res_blocks": 2},
        "transformer": {"layers": 3, "hidden": 32, "heads": 4, "mlp": 64},
    }
    tiny["tokenizer"] |= {"embedding_dim": 16, "codebook_size": 64}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    shutil.copy(presets.PRESETS / "smoke.yaml", tmp_path)
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    files = TOKENIZER_CHECKPOINT, TRANSFORMER_CHECKPOINT
    model = MaskGIT.from_released(*files, preset="tiny", device="cpu")
    theirs = expected()
    images = torch.from_numpy(theirs["image"]).permute(0, 3, 1, 2)
    tokens = model.tokenizer.encode(images)  # float images, which the Python API would round
    assert torch.equal(tokens, torch.from_numpy(theirs["indices"]).long())
    rebuilt = torch.from_numpy(theirs["reconstruction"]).permute(0, 3, 1, 2).clamp(0, 1)
    assert (model.decode(tokens) / 255 - rebuilt).abs().max() < 0.5 / 255 + 1e-4
    assert model.sample(3, 2, iterations=4, guidance=0.5).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="classes: 1 names for a model of 10 classes"):
        MaskGIT.from_released(*files, preset="tiny", classes=["one"])
