"""The dangerous cases of identity mapping that concern mapping programs.

One test for each row of the table in the specification that we were given. A row says what the official library does,
and what a stricter engine should do; the latter is asserted here, from outside, as a request meets it. The details of
each part are tested beside it.
"""

from __future__ import annotations

import os
import pwd
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from identity.jsontext import DocumentError
from identity.mapper import Mapper
from identity.runner import MapperError
from mep.monitor.stages import mapping_programs
from mep.request.refusal import Refused

from .asking import Write, answers, ask, fails, identify, run, start
from .samples import ALICE, BOB, decide, expression, external, record, text


def test_row_16_failing_mapper(root: None, program: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mep.monitor.stages.mapping_programs.TIME_LIMIT", 0.2)
    for body in ("exit 1", "sleep 9", "echo x", "kill -9 $$"):
        failing = external(program(body))
        with pytest.raises(MapperError):
            decide(Mapper.parse(text(failing, expression())), [record()])
        asked = Mapper.parse(text({**failing, "may_fail": True}, expression()))
        assert decide(asked, [record()]).account == "alice"
    with pytest.raises(Refused) as caught:
        identify(start(record()), text(failing))
    assert "temporary" in caught.value.refusal.reason_for_user


def test_row_28_answers_of_programs(program: Write) -> None:
    fails(program("exec yes"), "more than")
    fails(program("exec yes >&2"), "more than")
    assert run(program(f"printf '%65000s' ''; {answers((ALICE, 'alice'))}")).account == "alice"
    fails(program("""echo '{"result": [], "result": []}'"""), "twice")
    fails(program("printf '\\377'"), "UTF-8")
    fails(program(answers((ALICE, "a"), (BOB, "b"))), "asked for")
    fails(program(answers((ALICE, "a"), (ALICE, "a"))), "twice")
    fails(program(answers((ALICE.replace("-", ""), "a"))), "asked for")
    assert run(program(answers((ALICE.upper(), "alice")))).account == "alice"
    for bad in ("root", "", "1000", "../x", "Alice", "x" * 33, "\xe9"):
        assert run(program(answers((ALICE, bad)))).account is None


def test_row_29_time_limit(program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mep.monitor.stages.mapping_programs.TIME_LIMIT", 0.3)
    begin = time.monotonic()
    fails(program(f"trap '' TERM; sleep 77 & echo $! $$ > {tmp_path}/pids; cat >/dev/null; wait"), "longer than")
    assert time.monotonic() - begin < 60, "nobody waits for the program's child"
    monkeypatch.setattr("mep.monitor.stages.mapping_programs.TIME_LIMIT", 60)
    begin = time.monotonic()
    late = program(f"sleep 77 & echo $! >> {tmp_path}/pids; {answers((ALICE, 'alice'))}")
    assert run(late).account == "alice"
    assert time.monotonic() - begin < 60, "nor does anybody here"
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 3
    assert [pid for pid in pids if is_running(pid)] == []
    assert mapping_programs.AT_ONCE == 4


def is_running(pid: str) -> bool:
    for _ in range(50):
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return False
        except OSError:
            return False
        time.sleep(0.01)
    return True


def test_row_30_environment(program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    seen = tmp_path / "seen"
    run(program(f"(pwd; umask; env) > {seen}"))
    assert not re.search("SECRET|HOME|USER", seen.read_text())
    assert seen.read_text().splitlines()[:2] == ["/", "0077"]
    assert {line.split("=")[0] for line in seen.read_text().splitlines() if "=" in line} <= {
        "LANG",
        "PATH",
        "PWD",
        "MEP_HELPER",
        "_",
    }
    assert "LANG=C.UTF-8\n" in seen.read_text()
    for command in ("map", "./map", "bin/map"):
        with pytest.raises(DocumentError, match="absolute"):
            Mapper.parse(text(external(command)))
    path = program("")
    path.chmod(0o775)
    fails(path, "may write")
    path.chmod(0o755)
    tmp_path.chmod(0o777)
    fails(path, "may write")


def test_row_30_limits_from_the_first_instruction(
    program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = resource.prlimit

    def late(*what: Any) -> Any:  # as on a busy machine
        time.sleep(0.05)
        return prompt(*what)

    monkeypatch.setattr(resource, "prlimit", late)
    run(program(f"(ulimit -v; ulimit -t) > {tmp_path}/seen"))
    assert "unlimited" not in (tmp_path / "seen").read_text()


def test_row_30_another_account(root: None, folder: Path) -> None:
    path = folder / "who"
    path.write_text(f"#!/bin/sh\n{answers((ALICE, 'u$(id -u)')).replace(chr(39) + 'END' + chr(39), 'END')}\n")
    path.chmod(0o755)
    assert run(path, run_as="nobody").account == f"u{pwd.getpwnam('nobody').pw_uid}"
    os.chown(path, 12345, -1)
    fails(path, "12345")


def test_row_31_one_error_class(program: Write, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, program("", interpreter="/nowhere/sh")):
        fails(path)
    path.chmod(0o644)
    fails(path, "is not executable")
    assert run(program(f"printf '\\377' >&2; {answers((ALICE, 'alice'))}")).account == "alice"
    assert "\\ufffd" in fails(program("printf '\\377' >&2; exit 1"), "status 1")


def test_row_32_log_injection(root: None, program: Write) -> None:
    said = fails(program("cat >&2; printf 'a\\nb\\033[31m%4000s' '' >&2; exit 1"), "status 1")
    with pytest.raises(DocumentError) as caught:
        Mapper.parse(text({"DATA_TYPE": "a\nb\x1b[31m" + "x" * 5000}))
    hostile = ask({"output": "{name}"}, record(name="\u202e" + "x" * 900)).refusal
    for line in (said, str(caught.value), str(hostile)):
        assert line.isprintable()
        assert len(line) < 700
    with pytest.raises(Refused) as refusal:
        identify(start(record()), text(external(program("echo SECRET >&2; exit 1"))))
    assert "SECRET" in refusal.value.refusal.reason_for_admin
    assert "SECRET" not in refusal.value.refusal.reason_for_user


def test_row_35_without_assertions(program: Write) -> None:
    path = program(answers((ALICE, "alice")))
    code = f"""
import asyncio
from identity.mapper import Mapper
from identity.runner import MapperError

async def run(*question):
    raise SystemExit("asked")

assert False, "not reached under -O"
mapper = Mapper.parse({text(external(path))!r})
for ids in ({{"gateway_id": None}}, {{"connector_id": "x"}}):
    try:
        print(asyncio.run(mapper.amap([{record()!r}], run=run, **ids)))
    except MapperError as e:
        print("refused")
"""
    found = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "refused\n" * 2
