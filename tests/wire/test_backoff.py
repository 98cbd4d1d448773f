from __future__ import annotations

import itertools

from wire import backoff


def test_waits_grow_to_the_cap_and_vary() -> None:
    waits = list(itertools.islice(backoff.delays(first=1, factor=2, cap=8), 50))
    for wait, ceiling in zip(waits, [1, 2, 4, 8, 8], strict=False):
        assert ceiling / 2 <= wait <= ceiling
    assert len(set(waits[5:])) > 10
