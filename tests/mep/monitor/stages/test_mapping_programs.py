"""Mapping programs: real ones, as scripts, run as an ordinary account, and asked through a mapper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import resource
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from identity.decision import Decision
from identity.jsontext import DocumentError
from identity.mapper import POSIX_CONNECTOR, Mapper
from identity.runner import MapperError
from lab.accounts import LocalAccount
from lab.hanging import HangingFolder
from lab.waiting import aiountil, until
from mep.accounts import look_up
from mep.monitor.stages import mapping_programs
from mep.request.account import Account
from mep.request.mapping_program import ProgramFailed
from mep.request.refusal import Refused
from tests.hanging import hang
from tests.identity.samples import ALICE, BOB, answer, decide, entry, external, record, run, text
from tests.own_children import own_children

pytestmark = pytest.mark.usefixtures("root")

Write = Callable[..., Path]


def says(output: str, before: str = "") -> str:
    return f"{before}\ncat >/dev/null\nprintf '%s' '{output}'"


def ask(*command: object, records: object = None) -> Decision:
    return decide(Mapper.parse(text(external(*command)), "m.json"), records or [record()], gateway_id=BOB)


@pytest.fixture
def hanging() -> Iterator[HangingFolder]:
    """A folder on a file system that does not answer."""
    path = Path(tempfile.mkdtemp(prefix="mep-hanging-"))
    path.chmod(0o755)
    folder = hang(path)
    yield folder
    folder.stop()
    folder.path.rmdir()


async def unknown(_name: str) -> Account | None:
    """A name service that knows nobody."""
    return None


def test_answer(program: Write) -> None:
    path = program(says(answer(entry())))
    decision = ask(path)
    assert (decision.account, decision.candidates) == ("alice", [[{ALICE: ["alice"]}]])
    assert str(decision.rule).startswith("m.json:1, document 1: program ")


def test_what_the_program_gets(program: Write, public: Path) -> None:
    seen = public / "seen"
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
def test_row_28_output_limits(no_hang: None, program: Write, stream: str) -> None:
    with pytest.raises(MapperError, match="more than"):
        ask(program(f"exec yes {stream}"))


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


def test_row_29_time_limit(no_hang: None, program: Write, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping_programs, "TIME_LIMIT", 0.3)
    path = program(f"sleep 77 & echo $! > {public}/child; echo $$ > {public}/main; trap '' TERM; wait")
    with pytest.raises(MapperError, match="longer than"):
        ask(path)
    until(lambda: not alive(public / "child"), "the end of the child")
    until(lambda: not alive(public / "main"), "the end of the program")


def test_row_29_grandchild_that_keeps_the_output(no_hang: None, program: Write, public: Path) -> None:
    path = program(f"sleep 77 & echo $! > {public}/child; echo '{answer(entry())}'")
    assert ask(path).account == "alice"
    until(lambda: not alive(public / "child"), "the end of the child")


def test_row_29_cancelled_request_leaves_nothing(program: Write, public: Path) -> None:
    path = program(f"echo $$ > {public}/main; sleep 77")
    mapper = Mapper.parse(text(external(path)))

    async def cancel() -> None:
        task = asyncio.ensure_future(mapper.amap([record()], run=run))
        await aiountil(lambda: (public / "main").exists() and (public / "main").read_text(), "its number")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    until(lambda: not alive(public / "main"), "the end of the program")


def test_row_29_at_most_four_at_once(program: Write, public: Path) -> None:
    lock = public / "running"
    lock.mkdir()
    lock.chmod(0o777)
    path = program(f"touch {lock}/$$; ls {lock} | wc -l >> {public}/counts; sleep 0.1; rm {lock}/$$")
    nobody = look_up.account("nobody")
    assert nobody is not None

    async def many(programs: mapping_programs.MappingPrograms) -> None:
        await asyncio.gather(*(programs.run([str(path)], b"%d" % n, None) for n in range(10)))

    asyncio.run(many(mapping_programs.MappingPrograms(unknown, nobody)))
    counts = [int(line) for line in (public / "counts").read_text().split()]
    assert len(counts) == 10
    assert max(counts) <= mapping_programs.AT_ONCE


def test_one_requester_with_many_requests_has_one_run_and_holds_up_nobody(
    program: Write, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping_programs, "TIME_LIMIT", 60.0)
    (public / "asked").touch(mode=0o666)
    (public / "asked").chmod(0o666)
    path = program(
        f"who=$(cat); echo $who >> {public}/asked; [ $who = bob ] || while [ ! -e {public}/go ]; do sleep 0.05; done"
    )
    nobody = look_up.account("nobody")
    assert nobody is not None

    async def many(programs: mapping_programs.MappingPrograms) -> None:
        stranger = [asyncio.create_task(programs.run([str(path)], b"stranger", None)) for _ in range(300)]
        await aiountil(lambda: (public / "asked").read_text(), "the stranger's first run")
        more = [asyncio.create_task(programs.run([str(path)], b"stranger", None)) for _ in range(300)]
        await programs.run([str(path)], b"bob", None)
        assert (public / "asked").read_text().split() == ["stranger", "bob"]
        (public / "go").touch()
        await asyncio.gather(*stranger, *more)

    asyncio.run(many(mapping_programs.MappingPrograms(unknown, nobody)))
    assert (public / "asked").read_text().split() == ["stranger", "bob", "stranger"]


def test_no_descriptors_are_left_open(program: Write) -> None:
    good, bad = program(says(answer(entry())), name="good"), program("exit 1", name="bad")
    before = len(os.listdir("/proc/self/fd"))
    ask(good)
    for path in (bad, "/nowhere/program"):
        with pytest.raises(MapperError):
            ask(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_row_30_program_that_others_can_change(program: Write, public: Path) -> None:
    path = program(says(answer(entry())))
    path.chmod(0o775)
    with pytest.raises(MapperError, match="may write"):
        ask(path)
    path.chmod(0o755)
    public.chmod(0o777)
    with pytest.raises(MapperError, match="may write"):
        ask(path)


def test_row_30_program_of_somebody_else(program: Write, public: Path, root: None) -> None:
    path = program(says(answer(entry())))
    os.chown(path, 12345, -1)
    with pytest.raises(MapperError, match="12345"):
        ask(path)


def test_row_30_links_are_followed_and_checked(program: Write, public: Path) -> None:
    path = program(says(answer(entry())))
    (public / "link").symlink_to("sub/../map")
    (public / "sub").mkdir()
    assert ask(public / "link").account == "alice"
    (public / "sub").chmod(0o777)
    with pytest.raises(MapperError, match="may write"):
        ask(public / "link")
    (public / "loop").symlink_to("loop")
    with pytest.raises(MapperError, match="links"):
        ask(public / "loop")
    assert path.exists()


@pytest.mark.parametrize("what", ["missing", "directory", "mode", "format"])
def test_row_31_programs_that_cannot_start(program: Write, public: Path, what: str) -> None:
    path = program("exit 0", interpreter="/nowhere/sh") if what == "format" else program("exit 0")
    if what == "mode":
        path.chmod(0o644)
    with pytest.raises(MapperError):
        ask({"missing": public / "none", "directory": public}.get(what, path))


def test_no_thread_stays_behind(program: Write) -> None:
    async def threads() -> int:
        await Mapper.parse(text(external(program("exit 0"))), "m.json").amap([record()], gateway_id=BOB, run=run)
        return len(os.listdir("/proc/self/task"))

    before = len(os.listdir("/proc/self/task"))
    assert asyncio.run(threads()) == before


def test_row_29_a_program_may_clean_up(program: Write, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is stopped for; here for too much output, which comes once it is ready to clean up."""
    monkeypatch.setattr(mapping_programs, "GRACE", 20.0)
    clean_up = f"trap 'touch {public}/cleaned; exit 1' TERM; head -c 9000 /dev/zero >&2"
    with pytest.raises(MapperError, match="more than"):
        ask(program(f"{clean_up}; while :; do sleep 0.05; done"))
    assert (public / "cleaned").exists()


def test_an_exit_status_that_somebody_else_took_is_no_success(program: Write) -> None:
    async def ask_beside_a_reaper() -> None:
        question = asyncio.ensure_future(run([str(program("sleep 0.1; exit 7"))], b"", None))
        while not question.done():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            await asyncio.sleep(0)
        with pytest.raises(MapperError):
            question.result()

    asyncio.run(ask_beside_a_reaper())


def whoami(program: Write) -> Path:
    said = answer({"id": ALICE, "output": "u$(id -u)"}).replace('"', '\\"')
    return program(f'echo "{said}"')


def test_a_program_is_never_root(program: Write) -> None:
    nobody = f"u{pwd.getpwnam('nobody').pw_uid}"
    path = whoami(program)
    assert ask(path).account == nobody
    assert decide(Mapper.parse(text({**external(path), "run_as": "daemon"})), [record()]).account == "u1"
    with pytest.raises(MapperError, match="'toor'"):
        decide(Mapper.parse(text({**external(path), "run_as": "toor"})), [record()])
    with pytest.raises(DocumentError, match=r"run_as.*'root' is the administrator"):
        Mapper.parse(text({**external(path), "run_as": "root"}))


def test_an_account_in_roots_group_is_refused(program: Write) -> None:
    with LocalAccount("mepmaptest_r", arguments=("--groups", "root")) as made, pytest.raises(MapperError) as caught:
        decide(Mapper.parse(text({**external(program("exit 0")), "run_as": made.name})), [record()])
    assert "member of root's group" in str(caught.value)


def test_a_program_has_no_rights_and_cannot_gain_any(program: Write, public: Path) -> None:
    ask(program(f"cat /proc/self/status > {public}/seen"))
    status = dict(line.split(":\t", 1) for line in (public / "seen").read_text().splitlines())
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert status["Groups"].split() == [str(gid) for gid in os.getgrouplist("nobody", pwd.getpwnam("nobody").pw_gid)]


def test_a_program_leads_a_session_and_has_three_descriptors(program: Write, public: Path) -> None:
    look = f"""\
    import os
    fds = [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{{fd}}")]
    with open("{public}/seen", "w") as f:
        print(sorted(fds), os.getpid() == os.getpgid(0) == os.getsid(0), os.readlink("/proc/self/fd/0"), file=f)
    """
    (public / "seen").touch()
    (public / "seen").chmod(0o666)
    public.chmod(0o755)  # Python would import from there what others may add
    ask(program(textwrap.dedent(look), interpreter="/usr/bin/python3"))
    assert (public / "seen").read_text() == "['0', '1', '2'] True /memfd:identities (deleted)\n"


@pytest.mark.parametrize("mode", [0o700, 0o744, 0o711])
def test_what_the_account_cannot_execute_is_refused_with_the_remedy(program: Write, mode: int) -> None:
    path = program("exit 0")
    path.chmod(mode)
    with pytest.raises(MapperError) as caught:
        ask(path)
    assert "account 'nobody'" in str(caught.value)
    if mode != 0o711:  # that is executed, and the shell cannot read it
        assert "read and execute it" in str(caught.value)
        assert "`run_as`" in str(caught.value)


def test_a_name_service_without_an_answer_is_a_failure_of_the_program(program: Write) -> None:
    async def silent(_name: str) -> Account | None:
        raise Refused("account", "the name service does not answer", "Try again later.")

    nobody = look_up.account("nobody")
    assert nobody is not None
    with pytest.raises(ProgramFailed, match="'alice': the name service does not answer"):
        asyncio.run(mapping_programs.MappingPrograms(silent, nobody).run([str(program("exit 0"))], b"", "alice"))


def test_the_limits_are_these() -> None:
    assert (mapping_programs.TIME_LIMIT, mapping_programs.AT_ONCE) == (5.0, 4)
    assert (mapping_programs.MAX_STDOUT, mapping_programs.MAX_STDERR) == (65536, 8192)
    assert mapping_programs.LIMITS == {
        resource.RLIMIT_CPU: 5,
        resource.RLIMIT_AS: 2**30,
        resource.RLIMIT_FSIZE: 64 * 2**20,
        resource.RLIMIT_CORE: 0,
    }


def test_a_program_has_its_limits(program: Write, public: Path) -> None:
    ask(program(f"cat /proc/self/limits > {public}/limits"))
    found = {line[:26].strip(): line[26:68].split() for line in (public / "limits").read_text().splitlines()}
    assert found["Max cpu time"] == ["5", "5"]
    assert found["Max address space"] == [str(2**30)] * 2
    assert found["Max file size"] == [str(64 * 2**20)] * 2
    assert found["Max core file size"] == ["0", "0"]


def test_a_program_that_takes_too_much_memory_or_time_is_stopped(program: Callable[..., Path], public: Path) -> None:
    public.chmod(0o755)
    hungry = program("import time; time.sleep(0.2); x = bytearray(2 << 30)", interpreter="/usr/bin/python3")
    with pytest.raises(MapperError, match="MemoryError"):
        decide(Mapper.parse(text(external(hungry))), [record()])


def test_a_script_is_trusted_like_its_interpreter(program: Write, public: Path) -> None:
    public.chmod(0o755)
    path = program(says(answer(entry())))
    assert ask("/bin/sh", path).account == "alice"
    path.chmod(0o777)
    with pytest.raises(MapperError, match=f"chmod go-w {path}"):
        ask("/bin/sh", path)
    path.chmod(0o755)
    (public / "json.py").touch()
    (public / "json.py").chmod(0o666)
    with pytest.raises(MapperError, match=r"json\.py"):
        ask("/bin/sh", path)


def test_where_nothing_answers_one_process_waits_for_each_program(
    no_hang: None, program: Write, hanging: HangingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping_programs, "START_LIMIT", 2.0)
    path, good, before = str(hanging.path / "map"), program(says(answer(entry()))), own_children()
    nobody = look_up.account("nobody")
    assert nobody is not None
    programs = mapping_programs.MappingPrograms(unknown, nobody)

    async def story() -> None:
        asked = [asyncio.ensure_future(programs.run([path], b"", None)) for _ in range(9)]
        await aiountil(hanging.take, "a process to wait for the file system")
        for failure in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(failure, ProgramFailed) and "does not answer" in str(failure)
        assert len(own_children() - before) == 1, "one looks, whoever asks"
        with pytest.raises(ProgramFailed, match="not tried again before"):
            await programs.run([path], b"", None)
        assert b"alice" in await programs.run([str(good)], b"", None), "other programs go on"
        assert len(own_children() - before) == 1
        hanging.stop()
        await aiountil(lambda: not own_children() - before, "its end")
        with pytest.raises(ProgramFailed, match="cannot be executed"):
            await programs.run([path], b"", None)

    asyncio.run(story())


def test_a_program_that_cannot_be_killed_is_not_started_again(
    no_hang: None, program: Write, hanging: HangingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping_programs, "TIME_LIMIT", 2.0)
    monkeypatch.setattr(mapping_programs, "GRACE", 0.1)
    path, before = program(f"exec cat {hanging.path}/table"), own_children()
    nobody = look_up.account("nobody")
    assert nobody is not None
    programs = mapping_programs.MappingPrograms(unknown, nobody)

    async def story() -> None:
        first = asyncio.ensure_future(programs.run([str(path)], b"", None))
        await aiountil(hanging.take, "the program to wait for the file system")
        with pytest.raises(ProgramFailed, match="longer than"):
            await first
        with pytest.raises(ProgramFailed, match="not tried again before"):
            await programs.run([str(path)], b"", None)
        assert len(own_children() - before) == 1
        hanging.stop()
        await aiountil(lambda: not own_children() - before, "its end")

    asyncio.run(story())
