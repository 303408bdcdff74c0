"""dvc.yaml lists, for every stage, the code of the science that its script reaches: a change of it
must re-run the stage."""

import ast
from pathlib import Path

import pytest

from pipeline.runtime.files import read_yaml
from tests.project import ROOT

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
# Orchestration, names and pictures: they cannot change a model, a token or a measured number.
NOT_LISTED = {
    "pipeline/__init__.py",
    "pipeline/runtime/errors.py",
    "pipeline/config/paths.py",
    "pipeline/weights/published.py",
    "pipeline/config/params.py",
    "pipeline/data/pictures.py",
    "pipeline/config/schema.py",
    "pipeline/experiments/tuning.py",
}
# What a stage reaches and yet does not depend on: it reads tokens and not images, it only draws the
# pictures that are logged, or it imports a module for another stage's part of it.
NOT_USED = {
    "train_tokenizer": {"pipeline/transformer.py"},
    "train_transformer": {
        "pipeline/autoregressive.py",
        "pipeline/training/autoregressive.py",
        "pipeline/data/crops.py",
        "pipeline/data/shards.py",
        "pipeline/prepare/datasets.py",
        "pipeline/data/threads.py",
        "pipeline/decoding.py",
        "pipeline/quantizer.py",
        "pipeline/tokenizer.py",
    },
    "train_autoregressive": {
        "pipeline/data/crops.py",
        "pipeline/data/shards.py",
        "pipeline/prepare/datasets.py",
        "pipeline/data/threads.py",
        "pipeline/decoding.py",
        "pipeline/masking.py",
        "pipeline/quantizer.py",
        "pipeline/weights/released.py",
        "pipeline/weights/released_files.py",
        "pipeline/weights/released_names.py",
        "pipeline/sampling.py",
        "pipeline/tokenizer.py",
    },
    "sweep": {"pipeline/autoregressive.py", "pipeline/training/autoregressive.py"},
    "evaluate": {
        "pipeline/discriminator.py",
        "pipeline/perceptual.py",
        "pipeline/training/loop.py",
    },
    "edit": {"pipeline/autoregressive.py"},
    "reconstruct": {
        "pipeline/autoregressive.py",
        "pipeline/discriminator.py",
        "pipeline/training/loop.py",
    },
    "speed": {  # times random weights: no image, no training
        "pipeline/data/crops.py",
        "pipeline/data/order.py",
        "pipeline/data/shards.py",
        "pipeline/prepare/datasets.py",
        "pipeline/data/threads.py",
        "pipeline/quantizer.py",
        "pipeline/weights/released.py",
        "pipeline/weights/released_files.py",
        "pipeline/weights/released_names.py",
        "pipeline/tokenizer.py",
        "pipeline/data/tokens.py",
        "pipeline/training/loop.py",
        "pipeline/training/transformer.py",
    },
}


def imported(path: Path) -> set[Path]:
    """Files of this project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            file = ROOT / (name.replace(".", "/") + ".py")
            if name.split(".")[0] in ("pipeline", "analysis") and file.exists():
                found.add(file)
    return found


def reached(path: Path) -> set[str]:
    """Every file of this project that a script imports, directly or not, less orchestration."""
    todo, seen = [path], set()
    while todo:
        for file in imported(todo.pop()):
            name = str(file.relative_to(ROOT))
            if name in seen or name in NOT_LISTED:
                continue
            seen.add(name)
            todo.append(file)
    return {name for name in seen if not name.startswith("pipeline/runtime/")}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lists_the_code_that_it_reaches(stage):
    module = STAGES[stage]["cmd"].removeprefix("python -m ")
    script = "analysis/__main__.py" if module == "analysis" else f"{module.replace('.', '/')}.py"
    deps = [Path(dep) for dep in STAGES[stage]["deps"]]
    assert Path(script) in deps
    missing = {
        name
        for name in reached(ROOT / script)
        if not any(Path(name).is_relative_to(dep) for dep in deps)
    }
    assert missing == NOT_USED.get(stage, set())
