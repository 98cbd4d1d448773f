"""D-Bus messages as bytes, beside another implementation of them: jeepney's."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney import DBusAddress, Message, Parser, new_error, new_method_call, new_method_return, new_signal
from jeepney.low_level import Endianness

from mep.monitor.containment import dbus
from mep.monitor.containment.dbus import Call, Malformed

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
PLAIN = {
    "s": st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])),
    "o": st.from_regex(r"/|(/[A-Za-z0-9_]+)+", fullmatch=True),
    "g": st.sampled_from(["", "s", "a(sv)", "ssa(sv)a(sa(sv))"]),
    "b": st.booleans(),
    "u": st.integers(0, 2**32 - 1),
    "t": st.integers(0, 2**64 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
}


def of_type(signature: str) -> st.SearchStrategy[Any]:
    """Values of one complete type."""
    if signature in PLAIN:
        return PLAIN[signature]
    if signature == "v":
        return st.sampled_from([*PLAIN, "au", "as", "a(st)"]).flatmap(lambda t: st.tuples(st.just(t), of_type(t)))
    if signature.startswith("a"):
        return st.lists(of_type(signature[1:]), max_size=3)
    return st.tuples(*map(of_type, dbus._types(signature[1:-1])))


def values_of(signature: str) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*map(of_type, dbus._types(signature)))


CALLS = st.sampled_from(["", "s", "ss", "ssi", "sba(sv)", "ssa(sv)a(sa(sv))", "gb", "aat", "a(g(bt))", "v", "oi"])
ANSWERS = st.lists(st.sampled_from([*PLAIN]), max_size=5).map("".join)


@given(st.data(), CALLS, st.integers(1, 2**32 - 1), of_type("o"))
def test_calls_are_the_bytes_that_another_makes(data: st.DataObject, signature: str, serial: int, path: str) -> None:
    values = data.draw(values_of(signature))
    theirs = new_method_call(DBusAddress(path, NAME, MANAGER.interface), "StopUnit", signature or None, values)
    ours = Call(path, NAME, f"{NAME}.Manager", "StopUnit", signature, values)
    assert ours.encode(serial) == theirs.serialise(serial=serial)


def received(message: Message, serial: int = 7, *, big: bool = False) -> bytes:
    """What another implementation sends."""
    message.header.endianness = Endianness.big if big else Endianness.little
    return message.serialise(serial=serial)


def request() -> Message:
    found = Parser()
    found.add_data(new_method_call(MANAGER, "Get").serialise(serial=5))
    message = found.get_next_message()
    assert message is not None
    return message


@given(st.data(), ANSWERS, st.booleans())
def test_answers_are_read_as_another_wrote_them(data: st.DataObject, signature: str, big: bool) -> None:
    values = data.draw(values_of(signature))
    found = dbus.decode(received(new_method_return(request(), signature or None, values), big=big))
    assert (found.kind, found.reply_to) == (dbus.REPLY, 5)
    assert found.values(signature) == values
    with pytest.raises(Malformed, match="where"):
        found.values(signature + "s")


@given(st.data(), st.sampled_from([*PLAIN]), st.booleans())
def test_a_property_is_read(data: st.DataObject, kind: str, big: bool) -> None:
    value = data.draw(of_type(kind))
    assert dbus.decode(received(new_method_return(request(), "v", ((kind, value),)), big=big)).values("v") == (value,)


@given(of_type("s"), of_type("o"), st.booleans())
def test_errors_and_signals_are_read(text: str, job: str, big: bool) -> None:
    error = dbus.decode(received(new_error(request(), f"{NAME}.NoSuchUnit", "s", (text,)), big=big))
    assert (error.kind, error.reply_to, error.error) == (dbus.ERROR, 5, f"{NAME}.NoSuchUnit")
    assert error.values("s") == (text,)
    signal = dbus.decode(received(new_signal(MANAGER, "JobRemoved", "uoss", (7, job, text, "done")), big=big))
    assert (signal.kind, signal.member, signal.values("uoss")) == (dbus.SIGNAL, "JobRemoved", (7, job, text, "done"))


def test_the_body_of_any_signal_is_passed_over() -> None:
    changed = new_signal(MANAGER, "PropertiesChanged", "sa{sv}as", ("x", {"a": ("aas", [["y"]])}, ["z"]))
    found = dbus.decode(received(changed))
    assert found.member == "PropertiesChanged"
    with pytest.raises(Malformed, match="not known"):
        found.values("sa{sv}as")


JOB_REMOVED = received(new_signal(MANAGER, "JobRemoved", "uoss", (7, "/job/7", "x.scope", "done")))


def read(data: bytes) -> None:
    dbus.decode(data).values("uoss")


@given(st.integers(0, len(JOB_REMOVED) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(at: int, value: int) -> None:
    changed = bytearray(JOB_REMOVED)
    changed[at] = value
    try:
        read(bytes(changed))
    except Malformed as error:
        assert str(error)


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(data: bytes) -> None:
    for what in (data, JOB_REMOVED[:4] + data, JOB_REMOVED[: dbus.PREFIX] + data):
        with pytest.raises(Malformed):
            read(what)


@pytest.mark.parametrize("length", range(len(JOB_REMOVED)))
def test_a_part_is_no_message(length: int) -> None:
    with pytest.raises(Malformed):
        read(JOB_REMOVED[:length])


def with_number(at: int, value: int) -> bytes:
    changed = bytearray(JOB_REMOVED)
    struct.pack_into("<I", changed, at, value)
    return bytes(changed)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"x" + JOB_REMOVED[1:], "no D-Bus message begins with 78"),
        (JOB_REMOVED[:1] + b"\0" + JOB_REMOVED[2:], "no D-Bus message"),
        (JOB_REMOVED[:1] + b"\5" + JOB_REMOVED[2:], "no D-Bus message"),
        (JOB_REMOVED[:3] + b"\2" + JOB_REMOVED[4:], "no D-Bus message"),
        (with_number(8, 0), "without number"),
        (with_number(4, dbus.LARGEST), "of more than"),
        (with_number(12, 2**32 - 1), "of more than"),
        (JOB_REMOVED.replace(b"done\0", b"done\1"), "a text without end"),
        (JOB_REMOVED.replace(b"done\0", b"d\0ne\0"), "not of type s"),
        (JOB_REMOVED.replace(b"done\0", b"don\xff\0"), "not UTF-8"),
        (JOB_REMOVED.replace(b"/job/7", b"/job//"), "not of type o"),
        (JOB_REMOVED.replace(b"\x02\x01s", b"\x01\x01s"), "or there twice"),
        (JOB_REMOVED.replace(b"\x02\x01s", b"\x02\x01o"), "of type"),
        (JOB_REMOVED.replace(b"\x02\x01s", b"\x02\x01v"), "a variant in a variant"),
        (JOB_REMOVED.replace(b"\x03\x01s", b"\x0a\x01s"), "no field 3"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(data)


def test_the_largest_message_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(Malformed, match="of more than"):
        dbus.rest_of(with_number(4, dbus.LARGEST)[: dbus.PREFIX])


LONG = "x" * dbus.LARGEST
CALL = Call("/a", NAME, f"{NAME}.Manager", "StopUnit", "su", ("x.scope", 1))


@pytest.mark.parametrize(
    "call",
    [
        replace(CALL, values=("x.scope",)),
        replace(CALL, values=("x.scope", 1, 2)),
        replace(CALL, values=(1, 1)),
        replace(CALL, values=("x\0", 1)),
        replace(CALL, values=("\udc80", 1)),
        replace(CALL, values=("x", -1)),
        replace(CALL, values=("x", True)),
        replace(CALL, values=("x", "1")),
        replace(CALL, signature="b", values=(1,)),
        replace(CALL, signature="v", values=(("ss", "x"),)),
        replace(CALL, signature="v", values=("x",)),
        replace(CALL, signature="as", values=(1,)),
        replace(CALL, signature="(s", values=(("x",),)),
        replace(CALL, signature="a", values=([],)),
        replace(CALL, signature="h", values=(1,)),
        replace(CALL, path="a"),
        replace(CALL, values=(LONG, 1)),
    ],
    ids=lambda call: repr(call.values)[:40],
)
def test_values_that_do_not_fit_are_not_sent(call: Call) -> None:
    with pytest.raises(Malformed, match="StopUnit cannot be called like this"):
        call.encode(1)
