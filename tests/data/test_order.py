"""The order in which training reads its data."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.order import BatchOrder


@settings(max_examples=60, deadline=None)
@given(items=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 1000))
def test_each_epoch_is_a_permutation(items, batch_size, seed):
    order = BatchOrder(items, batch_size, seed)
    batches = [order(step) for step in range(3 * items // batch_size + 2)]
    assert all(len(batch) == batch_size for batch in batches)
    stream = np.concatenate(batches)
    for epoch in range(len(stream) // items):
        assert sorted(stream[epoch * items : (epoch + 1) * items]) == list(range(items))


def test_order_is_a_function_of_seed_and_step():
    order = BatchOrder(17, 5, seed=3)
    straight = [order(step).tolist() for step in range(12)]
    backwards = [BatchOrder(17, 5, seed=3)(step).tolist() for step in reversed(range(12))][::-1]
    assert straight == backwards
    assert [order(step).tolist() for step in (11, 0, 7)] == [straight[i] for i in (11, 0, 7)]
    assert straight != [BatchOrder(17, 5, seed=4)(step).tolist() for step in range(12)]
    stream = np.concatenate(straight)
    assert stream[:17].tolist() != stream[17:34].tolist()  # epochs differ


def test_blocks_are_read_window_by_window():
    starts = np.array([0, 4, 7, 12, 13, 20, 26, 30])
    block_of = np.searchsorted(starts, np.arange(30), side="right") - 1
    order, orders = BatchOrder(30, 1, 0, starts, window=2), set()
    for epoch in range(4):
        stream = np.array([order(epoch * 30 + i)[0] for i in range(30)])
        assert sorted(stream) == list(range(30))
        orders.add(tuple(dict.fromkeys(block_of[stream].tolist())))
        place, shuffled = 0, False
        while place < 30:  # the stream falls into runs that are two whole blocks each
            pair = list(dict.fromkeys(block_of[stream[place:]].tolist()))[:2]
            items = np.flatnonzero(np.isin(block_of, pair))
            run = stream[place : place + len(items)]
            assert sorted(run) == items.tolist()
            shuffled = shuffled or run.tolist() != items.tolist()
            place += len(items)
        assert shuffled
    assert len(orders) > 1  # and blocks among themselves


def test_the_order_never_changes():
    """Literal values, since no stage lists the code of the order among what it depends on."""
    plain = BatchOrder(7, 3, seed=5)
    assert [plain(step).tolist() for step in range(4)] == [
        [1, 4, 2],
        [3, 6, 5],
        [0, 4, 2],
        [0, 6, 5],
    ]
    blocks = BatchOrder(9, 4, 2, np.array([0, 3, 5, 9]), window=2)
    assert [blocks(step).tolist() for step in range(3)] == [
        [1, 2, 5, 7],
        [0, 3, 6, 8],
        [2, 4, 5, 8],
    ]
    whole = BatchOrder(9, 4, 2, np.array([0, 3, 5, 9]), window=3)
    assert [whole(step).tolist() for step in range(3)] == [
        [7, 5, 4, 3],
        [6, 1, 2, 8],
        [0, 0, 4, 3],
    ]
