"""The order in which training reads its data, and seeds, compared with literal values. No stage
depends on this code in dvc.yaml, so a change of what is drawn must fail here."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.order import BatchOrder
from pipeline.data.seeds import generator, mix


@settings(max_examples=60, deadline=None)
@given(items=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 1000))
def test_each_epoch_is_a_permutation(items, batch_size, seed):
    order = BatchOrder(items, batch_size, seed)
    batches = [order(step) for step in range(3 * items // batch_size + 2)]
    assert all(len(batch) == batch_size for batch in batches)
    stream = np.concatenate(batches)
    for epoch in range(len(stream) // items):
        assert sorted(stream[epoch * items : (epoch + 1) * items]) == list(range(items))


def test_the_order_never_changes():
    plain = BatchOrder(7, 3, seed=5)
    read = [plain(step).tolist() for step in range(4)]
    assert read == [[1, 4, 2], [3, 6, 5], [0, 4, 2], [0, 6, 5]]
    blocks = BatchOrder(9, 4, 2, np.array([0, 3, 5, 9]), window=2)
    read = [blocks(step).tolist() for step in range(3)]
    assert read == [[1, 2, 5, 7], [0, 3, 6, 8], [2, 4, 5, 8]]
    whole = BatchOrder(9, 4, 2, np.array([0, 3, 5, 9]), window=3)
    read = [whole(step).tolist() for step in range(3)]
    assert read == [[7, 5, 4, 3], [6, 1, 2, 8], [0, 0, 4, 3]]


def test_seeds_and_first_draws_are_those_of_every_published_run():
    """A change of torch's generator must fail too."""
    assert mix(1, "2") == 1169240507383557186 and mix("1", 2) == 8565828550455237335
    assert mix(7, "decode", "cosine", 8) == 4594418420982909373
    uniform = torch.rand(3, generator=generator(0, "batch", 5)).tolist()
    assert uniform == [0.30900877714157104, 0.9282582402229309, 0.09480679035186768]
    whole = torch.randint(1000, (4,), generator=generator(0, "batch", 5)).tolist()
    assert whole == [843, 589, 178, 347]
    assert torch.randperm(6, generator=generator(0, "batch", 5)).tolist() == [3, 5, 4, 1, 2, 0]
