"""Mapping programs: real ones, as scripts, asked through a mapper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from identity.decision import Decision
from identity.mapper import POSIX_CONNECTOR, Mapper
from identity.runner import MapperError
from mep.mapper import program as runner
from tests.identity.samples import ALICE, BOB, answer, decide, entry, external, record, text

Write = Callable[..., Path]


def says(output: str, before: str = "") -> str:
    return f"{before}\ncat >/dev/null\nprintf '%s' '{output}'"


def ask(*command: object, records: object = None) -> Decision:
    return decide(Mapper.parse(text(external(*command)), "m.json"), records or [record()], gateway_id=BOB)


def test_answer(program: Write) -> None:
    path = program(says(answer(entry())))
    decision = ask(path)
    assert (decision.account, decision.candidates) == ("alice", [[{ALICE: ["alice"]}]])
    assert str(decision.rule).startswith("m.json:1, document 1: program ")


def test_what_the_program_gets(program: Write, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    path = program(f'umask > {seen}; pwd >> {seen}; env | sort >> {seen}; printf "%s\\n" "$@" >> {seen}; cat >> {seen}')
    assert ask(path, "x y", records=[record(name="é")]).account is None
    lines = seen.read_text().splitlines()
    assert lines[:2] == ["0077", "/"]
    assert "LANG=C.UTF-8" in lines
    assert not [line for line in lines if line.startswith("HOME=")]
    assert lines[-7:-1] == ["x y", "-c", POSIX_CONNECTOR, "-s", BOB, "-a"]
    assert json.loads(lines[-1]) == {"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": [record(name="é")]}
    assert lines[-1].isascii()


def test_row_28_bytes_that_are_not_utf8(program: Write) -> None:
    with pytest.raises(MapperError, match="UTF-8"):
        ask(program("printf '\\377'"))


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_row_28_output_limits(program: Write, stream: str) -> None:
    begin = time.monotonic()
    with pytest.raises(MapperError, match="more than"):
        ask(program(f"exec yes {stream}"))
    assert time.monotonic() - begin < 2


def test_row_28_large_answers_fit(program: Write) -> None:
    assert ask(program(says(" " * 65000 + answer(entry())))).account == "alice"


@pytest.mark.parametrize("body", ["exit 3", "kill -9 $$", f"echo '{answer(entry())}'; exit 1"])
def test_row_16_exit_status(program: Write, body: str) -> None:
    with pytest.raises(MapperError, match="status"):
        ask(program(body))


def test_row_31_noise_on_stderr(program: Write) -> None:
    assert ask(program(says(answer(entry()), "printf '\\377' >&2"))).account == "alice"


def test_row_32_error_text(program: Write) -> None:
    with pytest.raises(MapperError) as caught:
        ask(program("cat >/dev/null; printf 'a\\nb\\033[31m' >&2; head -c 5000 /dev/zero >&2; exit 1"))
    assert "a\\nb\\x1b" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert "alice@example.org" not in str(caught.value)


def alive(pid_file: Path) -> bool:
    """Whether the process is there and not just waiting to be reaped by init."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{int(pid_file.read_text())}/status").read_text()
    except OSError:
        return False


def gone(pid_file: Path) -> bool:
    for _ in range(100):
        if not alive(pid_file):
            return True
        time.sleep(0.01)
    return False


def test_row_29_time_limit(program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TIME_LIMIT", 0.3)
    path = program(f"sleep 77 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/main; trap '' TERM; wait")
    begin = time.monotonic()
    with pytest.raises(MapperError, match="longer than"):
        ask(path)
    assert time.monotonic() - begin < 2
    assert gone(tmp_path / "child")
    assert gone(tmp_path / "main")


def test_row_29_grandchild_that_keeps_the_output(program: Write, tmp_path: Path) -> None:
    path = program(f"sleep 77 & echo $! > {tmp_path}/child; echo '{answer(entry())}'")
    begin = time.monotonic()
    assert ask(path).account == "alice"
    assert time.monotonic() - begin < 2
    assert gone(tmp_path / "child")


def test_row_29_cancelled_request_leaves_nothing(program: Write, tmp_path: Path) -> None:
    path = program(f"echo $$ > {tmp_path}/main; sleep 77")
    mapper = Mapper.parse(text(external(path)))

    async def cancel() -> None:
        task = asyncio.ensure_future(mapper.amap([record()], run=runner.run))
        while not (tmp_path / "main").exists() or not (tmp_path / "main").read_text():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert gone(tmp_path / "main")


def test_row_29_at_most_four_at_once(program: Write, tmp_path: Path) -> None:
    lock = tmp_path / "running"
    lock.mkdir()
    path = program(f"touch {lock}/$$; ls {lock} | wc -l >> {tmp_path}/counts; sleep 0.1; rm {lock}/$$")
    mapper = Mapper.parse(text(external(path)))

    async def many() -> None:
        await asyncio.gather(*(mapper.amap([record()], run=runner.run) for _ in range(10)))

    asyncio.run(many())
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert len(counts) == 10
    assert max(counts) <= runner.AT_ONCE


def test_no_descriptors_are_left_open(program: Write) -> None:
    good, bad = program(says(answer(entry())), name="good"), program("exit 1", name="bad")
    before = len(os.listdir("/proc/self/fd"))
    ask(good)
    for path in (bad, "/nowhere/program"):
        with pytest.raises(MapperError):
            ask(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_row_30_program_that_others_can_change(program: Write, tmp_path: Path) -> None:
    path = program(says(answer(entry())))
    path.chmod(0o775)
    with pytest.raises(MapperError, match="may write"):
        ask(path)
    path.chmod(0o755)
    tmp_path.chmod(0o777)
    with pytest.raises(MapperError, match="may write"):
        ask(path)


def test_row_30_program_of_somebody_else(program: Write, tmp_path: Path, root: None) -> None:
    path = program(says(answer(entry())))
    os.chown(path, 12345, -1)
    with pytest.raises(MapperError, match="12345"):
        ask(path)


def test_row_30_links_are_followed_and_checked(program: Write, tmp_path: Path) -> None:
    path = program(says(answer(entry())))
    (tmp_path / "link").symlink_to("sub/../map")
    (tmp_path / "sub").mkdir()
    assert ask(tmp_path / "link").account == "alice"
    (tmp_path / "sub").chmod(0o777)
    with pytest.raises(MapperError, match="may write"):
        ask(tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MapperError, match="links"):
        ask(tmp_path / "loop")
    assert path.exists()


@pytest.mark.parametrize("what", ["missing", "directory", "mode", "format"])
def test_row_31_programs_that_cannot_start(program: Write, tmp_path: Path, what: str) -> None:
    path = program("exit 0", interpreter="/nowhere/sh") if what == "format" else program("exit 0")
    if what == "mode":
        path.chmod(0o644)
    with pytest.raises(MapperError):
        ask({"missing": tmp_path / "none", "directory": tmp_path}.get(what, path))


def test_no_thread_stays_behind(program: Write) -> None:
    async def threads() -> int:
        await Mapper.parse(text(external(program("exit 0"))), "m.json").amap([record()], gateway_id=BOB, run=runner.run)
        return len(os.listdir("/proc/self/task"))

    before = len(os.listdir("/proc/self/task"))
    assert asyncio.run(threads()) == before


def test_row_29_a_program_may_clean_up(program: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TIME_LIMIT", 0.3)
    with pytest.raises(MapperError, match="longer than"):
        ask(program(f"trap 'touch {tmp_path}/cleaned; exit 1' TERM; while :; do sleep 0.05; done"))
    assert (tmp_path / "cleaned").exists()


def test_an_exit_status_that_somebody_else_took_is_no_success(program: Write) -> None:
    async def ask_beside_a_reaper() -> None:
        question = asyncio.ensure_future(runner.run([str(program("sleep 0.1; exit 7"))], b"", None))
        while not question.done():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            await asyncio.sleep(0)
        with pytest.raises(MapperError):
            question.result()

    asyncio.run(ask_beside_a_reaper())


def test_a_program_may_run_as_another_account(root: None, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to others
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "map"
        said = answer({"id": ALICE, "output": "u$(id -u)"}).replace('"', '\\"')
        path.write_text(f'#!/bin/sh\necho "{said}"\n')
        path.chmod(0o755)
        document = {**external(path), "run_as": "nobody"}
        decision = decide(Mapper.parse(text(document)), [record()])
    assert decision.account == f"u{pwd.getpwnam('nobody').pw_uid}", decision


def test_a_program_that_takes_too_much_memory_or_time_is_stopped(program: Callable[..., Path]) -> None:
    hungry = program("import time; time.sleep(0.2); x = bytearray(2 << 30)", interpreter="/usr/bin/python3")
    with pytest.raises(MapperError, match="MemoryError"):
        decide(Mapper.parse(text(external(hungry))), [record()])
