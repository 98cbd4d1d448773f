"""The dangerous cases of identity mapping that concern names that must not become accounts.

One test for each row of the table in the specification that we were given. A row says what the official library does,
and what a stricter engine should do; the latter is asserted here, from outside, as a request meets it. The details of
each part are tested beside it.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from identity.account_name import problem
from mep.accounts import look_up
from mep.monitor.stages import admission, plan
from mep.monitor.stages.name_service import of_exactly_that_name
from mep.privileged import spec
from mep.processes.sealed_file import SealedFile
from mep.profile.config import ManagerConfig
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refused
from mep.request.rendered_config import RenderedConfig
from tests.mep.commands import MANAGER

from .asking import ALICES, Write, answers, name, run, start
from .samples import ALICE


def find(username: str) -> Account:
    return of_exactly_that_name(username, look_up.account(username))


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
            find(unknown)


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
        find("toor")


def test_row_37_names_used_by_others() -> None:
    for bad in ("a,b", "a b", "a;b", "a|b", "a&b", "a>b", "a*", "a=b", "-rf", "~a", "a%b", "a!b"):
        assert problem(bad)
    config = ManagerConfig(uep_command=("/opt/mep/bin/mep-uep",))
    site: Any = SimpleNamespace(config=config, environment={}, digest="")
    who, rendered = MappedIdentity("alice", ALICE, "", []), RenderedConfig(SealedFile.of(b""))
    assert plan.make(site, start(), who, ALICES, rendered).argv == ("/opt/mep/bin/mep-uep", f"uep.{MANAGER}")
    shell = re.compile(r"shell\s*=\s*True|os\.(system|popen)\(|getoutput\(|subprocess_shell\(")
    project = Path(__file__).parents[2]
    sources = [path for folder in ("identity", "mep") for path in (project / folder).rglob("*.py")]
    assert len(sources) > 40
    assert [path for path in sources if shell.search(path.read_text())] == []
