"""Work on many pictures at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.data.images import threads
from pipeline.data.images.threads import in_threads


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 4)


@pytest.fixture(params=["quick", "slow"], autouse=True)
def quick(request, monkeypatch) -> bool:
    monkeypatch.setattr(threads, "QUICK", 60.0 if request.param == "quick" else 0.0)
    return request.param == "quick"


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 97])
def test_results_come_in_the_order_of_the_items(count):
    assert in_threads(lambda x: x * x, iter(range(count))) == [x * x for x in range(count)]


def test_every_core_works_unless_the_items_are_quick(quick):
    together = threading.Barrier(1 if quick else 4, timeout=60)

    def work(item: int) -> int:
        if item > 0:  # the first is done by whoever asks
            together.wait()
        return threading.get_ident()

    names = in_threads(work, range(5))
    assert len(set(names)) == (1 if quick else 5) and names[0] == threading.get_ident()


def test_threads_of_others_may_ask_too():
    with ThreadPoolExecutor(8) as pool:
        sums = pool.map(lambda x: sum(in_threads(lambda y: x * y, range(10))), range(20))
        assert list(sums) == [45 * x for x in range(20)]


def test_an_error_comes_through():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda x: 1 / x, [2, 1, 0, 5])
