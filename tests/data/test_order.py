"""The order in which training reads its data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.order import BatchOrder
from pipeline.data.ranks import Ranks


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


@pytest.mark.parametrize("window", [1, 2, 3])
def test_blocks_are_read_window_by_window(window):
    starts = np.array([0, 4, 7, 12, 13, 20, 26, 30])
    block_of = np.searchsorted(starts, np.arange(30), side="right") - 1
    order = BatchOrder(30, 1, 0, starts, window)
    orders = set()
    for epoch in range(4):
        stream = [order(epoch * 30 + i)[0] for i in range(30)]
        assert sorted(stream) == list(range(30))
        first_seen = list(dict.fromkeys(block_of[stream].tolist()))
        orders.add(tuple(first_seen))
        position, shuffled = 0, False
        while position < 30:  # the stream falls into runs that are whole blocks, `window` at once
            blocks, size = set(), 0
            for count in range(1, 31 - position):
                blocks = set(block_of[stream[position : position + count]].tolist())
                size = sum(starts[b + 1] - starts[b] for b in blocks)
                if count == size and (len(blocks) == window or position + count == 30):
                    break
            assert len(blocks) <= window
            read = stream[position : position + size]
            shuffled = shuffled or read != sorted(read)
            position += size
        assert shuffled  # within the window
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


@pytest.mark.parametrize(("rank", "workers"), [(0, 16), (7, 16), (15, 16), (0, 8), (3, 8), (7, 8)])
def test_of_many_blocks_each_worker_reads_few(rank, workers):
    """Of 16 workers, and ImageNet's batches and row groups, a tenth to a fifth, and of 8 a sixth to
    a quarter: in a random order nearly all of them."""
    blocks, size = 1024, 64
    order, kept, reads = BatchOrder(blocks * size, 256, 1, np.arange(blocks + 1) * size, 256), {}, 0
    for step in range(blocks * size // 256):
        for block in np.unique(Ranks(rank, workers).rows(order(step)) // size).tolist():
            reads += block not in kept
            kept.pop(block, None)
            kept[block] = None  # the last 256 are in memory
            if len(kept) > 256:
                kept.pop(next(iter(kept)))
    least, most = (0.08, 0.22) if workers == 16 else (0.15, 0.27)
    assert least * blocks < reads < most * blocks
