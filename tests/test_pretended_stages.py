"""What stages predict, on the device that pretends to be a GPU, is what a CPU predicts."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from pipeline.experiments.edit import edit_rows
from pipeline.experiments.reconstruct import reconstruct_hidden
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime.batches import Alone
from pipeline.training.tokens import cache_tokens
from tests.pretended import pretended_device
from tests.tiny_project import ALONE, folders_of, with_params

pytestmark = pytest.mark.usefixtures("in_tiny_project")


@pytest.mark.parametrize("experiment", ["temperature", "reconstruct", "edit"])
def test_samples_and_what_is_measured_of_them(gpu, tmp_path, experiment):
    params = with_params()

    def rows_of(workers: Alone) -> pd.DataFrame:
        folder = tmp_path / workers.device.type
        folders = folders_of(folder, params)
        if experiment == "temperature":
            return pd.DataFrame(temperature_rows(params, folders, workers))
        if experiment == "reconstruct":
            return pd.DataFrame(reconstruct_hidden(params, folders, workers)[0])
        return pd.DataFrame(edit_rows(params, folders, folder / "nearest", workers))

    here, there = rows_of(ALONE), rows_of(Alone(pretended_device()))
    assert gpu.waits  # it was there
    assert_frame_equal(there, here, rtol=1e-5)


def test_tokens(gpu, tmp_path):
    params = with_params(tokens={"batch_size": 16})
    found = []
    for workers in (ALONE, Alone(pretended_device())):
        folder = tmp_path / workers.device.type
        folder.mkdir()
        (shard,) = cache_tokens("train", 2, params, folder, workers)
        found.append(np.load(folder / shard["file"]))
    assert gpu.waits and np.array_equal(*found) and found[0].shape == (60, 2, 16)
