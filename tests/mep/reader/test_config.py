from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mep.profile.account_policy import AccountPolicy
from mep.profile.config import ManagerConfig, PamConfig
from mep.profile.errors import ConfigError
from mep.profile.limits import Limits
from mep.profile.resources import Resources
from mep.reader.config_reader import KEYS, RELOADABLE, read_config, reloaded

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
        ("pam: {service: x}", "service_name"),
        ("high_assurance: true", "audit_log_path"),
        ("high_assurance: yes please", "true or false"),
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
    "pam": PamConfig(enable=True),
    "mu_child_ep_grace_period_s": 1.0,
    "accounts": AccountPolicy(min_uid=1),
    "limits": Limits(max_ueps=1),
    "resources": Resources(tasks_max=8),
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
        ("pam", "false"),
        ("pam", "true"),
        ("pam", "{enable: 1}"),
        ("pam", "{service_name: a/b}"),
        ("pam", "{service_name: ..}"),
        ("pam", "{service_name: ''}"),
        ("pam", '{service_name: "a\\n"}'),
        ("pam", "{service_name: é}"),
        ("pam", "{service_name: 5}"),
        ("accounts", "{min_uid: }"),
        ("accounts", "{deny_users: }"),
        ("accounts", "{deny_users: alice}"),
        ("accounts", "{deny_users: {alice: true}}"),
        ("accounts", "{deny_users: [alice bob]}"),
        ("accounts", "{deny_users: ['alice,bob']}"),
        ("accounts", "{deny_users: ['guest*']}"),
        ("accounts", "{deny_users: [Alice]}"),
        ("accounts", "{deny_users: [no]}"),
        ("accounts", "{deny_users: [[alice]]}"),
        ("accounts", "{deny_users: ['']}"),
        ("accounts", "{allow_users: []}"),
        ("accounts", "{allow_users: }"),
        ("accounts", "{allow_groups: []}"),
        ("accounts", "{deny_groups: ['%wheel']}"),
        ("accounts", "{deny_groups: ['!hpc']}"),
        ("accounts", "{deny_groups: [' hpc']}"),
        ("accounts", "{deny_groups: ['h?c']}"),
        ("accounts", '{deny_groups: ["h\\0c"]}'),
        ("limits", "5"),
        ("limits", "{max_ueps: 0}"),
        ("limits", "{max_ueps: -1}"),
        ("limits", "{max_ueps: 1.0}"),
        ("limits", "{max_ueps_per_user: true}"),
        ("limits", "{starts_per_minute_per_user: '5'}"),
        ("resources", "[]"),
        ("resources", "{memory_max: 63M}"),
        ("resources", "{memory_max: 67108863}"),
        ("resources", "{memory_max: -1}"),
        ("resources", "{memory_max: 8GB}"),
        ("resources", "{memory_max: 8g}"),
        ("resources", "{memory_max: 1.5G}"),
        ("resources", "{memory_max: 50%}"),
        ("resources", "{memory_max: infinity}"),
        ("resources", "{memory_max: .inf}"),
        ("resources", "{memory_max: 99999999T}"),
        ("resources", "{memory_max: true}"),
        ("resources", "{tasks_max: 7}"),
        ("resources", "{tasks_max: 1e3}"),
        ("resources", "{cpu_quota: 9%}"),
        ("resources", "{cpu_quota: 0.09}"),
        ("resources", "{cpu_quota: -1}"),
        ("resources", "{cpu_quota: '2'}"),
        ("resources", "{cpu_quota: 1.5%}"),
        ("resources", "{cpu_quota: .nan}"),
        ("resources", "{cpu_quota: .inf}"),
        ("resources", "{cpu_quota: true}"),
    ],
)
def test_values_at_the_edge(key: str, value: str) -> None:
    lines = problems(f"{key}: {value}\n").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{PATH}: line 1: {key}: ")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("accounts: {deny_user: [a]}", "deny_user: unknown key; did you mean 'deny_users'?"),
        ("accounts: {deny_users: [1000]}", "deny_users: names are meant, not numbers: got 1000"),
        ("accounts: {allow_groups: ['1000']}", "allow_groups: names are meant, not numbers: got '1000'"),
        ("accounts: {allow_users: []}", "keep out everybody"),
        ("accounts: {deny_groups: ['@hpc']}", "'@hpc' is not a group's plain name"),
        ("limits: {max_uep: 5}", "did you mean 'max_ueps'?"),
        ("limits: {max_ueps: 0}", "max_ueps: expected a whole number, at least 1"),
        ("resources: {memory: 8G}", "did you mean 'memory_max'?"),
        ("resources: {memory_max: 8M}", "needs more than 64M"),
        ("resources: {tasks_max: 4}", "at least 8: with fewer"),
        ("resources: {cpu_quota: 1%}", "a tenth of a processor"),
        ("pam: {servicename: x}", "did you mean 'service_name'?"),
        ("pam: {service_name: /etc/pam.d/x}", "/etc/pam.d"),
    ],
)
def test_keys_of_keys_are_named_with_what_is_right(text: str, names: str) -> None:
    assert names in problems(text)


def test_all_problems_of_a_key_with_keys_are_told() -> None:
    lines = problems("\naccounts: {min_uid: 0, deny_users: [5], allow: 1}\n").splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{PATH}: line 2: accounts: ") for line in lines)


def test_a_key_of_a_key_that_is_there_twice_is_told() -> None:
    text = "accounts:\n  deny_users: [alice]\n  min_uid: 500\n  deny_users: [bob]\n"
    assert "line 4: accounts.deny_users: is there twice" in problems(text)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("{}", AccountPolicy()),
        ("{deny_users: []}", AccountPolicy()),
        ("{deny_groups: []}", AccountPolicy()),
        ("{allow_users: [alice, bob]}", AccountPolicy(allow_users=("alice", "bob"))),
        ("{deny_users: [root, _svc.x-1]}", AccountPolicy(deny_users=("root", "_svc.x-1"))),
        (
            "{allow_groups: [domain users, HPC@ad.example]}",
            AccountPolicy(allow_groups=("domain users", "HPC@ad.example")),
        ),
        ("{deny_groups: [guests]}", AccountPolicy(deny_groups=("guests",))),
    ],
)
def test_lists_of_accounts(text: str, policy: AccountPolicy) -> None:
    assert read_config(PATH, f"accounts: {text}").accounts == policy


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("{}", Limits()),
        ("{max_ueps: 1}", Limits(max_ueps=1)),
        ("{max_ueps: null, max_ueps_per_user: 20}", Limits(max_ueps_per_user=20)),
        ("{max_ueps: 1000, max_ueps_per_user: 20, starts_per_minute_per_user: 30}", Limits(1000, 20, 30)),
    ],
)
def test_limits(text: str, limits: Limits) -> None:
    assert read_config(PATH, f"limits: {text}").limits == limits


@pytest.mark.parametrize(
    ("text", "resources"),
    [
        ("{}", Resources()),
        ("{memory_max: 8G}", Resources(memory_max=8 * 2**30)),
        ("{memory_max: 64M}", Resources(memory_max=64 * 2**20)),
        ("{memory_max: 65536K}", Resources(memory_max=64 * 2**20)),
        ("{memory_max: 1T}", Resources(memory_max=2**40)),
        ("{memory_max: 67108864}", Resources(memory_max=64 * 2**20)),
        ("{memory_max: '67108864'}", Resources(memory_max=64 * 2**20)),
        ("{tasks_max: 8}", Resources(tasks_max=8)),
        ("{cpu_quota: 150%}", Resources(cpu_quota=1.5)),
        ("{cpu_quota: 10%}", Resources(cpu_quota=0.1)),
        ("{cpu_quota: 2}", Resources(cpu_quota=2.0)),
        ("{cpu_quota: 0.5, tasks_max: null, memory_max: }", Resources(cpu_quota=0.5)),
    ],
)
def test_resources(text: str, resources: Resources) -> None:
    assert read_config(PATH, f"resources: {text}").resources == resources


@given(st.integers(1, 2**20), st.sampled_from("MGT"))
def test_a_size_is_a_number_of_powers_of_1024(number: int, unit: str) -> None:
    size = number * 1024 ** (" KMGT".index(unit))
    if size >= 64 * 2**20:
        assert read_config(PATH, f"resources: {{memory_max: {number}{unit}}}").resources.memory_max == size


@pytest.mark.parametrize(
    ("text", "pam"),
    [
        ("", PamConfig(False, "globus-compute-endpoint")),
        ("pam:", PamConfig(False, "globus-compute-endpoint")),
        ("pam: {}", PamConfig(True, "globus-compute-endpoint")),
        ("pam: {enable: true}", PamConfig(True, "globus-compute-endpoint")),
        ("pam: {enable: false}", PamConfig(False, "globus-compute-endpoint")),
        ("pam: {service_name: mep-2.x_Y}", PamConfig(True, "mep-2.x_Y")),
        ("pam: {service_name: mep, enable: false}", PamConfig(False, "mep")),
    ],
)
def test_pam_is_as_in_the_public_package(text: str, pam: PamConfig) -> None:
    assert read_config(PATH, text).pam == pam


def test_high_assurance_needs_a_trail() -> None:
    text = problems("public: true\nhigh_assurance: true\naudit_log_path:\n")
    assert text.startswith(f"{PATH}: line 2: high_assurance: ")
    assert "audit_log_path" in text
    config = read_config(PATH, "high_assurance: true\naudit_log_path: /var/log/audit\n")
    assert (config.high_assurance, config.audit_log_path) == (True, Path("/var/log/audit"))
    assert not {"high_assurance", "audit_log_path"} & RELOADABLE


def test_every_value_is_plain_enough_for_a_template() -> None:
    config = ManagerConfig(**ELSE)  # type: ignore[arg-type]
    json.dumps(dataclasses.asdict(config), default=str)
    for key in ("accounts", "limits", "resources", "pam"):
        json.dumps(dataclasses.asdict(getattr(config, key)))


def test_the_profile_that_is_made_has_limits_and_its_examples_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "templates/default/config.yaml").read_text().replace("@", "")
    assert read_config(PATH, text.replace("MAPPING", "/m")).limits == Limits(1000, 20, 30)
    examples = text.replace("MAPPING", "/m").replace("\n#resources:", "\nresources:").replace("\n#pam:", "\npam:")
    examples = examples.replace("\n  #", "\n  ").replace("\n#  ", "\n  ")
    config = read_config(PATH, examples)
    assert config.accounts == AccountPolicy(allow_groups=("hpc",), deny_users=("guest",))
    assert config.resources == Resources(8 * 2**30, 4096, 4.0)
    assert config.pam == PamConfig(True, "mep")
