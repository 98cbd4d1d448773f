"""Files of a profile in the public package and here: the same values, and the same text of a template."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import peer
from mep.monitor.stages import plan
from mep.profile.errors import ConfigError
from mep.reader import loader
from mep.reader.config_reader import read_config
from mep.renderer import answer
from mep.request.account import Account
from mep.request.start_endpoint import StartEndpoint
from tests.conftest import need
from uep import cli
from uep.config import EndpointConfig

pytestmark = pytest.mark.system

Ask = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]

PROGRAM = Path(__file__).parent / "public_files.py"
MAPPING = (
    '[{"DATA_TYPE": "expression_identity_mapping#1.0.0",'
    ' "mappings": [{"source": "{id}", "match": "x", "output": "y"}]}]'
)
ENGINE = "engine: {type: ThreadPoolEngine}\n"
UID = "4b116d3c-1703-4f8f-9f6f-39921e5864df"

CONFIGS = [
    "",
    "amqp_port: 443",
    "amqp_port: '443'",
    "amqp_port: 443.0",
    "public: 'true'",
    "public: 'Off'",
    "public: 1",
    "debug: yes",
    "debug: '0'",
    "high_assurance: 'false'",
    "local_compute_services: 'n'",
    "heartbeat_period: 30",
    "heartbeat_period: 30.5",
    "heartbeat_period: '30'",
    "mu_child_ep_grace_period_s: 5",
    "mu_child_ep_grace_period_s: '5'",
    "display_name:",
    "display_name: None",
    f"allowed_functions: [{UID.upper()}]",
    f"subscription_id: {UID}",
    "email: a@example.org",
    "admins:",
    'admins: ""',
    "allowed_functions:",
    'allowed_functions: ""',
    "allowed_functions: []",
]
REFUSED = ["public: 2", "public: maybe", "amqp_port: http", "amqp_port: 443.5", "display_name: 5", "amqp_prt: 1"]


@pytest.fixture(scope="module")
def ask() -> Ask:
    need(peer.program().exists(), "needs the public package: lab/setup peer")

    def answers(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [peer.program().parent / "python", PROGRAM],
            input=json.dumps(questions),
            env={**os.environ, "HOME": "/"},
            capture_output=True,
            text=True,
            check=True,
        )
        said: list[dict[str, Any]] = json.loads(done.stdout)
        return said

    return answers


def test_config_yaml_means_the_same(ask: Ask) -> None:
    for text, theirs in zip(CONFIGS, ask([{"config": text} for text in CONFIGS]), strict=True):
        assert "error" not in theirs, text
        ours = dataclasses.asdict(read_config(Path("/etc/mep/prod/config.yaml"), text))
        for key in theirs.keys() & ours.keys() - {"pam"}:
            mine = list(ours[key]) if isinstance(ours[key], tuple) else ours[key]
            assert repr(mine) == repr(theirs[key]), (text, key)


def test_what_is_refused_there_is_refused_here(ask: Ask) -> None:
    for text, theirs in zip(REFUSED, ask([{"config": text} for text in REFUSED]), strict=True):
        assert "error" in theirs, text
        with pytest.raises(ConfigError):
            read_config(Path("/etc/mep/prod/config.yaml"), text)


TEMPLATES = {
    "variables of the user endpoint": "a: {{ _GC.env.HOME }} {{ _GC.env['USER'] }} {{ _GC.env.PATH }} "
    "{{ _GC.env.SITE }} {{ _GC.env.GLOBUS_COMPUTE_ENDPOINT_NAME }}",
    "an option called env": "a: {{ env }}",
    "numbers of the manager": "a: [{{ _GC.parent_config.heartbeat_period }}, {{ parent_config.amqp_port }},"
    " {{ _GC.parent_config.mu_child_ep_grace_period_s }}, {{ _GC.parent_config.public }}]",
    "numbers of the user": "a: [{{ WHOLE }}, {{ HALF }}, {{ ROUND }}, {{ YES }}, {{ NOTHING }}, {{ WHOLE * 2 }}]",
    "texts": "a: {{ TEXT }}\nb: {{ HARD }}\nc: {{ TEXT | shell_escape }}",
    "a file of a folder below": "{% include 'machines/one.yaml' %}",
    "a file whose name is made up": "{% include 'machines/' ~ (WHOLE // 30) ~ '.j2' %}",
    "one that is not there": "a: 1\n{% include 'nothing.yaml' ignore missing %}",
    "the first of these": "{% include ['nothing.yaml', './machines//one.yaml'] %}",
    "macros": "{% from 'macros.txt' import twice %}a: {{ twice(WHOLE) }}",
    "append": "{% set all = [1] %}{% set _ = all.append(WHOLE) %}a: {{ all }}",
    "update": "{% set d = {'x': 1} %}{% set _ = d.update({'y': WHOLE}) %}a: {{ d }}",
    "update of an option": "{% set _ = OBJECT.update({'k': WHOLE}) %}a: {{ OBJECT.k }}",
    "a printed list": "a: {{ LIST }}",
    "the account": "a: {{ _GC.mapped_identity.local.uname }} {{ mapped_identity.local.uid }}"
    " {{ _GC.mapped_identity.local.dir }}/x {{ _GC.mapped_identity.local.groups }}",
}
OPTIONS = {
    "env": "conda",
    "WHOLE": 30,
    "HALF": 0.5,
    "ROUND": 30.0,
    "YES": True,
    "NOTHING": None,
    "TEXT": "a b",
    "HARD": "x: {{ y }} # \" ' é",
    "LIST": ["a b", 1, None, True, ["c"]],
    "OBJECT": {"k": "v"},
}
CONFIG = "heartbeat_period: 30\namqp_port: '443'\nidentity_mapping_config_path: mapping.json\npublic: true\n"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    folder = tmp_path / "prod"
    (folder / "machines").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "mapping.json").write_text(MAPPING)
    (folder / "user_environment.yaml").write_text("SITE: here\nHOME: /elsewhere\n")
    (folder / "user_config_template.yaml.j2").write_text(ENGINE)
    (folder / "base.yaml").write_text(ENGINE + "{% block more %}{% endblock %}\n")
    (folder / "machines" / "one.yaml").write_text("a: {{ WHOLE }}")
    (folder / "machines" / "1.j2").write_text("a: one")
    (folder / "macros.txt").write_text("{% macro twice(x) %}{{ 2 * x }}{% endmacro %}")
    return folder


@pytest.fixture
def account() -> Account:
    entry = pwd.getpwnam("daemon")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(
        entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_gecos, entry.pw_dir, entry.pw_shell or "/bin/sh", groups
    )


def test_a_template_gives_the_same(ask: Ask, profile: Path, account: Account, command: StartEndpoint) -> None:
    names = [f"{number}.j2" for number in range(len(TEMPLATES))]
    for name, text in zip(names, TEMPLATES.values(), strict=True):
        (profile / name).write_text(f"{{% extends 'base.yaml' %}}{{% block more %}}{text}\n{{% endblock %}}")
    loaded = loader.load(profile)
    environment = plan.own_environment(loaded, command, account)
    asked = {
        "config": CONFIG.replace("mapping.json", str(profile / "mapping.json")),
        "options": OPTIONS,
        "environment": environment,
        "account": account.name,
    }
    said = ask([{"template": str(profile / name), **asked} for name in names])
    for what, name, theirs in zip(TEMPLATES, names, said, strict=True):
        assert "error" not in theirs, (what, theirs)
        ours = rendered(loaded.templates, name, environment, account)
        assert yaml.safe_load(ours) == yaml.safe_load(theirs["text"]), what


def test_a_printed_object_has_the_same_values_and_keys_with_quotes(
    ask: Ask, profile: Path, account: Account, command: StartEndpoint
) -> None:
    template = profile / "object.j2"
    template.write_text(f"{ENGINE}a: {{{{ OBJECT }}}}\n")
    loaded = loader.load(profile)
    environment = plan.own_environment(loaded, command, account)
    question = {"template": str(template), "config": "", "options": OPTIONS, "environment": environment}
    (theirs,) = ask([{**question, "account": account.name}])
    mine = yaml.safe_load(rendered(loaded.templates, template.name, environment, account))["a"]
    assert {key.strip('"'): value for key, value in mine.items()} == yaml.safe_load(theirs["text"])["a"]


PLACES: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {}),
    ({"endpoint_dir": "~/d"}, {}),
    ({"endpoint_dir": "$SCRATCH/$USER"}, {}),
    ({"endpoint_log": "${SCRATCH}/logs/my.log"}, {}),
    ({"endpoint_dir": "$SCRATCH/d", "endpoint_log": "~/my.log"}, {}),
    ({}, {"GLOBUS_COMPUTE_ENDPOINT_DIR": "$SCRATCH/e"}),
    ({}, {"GLOBUS_COMPUTE_LOG_PATH": "~/e.log"}),
    ({}, {"GLOBUS_COMPUTE_USER_DIR": "@/g"}),
    ({"endpoint_dir": "~/d"}, {"GLOBUS_COMPUTE_ENDPOINT_DIR": "~/e", "GLOBUS_COMPUTE_USER_DIR": "@/g"}),
]


def test_a_user_endpoint_has_its_files_where_they_are_there(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `paths` of the template, or by variables of user_environment.yaml; `@` stands for a folder."""
    (tmp_path / "home").mkdir()
    usual = {"HOME": str(tmp_path / "home"), "USER": "alice", "SCRATCH": str(tmp_path / "scratch")}
    questions: list[dict[str, Any]] = []
    for paths, named in PLACES:
        variables = {name: value.replace("@", str(tmp_path)) for name, value in named.items()}
        questions.append({"name": "uep", "paths": paths, "environment": usual | variables})
    for question, theirs in zip(questions, ask(questions), strict=True):
        for name in ("GLOBUS_COMPUTE_ENDPOINT_DIR", "GLOBUS_COMPUTE_LOG_PATH", "GLOBUS_COMPUTE_USER_DIR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in question["environment"].items():
            monkeypatch.setenv(name, value)
        directory, log = cli._places(EndpointConfig({}, **question["paths"]), "uep")
        assert {"directory": str(directory), "log": str(log or directory / "endpoint.log")} == theirs, question


def rendered(templates: Mapping[str, str], name: str, environment: Mapping[str, str], account: Account) -> str:
    """The configuration in what the child of a render server answers: what it has to say of options comes behind it."""
    local = {
        "uname": account.name,
        "uid": account.uid,
        "gid": account.gid,
        "gecos": account.gecos,
        "shell": account.shell,
        "dir": account.home,
        "groups": account.groups,
    }
    config = dataclasses.asdict(read_config(Path("/etc/mep/prod/config.yaml"), CONFIG))
    shared = {
        "template": name,
        "templates": dict(templates),
        "schema": None,
        "config": {key: str(value) if isinstance(value, Path) else value for key, value in config.items()},
    }
    request = {
        "mapped_identity": {"local": local, "globus": {"id": "00000000-0000-0000-0000-000000000001"}},
        "env": dict(environment),
    }
    parts = (shared, OPTIONS, {}, request)
    granted, said = answer.answer([json.dumps(part, default=sorted).encode() for part in parts])
    assert granted, said
    return said.decode().partition("\0")[0]
