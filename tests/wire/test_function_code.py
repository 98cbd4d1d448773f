"""Parts of tasks, as the SDK packs them."""

from __future__ import annotations

import hashlib

import pytest
from globus_compute_sdk.sdk.client import FunctionRegistrationData
from globus_compute_sdk.serialize import ComputeSerializer

from wire import function_code


def double(n: int) -> int:
    return 2 * n


def test_what_is_hashed_is_the_one_part_of_what_the_sdk_registers_and_the_first_of_a_task() -> None:
    serializer = ComputeSerializer()
    registered = FunctionRegistrationData(function=double).function_code
    (code,) = function_code.split(registered)
    task = registered + serializer.pack_buffers([serializer.serialize((1,)), serializer.serialize({})])
    assert function_code.split(task)[0] == code
    assert len(function_code.split(task)) == 3
    assert function_code.join(function_code.split(task)) == task
    assert function_code.sha256(code) == hashlib.sha256(code.encode()).hexdigest()


@pytest.mark.parametrize(
    "packed",
    ["x", "3\nab", "+1\na", " 1\na", "01\na", "1_0\n" + 10 * "a", "1\r\na", "-1\na", "1", "\u0661\na", "1\na\n"],
)
def test_lengths_have_one_form(packed: str) -> None:
    with pytest.raises(function_code.NotPacked):
        function_code.split(packed)


def test_lengths_are_of_characters() -> None:
    assert function_code.split("2\nä\n1\nb0\n") == ["ä\n", "b", ""]
    assert function_code.split("") == []


def test_what_has_no_form_in_utf_8_has_no_hash() -> None:
    with pytest.raises(function_code.NotPacked):
        function_code.sha256("\ud800")
