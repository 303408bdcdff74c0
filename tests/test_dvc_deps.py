"""dvc.yaml lists the scientific code that each stage imports, so that a change of it runs the stage
again."""

from pathlib import Path

import pytest

from pipeline.runtime.dag import stage_outputs
from pipeline.runtime.files import read_yaml
from tests.imports import imported
from tests.project import ROOT

CODE = ("pipeline", "stages", "analysis")
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
# Orchestration and names. What in them a result rests on is pinned to literal values: seeds and the
# order of items (test_order.py), and what is derived from params (test_derived_params.py).
NOT_LISTED = (
    "pipeline/__init__.py",
    "pipeline/config",
    "pipeline/data/microbatches.py",
    "pipeline/data/order.py",
    "pipeline/data/ranks.py",
    "pipeline/data/seeds.py",
    "pipeline/runtime",
    "pipeline/weights/configs.py",
    "pipeline/weights/published.py",
    "pipeline/experiments/__init__.py",
    "pipeline/experiments/rows.py",
    "pipeline/training/__init__.py",
    "stages/__init__.py",
    "stages/__main__.py",
    "stages/running.py",
)
# The numbers of the curve at hand stand for this file: `data/schedules/<name>.csv`.
SCHEDULES = "pipeline/schedules.py"
# What a stage reaches and yet does not depend on: it only draws the pictures that are logged.
SAMPLERS = {
    f"pipeline/decoding/samplers/{path.name}"
    for path in ROOT.glob("pipeline/decoding/samplers/*.py")
}
DRAWING = {
    "pipeline/autoregressive.py",
    "pipeline/data/images/pixels.py",
    "pipeline/decoding/iterative.py",
    "pipeline/decoding/settings.py",
    *SAMPLERS,
    "pipeline/sampling.py",
    "pipeline/tokenizer/__init__.py",
    "pipeline/tokenizer/quantizer.py",
    "pipeline/tokenizer/vqgan.py",
}
TRANSFORMER = {f"pipeline/transformer/{name}.py" for name in ("__init__", "kernels", "network")}
NOT_USED = {
    # Released weights may be the transformer's too.
    "train_tokenizer": TRANSFORMER,
    "train_transformer": DRAWING,
    # It draws no masks, and takes no released weights.
    "train_autoregressive": DRAWING - {"pipeline/autoregressive.py"}
    | {
        SCHEDULES,
        "pipeline/training/likelihood.py",
        "pipeline/weights/released/checkpoint.py",
        "pipeline/weights/released/names.py",
    },
    # Of the two networks that the sampler knows these draw from MaskGIT alone.
    "sweep": {"pipeline/autoregressive.py"},
    "temperature": {"pipeline/masking.py"},
    "speed": {"pipeline/masking.py"},  # it takes no loss
    "oracle": TRANSFORMER,  # it decodes without a network
}


def reached(path: Path) -> set[str]:
    """Return the project's files that a script imports, directly or not, without orchestration."""
    todo, seen = [path], set()
    while todo:
        for file in imported(todo.pop()) - seen:
            if not any(file.is_relative_to(other) for other in NOT_LISTED):
                seen.add(file)
                todo.append(file)
    return {file.as_posix() for file in seen}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_lists_the_code_that_it_reaches(stage):
    module = STAGES[stage]["cmd"].removeprefix("python -m ").replace(" ", ".")
    deps = [Path(dep) for dep in STAGES[stage]["deps"]]
    if module == "analysis":
        script = Path("analysis/__main__.py")  # prints what `build` has written, and no more
    else:
        script = Path(f"{module.replace('.', '/')}.py")
        assert script in deps
    missing = {
        name for name in reached(script) if not any(Path(name).is_relative_to(dep) for dep in deps)
    }
    if any(dep.is_relative_to("data/schedules") for dep in deps):
        missing.discard(SCHEDULES)
    assert missing == NOT_USED.get(stage, set())


def test_dependencies_are_there_and_few_and_dvc_keeps_runs_of_every_stage():
    """DVC keeps no run of a stage that has a plain output without cache."""
    made = {Path(out) for stage in STAGES for out in stage_outputs(stage)}
    assert not [out for stage in STAGES.values() for out in stage["outs"] if isinstance(out, dict)]
    deps = [dep for stage in STAGES.values() for dep in stage["deps"]]
    for dep in map(Path, deps):
        within = any(dep.is_relative_to(out) or out.is_relative_to(dep) for out in made)
        assert within or (ROOT / dep).exists(), dep
    assert sum(dep.split("/")[0] in CODE for dep in deps) <= 128
