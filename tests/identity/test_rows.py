"""The dangerous cases of identity mapping, one test for each row of the table in the specification that we were given.

A row says what the official library does and what a stricter engine should do; the latter is asserted here, from
outside, as a request meets it. The details of each part are tested beside it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import json
import logging
import os
import pwd
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from identity import pattern
from identity.account_name import problem
from identity.decision import Decision
from identity.jsontext import DocumentError
from identity.mapper import Mapper
from identity.runner import MapperError
from mep.mapper import mapping
from mep.monitor import manager
from mep.monitor.requests import admission, mapping_programs, plan
from mep.monitor.requests import name_service as account
from mep.privileged import spec
from mep.profile.config import ManagerConfig
from mep.profile.errors import ConfigError
from mep.reader import files
from mep.request.account import Account
from mep.request.refusal import Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint
from tests.mep.conftest import MANAGER

from .samples import ALICE, BOB, decide, expression, external, record, text

Write = Callable[..., Path]
ALICES = Account("alice", 54321, 54321, "Alice", "/home/alice", "/bin/bash", (54321, 100))
CAROL = "cccccccc-0003-4000-8000-00000000000c"


def ask(rules: dict[str, object] | list[dict[str, object]], *records: object, **more: Any) -> Decision:
    """The decision for these records, by one document with these mappings."""
    mappings = rules if isinstance(rules, list) else [rules]
    return decide(Mapper.parse(text(expression(*mappings)), "m.json"), list(records), **more)


def name(rules: dict[str, object] | list[dict[str, object]], **fields: Any) -> str | None:
    """The account of one identity with these fields."""
    return ask(rules, record(**fields)).account


def refused(rules: dict[str, object]) -> str:
    with pytest.raises(DocumentError) as caught:
        Mapper.parse(text(expression(rules)), "m.json")
    return str(caught.value)


def hinted(**rules: object) -> str:
    return "\n".join(str(hint) for hint in Mapper.parse(text(expression(rules)), "m.json").hints)


def answers(*entries: tuple[str, str]) -> str:
    """What a mapping program writes that gives these names to these identities."""
    said = json.dumps({"result": [{"id": who, "output": output} for who, output in entries]})
    return f"cat >/dev/null; cat <<'END'\n{said}\nEND"


def run(path: Path, *records: object, **more: object) -> Decision:
    return decide(Mapper.parse(text({**external(path), **more}), "m.json"), list(records or (record(),)))


def fails(path: Path, match: str | None = None) -> str:
    with pytest.raises(MapperError, match=match) as caught:
        run(path)
    return str(caught.value)


def start(*records: dict[str, object]) -> StartEndpoint:
    """A request of the first of these identities."""
    target: Any = None
    return StartEndpoint("r1", f"uep.{MANAGER}", MANAGER, {}, {}, {}, target, ALICE, "alice", list(records))


def test_row_01_cost_of_matching() -> None:
    begin = time.monotonic()
    for match in ("(a*)*b", "(.*)*@x", "((a*)*)*b", r"(.*\.)*@x", "(.*)(.*)(.*)@x", "(a|a)*b", "(a?)*" * 19 + "b"):
        assert name({"match": match, "output": "x"}, username="a." * 512) is None
        assert name({"match": match, "output": "x"}, username="a" * 1024) is None
    assert time.monotonic() - begin < 5
    assert name({"source": "{name}{name}", "match": "(.*)", "output": "x"}, name="a" * 513) is None
    assert "8192" in refused({"match": "a" * 8193})
    assert "20 groups" in refused({"match": "(a)" * 21})
    for part in ("pattern", "pattern_syntax", "nfa", "tails", "lookup", "expression", "template"):
        assert not hasattr(sys.modules[f"identity.{part}"], "re"), "no Python `re` on administrators' patterns"


def test_row_01_long_source_decides_alike_in_any_order() -> None:
    literal: dict[str, object] = {"source": "{name}{name}", "match": "q", "literal": True, "output": "a"}
    large: dict[str, object] = {"source": "{name}{name}", "match": "(.*)", "output": "b"}
    found = [name([*first, {}], name="x" * 600) for first in ([large], [large, literal], [literal, large])]
    assert found == [None, None, None]


def test_row_02_suffix_attack() -> None:
    rules: dict[str, object] = {"match": r"alice@example\.org|bob@example\.net", "output": "x"}
    assert name(rules, username="bob@example.net") == name(rules, username="alice@example.org") == "x"
    for username in ("alice@example.org.evil", "bob@example.net.evil", "xbob@example.net"):
        assert name(rules, username=username) is None
    assert name({}, username="x@example.org.evil") is None
    assert "backslash" in refused({"match": "abc\\", "output": "x"})
    assert "backslash" in refused({"match": "abc" + "\\" * 3, "output": "x"})


def test_row_03_unescaped_dot() -> None:
    assert name({"match": "(.*)@example.org"}, username="x@exampleXorg") == "x"
    assert "any character" in hinted(match="(.*)@example.org")
    for match in (r"(.*)@example\.org", "(.)@x", ".*@x", ".?@x"):
        assert "any character" not in hinted(match=match, output="x")


def test_row_04_trailing_newline() -> None:
    assert pattern.compile_match(r"(.*)@example\.org").fullmatch("alice@example.org\n") is None
    for fields in ({"username": "alice@example.org\n"}, {"name": "a\tb"}, {"x": ["\x85"]}, {"x": {"\0": 1}}):
        decision = ask({}, record(**fields), record(BOB))
        assert decision.account is None
        assert "control character" in str(decision.refusal)


def test_row_05_case_folding() -> None:
    for literal in (True, False):
        rules: dict[str, object] = {"match": "KIss", "ignore_case": True, "literal": literal, "output": "x"}
        assert name(rules, username="kiSS") == "x"
        for username in ("\u212aiss", "k\u0131ss", "k\u0130ss", "ki\u017fs", "ki\xdf"):
            assert name(rules, username=username) is None
    assert name({"match": "\xe9", "ignore_case": True, "output": "x"}, username="\xc9") is None


@pytest.mark.parametrize("odd", ["\u0430", "\uff41", "a\u200b", "a\u202e", "\ufeffa", "a\u00a0", "a\u0301"])
def test_row_06_confusable_names(odd: str) -> None:
    assert name({}, username=f"{odd}@example.org") is None
    assert name({"output": odd}) is None


def test_row_07_normalisation() -> None:
    assert name({"match": "\xe9", "output": "x"}, username="e\u0301") is None
    assert name({"match": "e\u0301", "output": "x"}, username="\xe9") is None
    assert name({}, username="\xe9@example.org") is None


HOSTILE = [
    "a\0",
    "a\n",
    "a\r",
    "a\t",
    "a\x1b[m",
    "a/b",
    "..",
    "a:b",
    "$(id)",
    "`id`",
    "a'b",
    'a"b',
    "a@b",
    "a\\b",
    "a$",
]


def test_row_08_hostile_output(program: Write) -> None:
    for bad in HOSTILE:
        assert name({"output": bad}) is None, "of the template"
        assert name({"output": "{name}"}, name=bad) is None, "of a field"
        assert name({"match": "(.*)@x"}, username=f"{bad}@x") is None, "of a group"
        assert run(program(answers((ALICE, bad)))).account is None, "of a program"
    for good in ("a", "_a.b-c9", "x" * 32):
        assert name({"output": good}) == run(program(answers((ALICE, good)))).account == good
    for unknown in ("a\0b", "a\ud800b"):
        with pytest.raises(Refused):
            account.find(unknown)


def test_row_09_root_and_system_accounts(program: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name({"output": "root"}) is None
    assert name({}, username="root@example.org") is None
    assert run(program(answers((ALICE, "root")))).account is None
    own = dataclasses.replace(ALICES, uid=os.getuid())
    toor = dataclasses.replace(ALICES, uid=0)
    wheel = dataclasses.replace(ALICES, groups=(54321, 0))
    system = dataclasses.replace(ALICES, uid=999)
    for owner in (own, toor, wheel, system):
        with pytest.raises(Refused):
            admission.admit(owner, admission.AccountPolicy())
    admission.admit(ALICES, admission.AccountPolicy())
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    for owner in (toor, wheel, ALICES):  # again, right before the launch; alice is now the manager's own account
        with pytest.raises(spec.LaunchRefused):
            spec.check(launch(owner))


def launch(owner: Account) -> spec.LaunchSpec:
    descriptors = {0: 0, 1: 1, 2: 2}
    who = (owner.name, owner.uid, owner.gid, owner.groups)
    return spec.LaunchSpec(("/bin/true",), {}, *who, directory="/", log=None, descriptors=descriptors)


@pytest.mark.parametrize("bad", ["0", "1000", "-1", "#0", "-a", "+a", "1a", ".a"])
def test_row_10_numbers_and_options(bad: str) -> None:
    assert name({}, username=f"{bad}@example.org") is None


def test_row_11_case_and_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("ROOT", "Alice", "alice ", " alice", "", "al ice"):
        assert name({}, username=f"{bad}@example.org") is None
    answered = pwd.getpwnam("root")
    monkeypatch.setattr(pwd, "getpwnam", lambda _: answered)
    with pytest.raises(Refused, match="answers with 'root'"):
        account.find("toor")


def test_row_12_long_values() -> None:
    sets: list[list[dict[str, object]]] = [
        [record(name="x" * 1025)],
        [{**record(), "x" * 1025: 1}],
        [record(x=["x" * 1000] * 20)],
        [record(x=[1] * 300)],
        [record(f"aaaaaaaa-0001-4000-8000-{number:012x}") for number in range(65)],
    ]
    for identity_set in sets:
        assert ask({}, *identity_set).account is None
    assert ask({}, *sets[-1][:64]).account == "alice"
    assert name({"output": "{0}" * 12, "match": "(.*)@x"}, username="{0}{0}@x") is None
    assert problem("x" * 32) is None
    assert name({}, username=f"{'x' * 33}@example.org") is None


def test_row_13_token_injection() -> None:
    assert name({"source": "{name}{id}", "match": f"{{id}}{ALICE}", "literal": True, "output": "x"}, name="{id}") == "x"
    assert name({"output": "a{name}b{organization}"}, name="{organization}", organization="c") is None
    assert name({"match": "(.*)@(.*)", "output": "{0}{1}"}, username="{1}@root") is None


@pytest.mark.parametrize("value", [None, 5, True, {}, {"identities": [record()]}, "", "alice", (record(),)])
def test_row_14_set_that_is_no_list(value: object) -> None:
    decision = decide(Mapper.parse(text(expression({"match": "(.*)", "output": "x"}))), value)
    assert (decision.account, "not a list" in str(decision.refusal)) == (None, True)
    for odd in (None, "x", ["a"]):
        assert ask({}, odd).account is None


@pytest.mark.parametrize("value", [None, 5, 0, False, ["a"], {"a": "b"}, "missing"])
def test_row_15_fields_that_are_no_text(value: object) -> None:
    fields: dict[str, Any] = {} if value == "missing" else {"nick": value}
    broad: dict[str, object] = {"output": "broad"}
    assert name([{"source": "{nick}", "match": ".*", "output": "x"}, broad], **fields) == "broad"
    assert name([{"output": "{nick}"}, broad], **fields) is None
    later = Mapper.parse(text(expression({"output": "{nick}"}), expression(broad)))
    assert decide(later, [record(**fields)]).account is None
    linked = record(BOB, "bob@example.org", nick="b")
    assert ask({"output": "{nick}"}, record(**fields), linked).account == "b"


def test_row_16_failing_mapper(program: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mep.monitor.requests.mapping_programs.TIME_LIMIT", 0.2)
    for body in ("exit 1", "sleep 9", "echo x", "kill -9 $$"):
        failing = external(program(body))
        with pytest.raises(MapperError):
            decide(Mapper.parse(text(failing, expression())), [record()])
        asked = Mapper.parse(text({**failing, "may_fail": True}, expression()))
        assert decide(asked, [record()]).account == "alice"
    with pytest.raises(Refused) as caught:
        asyncio.run(mapping.identify(start(record()), Mapper.parse(text(failing)), MANAGER))
    assert "temporary" in caught.value.refusal.reason_for_user


@pytest.mark.parametrize(
    "odd", [None, "", 7, ["a"], "alice", ALICE.replace("-", ""), f"{{{ALICE}}}", f"urn:uuid:{ALICE}"]
)
def test_row_17_ids(odd: object) -> None:
    decision = ask({}, {**record(), "id": odd}, record(BOB, "bob@example.org"))
    assert (decision.account, decision.passed_over[0].identity) == ("bob", "record 1")
    assert ask({}, {"sub": ALICE, "username": "alice@example.org", "status": "used"}).account is None
    by_id: dict[str, object] = {"source": "{id}", "match": ALICE, "literal": True, "output": "alice"}
    assert ask(by_id, record(ALICE.upper()), requester=ALICE).identity == ALICE


@pytest.mark.parametrize("status", ["unused", "closed", "Used", "used ", "", None, 1, True, ["used"], "absent"])
def test_row_18_status(status: object, program: Write, tmp_path: Path) -> None:
    one = {**record(), "status": status}
    if status == "absent":
        del one["status"]
    assert ask({}, one).account is None
    assert ask({}, one, requester=ALICE).account is None
    path = program(f"cat > {tmp_path}/seen; echo '{{\"result\": []}}'")
    assert run(path, one, record(BOB, status="private")).account is None
    assert [each["id"] for each in json.loads((tmp_path / "seen").read_text())["identities"]] == [BOB]


def test_row_19_two_accounts() -> None:
    both = (record(), record(BOB, "bob@example.org"))
    for requester, found in ((ALICE, "alice"), (BOB, "bob")):
        decision = ask({}, *both, requester=requester)
        assert (decision.account, decision.identity) == (found, requester)
        assert "mapping 1" in str(decision.rule)
    for nobody in (None, CAROL):
        decision = ask({}, *both, requester=nobody)
        assert decision.account is None
        assert "ambiguous" in str(decision.refusal)
    assert asyncio.run(mapping.identify(start(*both), Mapper.parse(text(expression()), "m.json"), MANAGER)).rule


def test_row_20_duplicate_ids() -> None:
    for other in (record(username="bob@example.org"), record(ALICE.upper(), status="unused"), record(x=1)):
        assert "differing" in str(ask({}, record(), other).refusal)
    assert ask({}, record(), record(ALICE)).account == "alice"


def test_row_21_fields_that_may_be_made_up() -> None:
    provider = "dddddddd-0004-4000-8000-00000000000d"
    for field in ("email", "name", "organization"):
        assert "owner" in hinted(source=f"{{{field}}}")
        assert "owner" in hinted(output=f"{{{field}}}")
        pinned = {"source": f"{{identity_provider}}:{{{field}}}", "match": rf"{provider}:(.*)@example\.org"}
        assert hinted(**pinned) == ""
    for field in ("username", "id"):
        assert hinted(source=f"{{{field}}}") == ""


@pytest.mark.parametrize("match", [r".*:(.*)@example\.org", r"(.*)(:.*)@example\.org", r".*a:(.*)@example\.org"])
def test_row_21_a_provider_that_may_be_any(match: str) -> None:
    assert "owner" in hinted(source="{identity_provider}:{email}", match=match)


def test_row_22_documents_that_do_nothing() -> None:
    for content in ("{}", '""', "0", "false", "null", "[]", "[null]", "[[]]", "5"):
        with pytest.raises(DocumentError):
            Mapper.parse(content)
    nothing: list[object] = [{}, "", [], None]
    for mappings in nothing:
        with pytest.raises(DocumentError):
            Mapper.parse(text({**expression(), "mappings": mappings}))
    with pytest.raises(DocumentError, match="not known"):
        Mapper.parse(text(expression(), {"DATA_TYPE": "other#1.0.0"}))


def test_row_23_types_and_tokens_at_load(program: Write) -> None:
    for flag in ("literal", "ignore_case"):
        for value in ("false", "true", 0, 1, None, ""):
            assert "true or false" in refused({flag: value})
    for key in ("source", "match", "output"):
        values: list[object] = [None, 5, True, ["a"], {}]
        for odd in values:
            assert "string" in refused({key: odd})
    for token in ("{1}", "{-1}", "{ 1 }", "{+1}", "{01}", "{}", "{0_0}", "{\u0660}"):
        assert ".output" in refused({"output": token})
    assert ".source" in refused({"source": "{0}"})
    with pytest.raises(DocumentError, match="string"):
        Mapper.parse(text({**external(program("")), "command": [str(program("")), 5]}))


@pytest.mark.parametrize("match", ["(?:a)", "(?i)a", "(?=a)", "(?<=a)b", "(?P<n>a)", r"(.)\1", r"\0", r"\101", "(?#a)"])
def test_row_24_what_python_adds(match: str) -> None:
    assert ".match" in refused({"match": match, "output": "x"})


def test_row_25_plain_signs() -> None:
    for match, value, other in (
        ("^al$", "^al$", "al"),
        ("a+", "a+", "aa"),
        ("[a]*", "[a]]", "a"),
        ("a{2}", "a{2}", "aa"),
    ):
        assert name({"match": match, "output": "x"}, username=value) == "x"
        assert name({"match": match, "output": "x"}, username=other) is None
        assert "plain text" in hinted(match=match, output="x")


@pytest.mark.parametrize("value", [r"a\.b", r"a\|b", r"a\*b", "a\\\\", r"a\5", r"a\[b", r"\(a\)", "a.b|c*"])
def test_row_26_literal(value: str) -> None:
    rules: dict[str, object] = {"match": value, "literal": True, "output": "x"}
    assert name(rules, username=value) == "x"
    for other in ("ab", "a.b", value + "x", value[:-1], r"a\Xb", "b", r"a\evil"):
        assert name(rules, username=other) is None


def test_row_27_groups_of_losing_branches() -> None:
    rules: dict[str, object] = {"match": r"(.*)@a\.org|(.*)@b\.org"}
    assert name(rules, username="x@a.org") == "x"
    assert name([rules, {"match": ".*", "output": "broad"}], username="x@b.org") is None
    assert "losing" in hinted(**rules)


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
    monkeypatch.setattr("mep.monitor.requests.mapping_programs.TIME_LIMIT", 0.3)
    begin = time.monotonic()
    fails(program(f"trap '' TERM; sleep 77 & echo $! $$ > {tmp_path}/pids; cat >/dev/null; wait"), "longer than")
    late = program(f"sleep 77 & echo $! >> {tmp_path}/pids; {answers((ALICE, 'alice'))}")
    assert run(late).account == "alice"
    assert time.monotonic() - begin < 3
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
    assert {line.split("=")[0] for line in seen.read_text().splitlines() if "=" in line} <= {"LANG", "PATH", "PWD", "_"}
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
    fails(path, "not an executable")
    assert run(program(f"printf '\\377' >&2; {answers((ALICE, 'alice'))}")).account == "alice"
    assert "\\ufffd" in fails(program("printf '\\377' >&2; exit 1"), "status 1")


def test_row_32_log_injection(program: Write) -> None:
    said = fails(program("cat >&2; printf 'a\\nb\\033[31m%4000s' '' >&2; exit 1"), "status 1")
    with pytest.raises(DocumentError) as caught:
        Mapper.parse(text({"DATA_TYPE": "a\nb\x1b[31m" + "x" * 5000}))
    hostile = ask({"output": "{name}"}, record(name="\u202e" + "x" * 900)).refusal
    for line in (said, str(caught.value), str(hostile)):
        assert line.isprintable()
        assert len(line) < 700
    with pytest.raises(Refused) as refusal:
        failing = Mapper.parse(text(external(program("echo SECRET >&2; exit 1"))))
        asyncio.run(mapping.identify(start(record()), failing, MANAGER))
    assert "SECRET" in refusal.value.refusal.reason_for_admin
    assert "SECRET" not in refusal.value.refusal.reason_for_user


def test_row_33_json(tmp_path: Path) -> None:
    good = text(expression())
    for content in (
        good.replace('"source"', '"comment": 1, "comment": 2, "source"'),
        good.replace('"source"', '"comment": NaN, "source"'),
        good.replace('"source"', '"comment": Infinity, "source"'),
        "\ufeff\ufeff" + good,
        good + " " * (1 << 20),
    ):
        with pytest.raises(DocumentError):
            Mapper.parse(content)
    Mapper.parse("\ufeff" + good)
    for encoding in ("utf-16", "utf-32", "utf-16-le"):
        (tmp_path / "m.json").write_bytes(good.encode(encoding))
        with pytest.raises(ConfigError):
            files.read_mapping(tmp_path / "m.json")


def test_row_34_file_replaced_while_running(
    tmp_path: Path, root: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(manager, "MAPPING_PERIOD", 0.01)
    path = tmp_path / "mapping.json"
    path.write_text(text(expression({"output": "old"})))
    config = SimpleNamespace(identity_mapping_config_path=path)
    running = Running(config, files.read_mapping(path))
    said: list[str] = []
    site: Any = SimpleNamespace(_profile=running, _status=SimpleNamespace(mapping=said.append))
    site._reload_mapping = lambda: manager._Manager._reload_mapping(site)

    async def edits() -> None:
        watching = asyncio.ensure_future(manager._Manager._watch_mapping(site))
        await asyncio.sleep(0.05)
        for content, mode, owner in (("[", 0o644, 0), ("[]", 0o644, 0), (GOOD, 0o664, 0), (GOOD, 0o644, 12345)):
            path.write_text(content)
            path.chmod(mode)
            os.chown(path, owner, -1)
            await asyncio.sleep(0.05)
            assert (await site._profile.mapper.amap([record()])).account == "old"
            assert "old one is in force" in said[-1]
        os.chown(path, 0, -1)
        await asyncio.sleep(0.05)
        watching.cancel()

    asyncio.run(edits())
    assert (decide(site._profile.mapper, [record()]).account, said[-1]) == ("new", "")
    assert site._profile.mapper.digest[:12] in caplog.text


GOOD = text(expression({"output": "new"}))


@dataclasses.dataclass
class Running:
    """What the manager has of its profile, as far as the mapping needs it."""

    config: Any
    mapper: Mapper


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


def test_row_36_two_types_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**_: object) -> object:
        raise AssertionError("entry points are not looked at")

    monkeypatch.setattr(importlib.metadata, "entry_points", found)
    for kind in ("expression_identity_mapping", "expression_identity_mapping#1.0.1", "site#1.0.0", "#1.0.0"):
        with pytest.raises(DocumentError, match="not known"):
            Mapper.parse(text({**expression(), "DATA_TYPE": kind}))


def test_row_37_names_used_by_others() -> None:
    for bad in ("a,b", "a b", "a;b", "a|b", "a&b", "a>b", "a*", "a=b", "-rf", "~a", "a%b", "a!b"):
        assert problem(bad)
    config = ManagerConfig(uep_command=("/opt/mep/bin/mep-uep",))
    site: Any = SimpleNamespace(config=config, environment={}, digest="")
    who, rendered = mapping.MappedIdentity("alice", ALICE, "", []), RenderedConfig("")
    assert plan.make(site, start(), who, ALICES, rendered).argv == ("/opt/mep/bin/mep-uep", f"uep.{MANAGER}")
    shell = re.compile(r"shell\s*=\s*True|os\.(system|popen)\(|getoutput\(|subprocess_shell\(")
    project = Path(__file__).parents[2]
    sources = [path for folder in ("identity", "mep") for path in (project / folder).rglob("*.py")]
    assert len(sources) > 40
    assert [path for path in sources if shell.search(path.read_text())] == []


def test_row_38_lone_surrogates() -> None:
    for key in ("source", "match", "output"):
        with pytest.raises(DocumentError, match="surrogate"):
            Mapper.parse(text(expression({key: "\ud800"})))
    with pytest.raises(DocumentError, match="surrogate"):
        Mapper.parse('[{"DATA_TYPE": "\ud800"}]')
    for fields in ({"name": "\ud800"}, {"\udfff": 1}, {"x": [{"y": "\udc00"}]}):
        assert "surrogate" in str(ask({}, record(**fields)).refusal)
