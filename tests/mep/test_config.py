from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mep.admission import AccountPolicy
from mep.config import KEYS, RELOADABLE, ConfigError, ManagerConfig, read_config, reloaded

PATH = Path("/etc/mep/prod/config.yaml")


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(PATH, text)
    return str(caught.value)


def test_an_empty_file_is_the_defaults() -> None:
    assert read_config(PATH, "") == ManagerConfig()
    assert read_config(PATH, "display_name:\n") == ManagerConfig()


def test_keys_and_fields_are_the_same() -> None:
    assert set(KEYS) == {field.name for field in dataclasses.fields(ManagerConfig)}


def test_every_key_of_the_public_package_is_read() -> None:
    uid = "4b116d3c-1703-4f8f-9f6f-39921e5864df"
    config = read_config(
        PATH,
        f"""
display_name: Prod
email: a@example.org
public: true
high_assurance: false
allowed_functions: [{uid}]
authentication_policy: {uid}
subscription_id: {uid}
admins: [{uid}]
amqp_port: 443
heartbeat_period: 10
environment: preview
local_compute_services: false
debug: true
user_config_template_path: /t
user_config_schema_path: /s
identity_mapping_config_path: /m
audit_log_path: /a
pam: {{enable: false}}
mu_child_ep_grace_period_s: 5
""",
    )
    assert config.allowed_functions == (uid,)
    assert config.identity_mapping_config_path == Path("/m")
    assert (config.heartbeat_period, config.amqp_port, config.public) == (10.0, 443, True)


def test_all_problems_are_told_at_once_with_line_and_key() -> None:
    text = problems("display_nam: x\npublic: maybe\n\namqp_port: 99999\naccounts: {min_uid: 0}\n")
    assert "line 1: display_nam: unknown key; did you mean 'display_name'?" in text
    assert "line 2: public: expected true or false" in text
    assert "line 4: amqp_port" in text
    assert "line 5: accounts: min_uid" in text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a: b: c", "not valid YAML"),
        ("- a", "keys and values"),
        ("engine:\n  type: x\n", "user_config_template.yaml.j2"),
        ("pam: {enable: true}", "PAM"),
        ("high_assurance: true", "not supported"),
        ("uep_command: mep-uep", "list"),
        ("uep_command: [mep-uep]", "absolute"),
        ("heartbeat_period: .inf", "seconds"),
        ("heartbeat_period: 0", "seconds"),
        ("allowed_functions: [x]", "UUID"),
        ("identity_mapping_config_path: m.json", "absolute"),
        ("accounts: {max: 1}", "min_uid"),
        ("display_name: 5", "expected text"),
    ],
)
def test_wrong_values_are_named_with_what_is_right(text: str, names: str) -> None:
    assert names in problems(text)
    assert str(PATH) in problems(text)


def test_the_account_policy_is_read() -> None:
    config = read_config(PATH, "accounts: {min_uid: 500, allow_nologin: true}")
    assert (config.accounts.min_uid, config.accounts.allow_nologin) == (500, True)


def test_the_word_none_is_no_display_name() -> None:
    assert read_config(PATH, 'display_name: "None"').display_name is None


ELSE: dict[str, object] = {
    "display_name": "x",
    "email": "x",
    "public": True,
    "high_assurance": True,
    "allowed_functions": ("x",),
    "authentication_policy": "x",
    "subscription_id": "x",
    "admins": ("x",),
    "amqp_port": 443,
    "heartbeat_period": 1.0,
    "environment": "x",
    "local_compute_services": True,
    "debug": True,
    "user_config_template_path": Path("/x"),
    "user_config_schema_path": Path("/x"),
    "identity_mapping_config_path": Path("/x"),
    "audit_log_path": Path("/x"),
    "pam": {"enable": False},
    "mu_child_ep_grace_period_s": 1.0,
    "accounts": AccountPolicy(min_uid=1),
    "uep_command": ("/x",),
    "client_credentials_path": Path("/x"),
    "render_account": "x",
    "start_timeout": 1.0,
    "on_stop": "keep",
}
"""Another value than the default, for every key."""


def test_every_key_has_another_value_here() -> None:
    assert list(ELSE) == list(KEYS)
    default = ManagerConfig()
    assert [key for key, value in ELSE.items() if getattr(default, key) == value] == []


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_key_is_taken_over_or_waits(key: str) -> None:
    old = ManagerConfig()
    edited = dataclasses.replace(old, **{key: ELSE[key]})  # type: ignore[arg-type]
    settings, waiting = reloaded(old, edited)
    if key in RELOADABLE:
        assert (settings, waiting) == (edited, ())
    else:
        assert (settings, waiting) == (old, (key,)), "what waits is as it was"
    assert reloaded(edited, edited) == (edited, ())
    back, waiting = reloaded(edited, old)
    assert back == old or waiting == (key,)


def test_what_waits_is_named_until_it_is_taken_back() -> None:
    old = ManagerConfig()
    edited = dataclasses.replace(old, debug=True, on_stop="keep", amqp_port=443)
    settings, waiting = reloaded(old, edited)
    assert waiting == ("amqp_port", "debug"), "in the order of the reference"
    assert settings == dataclasses.replace(old, on_stop="keep")
    assert reloaded(settings, edited)[1] == waiting, "once more says so once more"
    assert reloaded(settings, settings)[1] == ()


def test_reloadable_keys_are_keys() -> None:
    assert set(KEYS) >= RELOADABLE


def test_every_key_can_be_wrong_and_all_of_them_are_told_with_their_lines() -> None:
    text = "# a comment\n" + "".join(f"{key}: [[]]\n" for key in KEYS)
    lines = problems(text).splitlines()
    assert len(lines) == len(KEYS)
    for number, (key, line) in enumerate(zip(KEYS, lines, strict=True), start=2):
        assert line.startswith(f"{PATH}: line {number}: {key}: "), line


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("\n\n\nbad: 1", "line 4: bad"),
        ("public: true\n# x\n'bad key': 1\n", "line 3: bad key"),
        ("accounts:\n  min_uid: 5\npublic: 1\n", "line 3: public"),
        ("{display_name: x,\n public: 1}\n", "line 2: public"),
        ("display_name: >\n  a\n  b\npublic: 1\n", "line 4: public"),
        ("---\npublic: 1\n...\n", "line 2: public"),
        pytest.param("\n5: 1\n", "line 2: 5: unknown", id="a number"),
        ("\ntrue: 1\n", "line 2:"),
        ("\n0x10: 1\n", "line 2:"),
        ("\n~: 1\n", "line 2:"),
    ],
)
def test_the_line_is_the_keys(text: str, where: str) -> None:
    assert problems(text).startswith(f"{PATH}: {where}")


def test_a_key_that_is_there_twice_is_told() -> None:
    assert "line 3: on_stop" in problems("on_stop: keep\n\non_stop: end\n")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_without_a_value_is_the_default(key: str) -> None:
    assert read_config(PATH, f"{key}:\n") == ManagerConfig()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("amqp_port", "0"),
        ("amqp_port", "65536"),
        ("amqp_port", "443.0"),
        ("amqp_port", "true"),
        ("amqp_port", "'443'"),
        ("heartbeat_period", ".nan"),
        ("heartbeat_period", "-1"),
        ("heartbeat_period", "1e9"),
        ("heartbeat_period", "true"),
        ("mu_child_ep_grace_period_s", "-0.1"),
        ("start_timeout", "0.9"),
        ("accounts", "{min_uid: true}"),
        ("accounts", "{min_uid: 1.5}"),
        ("accounts", "{min_uid: 0}"),
        ("accounts", "{allow_nologin: 1}"),
        ("accounts", "[]"),
        ("on_stop", "off"),
        ("on_stop", "END"),
        ("display_name", "''"),
        ("allowed_functions", "{}"),
        ("admins", "''"),
        ("authentication_policy", "5"),
        ("uep_command", "[]"),
        ("uep_command", "['/bin/true', 5]"),
        ("audit_log_path", "audit.log"),
        ("audit_log_path", "~/audit.log"),
        ("pam", "{}"),
        ("pam", "false"),
    ],
)
def test_values_at_the_edge(key: str, value: str) -> None:
    lines = problems(f"{key}: {value}\n").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{PATH}: line 1: {key}: ")
