from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.uep.handovers import ENDPOINT, handover
from uep.handover import HandOverError, decode


def test_what_the_public_manager_sends() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        os.set_inheritable(fd, True)
        got = decode(handover(mem_fd=fd, enckey="k", allowed_functions=["AB"]))
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    assert (got.endpoint_id, got.credentials_fd, got.key) == (ENDPOINT, fd, "k")
    assert (got.restricts_functions, got.allowed_functions) == (True, frozenset({"ab"}))
    assert "secret" not in repr(got)


def test_optional_keys_may_be_missing() -> None:
    got = decode(handover(future_key=1))
    assert (got.credentials_fd, got.key, got.report_fd, got.audit_fd) == (None, None, None, None)
    assert not got.restricts_functions
    assert got.pinned_functions is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config": "absent"}, "config: expected str"),
        ({"ep_info": []}, "ep_info"),
        ({"amqp_creds": {}}, "endpoint_id|task_queue_info"),
        ({"mem_fd": 987, "enckey": "k"}, "mem_fd: descriptor 987 is not open"),
        ({"report_fd": "4"}, "report_fd: expected a descriptor number"),
        ({"allowed_functions": "f"}, "allowed_functions"),
        ({"enckey": 5}, "enckey"),
        ({"pinned_functions": ["f"]}, "pinned_functions"),
        ({"pinned_functions": {"f": "0F" * 32}}, "pinned_functions"),
    ],
)
def test_wrong(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(HandOverError, match=says):
        decode(handover(**changes))


@given(st.binary())
def test_arbitrary_bytes(raw: bytes) -> None:
    with pytest.raises(HandOverError):
        decode(raw)


def test_standard_input_is_empty_afterwards() -> None:
    program = "from uep.handover import take_input; import sys; print(len(take_input()), repr(sys.stdin.read()))"
    done = subprocess.run([sys.executable, "-c", program], input=b"x" * 200_000, capture_output=True, check=True)
    assert done.stdout == b"200000 ''\n"
