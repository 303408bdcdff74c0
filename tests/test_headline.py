"""The few numbers that DVC shows of a run are those of the tables."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_results import analyse, write_results


@pytest.fixture(scope="module")
def made(tmp_path_factory, request):
    from tests.params import make_params

    folder = tmp_path_factory.mktemp("headline")
    results = write_results(folder / "results")
    analyse(results, folder / "out", make_params(analysis={"dpi": 40}))
    return results, json.loads((results / "metrics.json").read_text())


def test_they_are_few_and_narrow(made):
    _, values = made
    assert list(values) == ["MaskGIT", "VQGAN", "editing", "sweep", "tokenizer"]
    assert sum(map(len, values.values())) <= 13


def test_networks_have_the_means_over_seeds(made):
    results, values = made
    rows = pd.read_csv(results / "evaluation/rows.csv")
    cas = pd.read_csv(results / "cas/rows.csv").query("augmentation == 'none'")
    for name, network in (("MaskGIT", "transformer"), ("VQGAN", "autoregressive")):
        mine = rows[(rows["images"] == network) & (rows["label_smoothing"] == 0.1)]
        for metric in ("fid_classifier", "is_classifier", "class_accuracy"):
            assert values[name][metric] == pytest.approx(mine[metric].mean())
        assert values[name]["cas"] == pytest.approx(cas[cas["images"] == network]["top1"].mean())


def test_sweep_has_its_best_cell(made):
    results, values = made
    rows = pd.read_csv(results / "sweep/rows.csv")
    means = {
        f"{schedule} T={T}": np.mean(cell["fid_classifier"])
        for (schedule, T), cell in rows.groupby(["schedule", "iterations"])
    }
    assert values["sweep"]["best"] == min(means, key=means.__getitem__)
    assert values["sweep"]["fid_classifier"] == pytest.approx(min(means.values()))
