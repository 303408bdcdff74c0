"""Work on many pictures at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.data.images import pixels
from pipeline.data.images.pixels import in_threads


@pytest.mark.parametrize("quick", [60.0, 0.0])  # in this thread alone, or in four
def test_results_come_in_the_order_of_the_items_and_errors_come_through(monkeypatch, quick):
    monkeypatch.setattr(pixels, "cores", lambda: 4)
    monkeypatch.setattr(pixels, "QUICK", quick)
    for count in (0, 1, 3, 4, 5, 97):
        assert in_threads(lambda x: x * x, iter(range(count))) == [x * x for x in range(count)]
    with ThreadPoolExecutor(8) as pool:  # several threads may ask at once
        sums = pool.map(lambda x: sum(in_threads(lambda y: x * y, range(10))), range(20))
        assert list(sums) == [45 * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda x: 1 / x, [2, 1, 0, 5])
