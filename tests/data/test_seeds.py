"""Seeds, which DVC does not watch: what is drawn from them must never change silently."""

import torch

from pipeline.data.seeds import generator, mix


def test_seeds_are_those_that_every_published_run_was_drawn_with():
    assert mix(1, "2") == 1169240507383557186 and mix("1", 2) == 8565828550455237335
    assert mix(7, "decode", "cosine", 8) == 4594418420982909373


def test_first_draws_are_those_that_every_published_run_was_drawn_with():
    """Not a change of torch's generator may go unseen either."""
    uniform = torch.rand(3, generator=generator(0, "batch", 5)).tolist()
    assert uniform == [0.30900877714157104, 0.9282582402229309, 0.09480679035186768]
    whole = torch.randint(1000, (4,), generator=generator(0, "batch", 5)).tolist()
    assert whole == [843, 589, 178, 347]
    assert torch.randperm(6, generator=generator(0, "batch", 5)).tolist() == [3, 5, 4, 1, 2, 0]
