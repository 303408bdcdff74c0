"""Released checkpoints in the stages: nothing is trained, and later stages use the checkpoints."""

import pandas as pd
import pytest

from pipeline.weights.published import load_model
from tests.project import Project
from tests.release import TOKENIZER_CHECKPOINT, TRANSFORMER_CHECKPOINT, needs_tokenizer

pytestmark = [needs_tokenizer, pytest.mark.slow]


def test_sampling_needs_no_stage_stages_convert_and_the_sweep_only_decodes(tmp_path):
    """The smoke preset with the architecture of the tiny released checkpoints."""
    project = Project.clone(tmp_path)
    project.run("python", "-m", "pipeline", "preset", "smoke")
    project.set(
        data__image_size=16,
        data__channels=3,
        classifier__steps=10,
        tokenizer__pretrained=str(TOKENIZER_CHECKPOINT),
        tokenizer__filters=32,
        tokenizer__multipliers=[1, 2, 2],
        tokenizer__res_blocks=2,
        tokenizer__embedding_dim=16,
        tokenizer__codebook_size=64,
        transformer__pretrained=str(TRANSFORMER_CHECKPOINT),
        transformer__layers=3,
        transformer__hidden=32,
        transformer__heads=4,
        transformer__mlp=64,
    )
    project.run("python", "-m", "pipeline", "sample", "--count", "6", "--output", "grid.png")
    before = ("prepare", "train_classifier", "features", "train_tokenizer", "cache_tokens")
    for stage in (*before, "schedules"):
        project.stage(stage)
    assert "validation NLL" in project.stage("train_transformer")
    output = project.stage("sweep")
    assert "loss" not in output  # no training step is logged
    rows = pd.read_csv(project.folder / "results/sweep/rows.csv")
    assert len(rows) == 6 and rows["nll"].notna().all()
    designs = pd.read_csv(project.folder / "results/sweep/designs.csv")
    assert set(designs["sampler"]) == {"random", "halton", "remask_capped"}
    # With two iterations remasking has nothing to mask again, so it may equal random order.
    assert designs.loc[designs["iterations"] == 4, "fid_classifier"].nunique() == 3
    model = load_model(project.folder / "models/transformer/main/seed0", "transformer")
    assert model.config.layers == 3 and model.config.num_classes == 10
    assert (project.folder / "results/transformer/history.csv").read_text().count("\n") == 2
