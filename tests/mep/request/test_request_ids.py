"""Request ids sort by time and are not met twice."""

from __future__ import annotations

from mep.request import request_ids


def test_they_sort_by_time() -> None:
    times = [0.0, 1.0, 1.5, 1764374400.0, 1764374400.5, 4102444800.0, 2**47 / 1000]
    ids = [request_ids.new(now) for now in times]
    assert sorted(ids) == ids
    assert {len(each) for each in ids} == {16}
    assert set("".join(ids)) <= set("0123456789abcdefghjkmnpqrstvwxyz")


def test_none_is_met_twice_in_one_moment() -> None:
    assert len({request_ids.new(1764374400.0) for _ in range(3000)}) == 3000
