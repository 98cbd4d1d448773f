"""Which records of an identity set count, and which sets are refused."""

from __future__ import annotations

import pytest

from identity import identities

from .samples import ALICE, BOB, record


@pytest.mark.parametrize("value", [None, {}, "", "alice", 5, True, (), {"identities": []}])
def test_row_14_not_a_list(value: object) -> None:
    with pytest.raises(identities.SetRefused, match="not a list"):
        identities.read(value)


@pytest.mark.parametrize("bad", [None, "x", ["a"], {}, {"sub": ALICE, "status": "used"}])
def test_rows_14_17_bad_records_are_passed_over(bad: object) -> None:
    usable, skipped = identities.read([bad, record()])
    assert [identity.id for identity in usable] == [ALICE]
    assert skipped[0].identity == "record 1"


@pytest.mark.parametrize(
    "bad", ["", 7, None, ["a"], "not-a-uuid", ALICE.replace("-", ""), f"{{{ALICE}}}", f"urn:uuid:{ALICE}", ALICE + "\n"]
)
def test_row_17_strange_ids(bad: object) -> None:
    usable, skipped = identities.read([{**record(), "id": bad}])
    assert (usable, len(skipped)) == ([], 1)


def test_row_17_ids_become_lower_case() -> None:
    (identity,), _ = identities.read([record(ALICE.upper())])
    assert (identity.id, identity.fields["id"]) == (ALICE, ALICE)


@pytest.mark.parametrize("status", ["unused", "closed", "Used", "used ", None, 1, True, ["used"]])
def test_row_18_status(status: object) -> None:
    usable, skipped = identities.read([{**record(), "status": status}, record(BOB, status="private")])
    assert [identity.id for identity in usable] == [BOB]
    assert "status" in skipped[0].reason
    assert identities.read([{"id": ALICE}])[0] == []


def test_row_20_duplicate_ids() -> None:
    assert len(identities.read([record(), record(ALICE.upper())])[0]) == 1
    for other in (record(username="bob@example.org"), record(status="unused"), record(extra=1)):
        with pytest.raises(identities.SetRefused, match="differing"):
            identities.read([record(), other])
    with pytest.raises(identities.SetRefused, match="differing"):
        identities.read([record(x=[{"y": 1}]), record(x=[{"y": True}])])


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\t", "\x1b", "\x7f", "\x85"])
def test_row_04_control_characters(char: str) -> None:
    for fields in ({"username": f"alice{char}"}, {"x": {"y": [char]}}, {f"a{char}": 1}):
        with pytest.raises(identities.SetRefused, match="control"):
            identities.read([record(**fields)])  # type: ignore[arg-type]


def test_row_38_surrogates() -> None:
    with pytest.raises(identities.SetRefused, match="surrogate"):
        identities.read([record(name="\ud800")])


def test_row_12_limits() -> None:
    many = [record(f"aaaaaaaa-0001-4000-8000-{number:012x}") for number in range(65)]
    assert len(identities.read(many[:64])[0]) == 64
    deep: object = 1
    for _ in range(2000):
        deep = [deep]
    for bad in (
        many,
        [record(name="x" * 1025)],
        [record(x=[1] * 300)],
        [record(x=["x" * 1000] * 20)],
        [record(x=deep)],
    ):
        with pytest.raises(identities.SetRefused):
            identities.read(bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 63, b"x", {1, 2}])
def test_values_that_are_not_json(value: object) -> None:
    with pytest.raises(identities.SetRefused):
        identities.read([record(x=value)])


def test_records_that_do_not_count_are_not_examined() -> None:
    assert identities.read([record(name="\n", status="unused"), record(BOB)])[0][0].id == BOB


def test_row_12_empty_lists_count() -> None:
    with pytest.raises(identities.SetRefused, match="larger"):
        identities.read([record(x=[[]] * 300)])
