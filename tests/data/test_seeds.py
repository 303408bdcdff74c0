"""Seeds, which DVC does not watch: what is drawn from them must never change silently."""

import pandas as pd
import pytest
import torch

from pipeline.data.seeds import generator, mix
from pipeline.runtime.files import write_csv


def test_seeds_are_named_by_all_their_parts():
    seeds = [mix(0), mix(1), mix(0, "a"), mix("0"), mix("a", 0), mix(0, "a", 1)]
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**63 for s in seeds)
    assert generator(0, "a").initial_seed() == mix(0, "a")


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((), 5460801731388113703),
        ((0,), 7210762507766007076),
        ((1, "2"), 1169240507383557186),
        (("1", 2), 8565828550455237335),
        (("train", 3), 6697817917203225104),
        ((7, "decode", "cosine", 8), 4594418420982909373),
    ],
)
def test_seeds_are_those_that_every_published_run_was_drawn_with(parts, seed):
    assert mix(*parts) == seed


def test_first_draws_are_those_that_every_published_run_was_drawn_with():
    """Not a change of torch's generator may go unseen either."""
    uniform = torch.rand(3, generator=generator(0, "batch", 5)).tolist()
    assert uniform == [0.30900877714157104, 0.9282582402229309, 0.09480679035186768]
    whole = torch.randint(1000, (4,), generator=generator(0, "batch", 5)).tolist()
    assert whole == [843, 589, 178, 347]
    assert torch.randperm(6, generator=generator(0, "batch", 5)).tolist() == [3, 5, 4, 1, 2, 0]


@pytest.mark.parametrize("first", [0, 1234567890, 1700000000123, 2**53 - 3])
def test_seeds_that_are_times_are_told_apart_in_tables_of_results(tmp_path, first):
    """Beside rows without a seed, which make a column of floats of them."""
    seeds, path = [first, first + 1, first + 2], tmp_path / "rows.csv"
    write_csv(path, [{"images": "a", "seed": seed} for seed in seeds] + [{"images": "real"}])
    rows = pd.read_csv(path)
    assert path.read_text().split()[1:4] == [f"a,{seed}" for seed in seeds]
    assert rows["seed"].dropna().tolist() == seeds
