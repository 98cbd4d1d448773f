from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mep.config import KEYS, ConfigError, ManagerConfig, read_config

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
