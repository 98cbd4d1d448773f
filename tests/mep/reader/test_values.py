"""The values of config.yaml, at their edges: what each key takes, and what it says when it does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mep.profile.sections.accounts import AccountPolicy
from mep.profile.sections.limits import Limits
from mep.profile.sections.pam import PamConfig
from mep.profile.sections.resources import Resources
from mep.reader.config_reader import read_config
from tests.mep.reader.config_texts import PATH, problems


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("amqp_port", "0"),
        ("amqp_port", "65536"),
        ("amqp_port", "443.5"),
        ("amqp_port", "true"),
        ("amqp_port", "'4 3'"),
        ("amqp_port", "'-443'"),
        ("heartbeat_period", ".nan"),
        ("heartbeat_period", "-1"),
        ("heartbeat_period", "1e9"),
        ("heartbeat_period", "true"),
        ("mu_child_ep_grace_period_s", "-0.1"),
        ("start_timeout", "0.9"),
        ("accounts", "{min_uid: true}"),
        ("accounts", "{min_uid: 1.5}"),
        ("accounts", "{min_uid: 0}"),
        ("accounts", "{allow_nologin: 2}"),
        ("accounts", "[]"),
        ("on_stop", "off"),
        ("on_stop", "END"),
        ("log_format", "JSON"),
        ("log_size", "1023K"),
        ("log_size", "-1"),
        ("log_size", "100MB"),
        ("log_size", "true"),
        ("log_keep", "-1"),
        ("log_keep", "101"),
        ("log_keep", "1.5"),
        ("log_keep", "true"),
        ("allowed_functions", "{}"),
        ("authentication_policy", "5"),
        ("uep_command", "[]"),
        ("uep_command", "['/bin/true', 5]"),
        ("audit_log_path", "~/audit.log"),
        ("pam", "false"),
        ("pam", "true"),
        ("pam", "{enable: maybe}"),
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
        ("limits", "{max_ueps: 1.5}"),
        ("limits", "{max_ueps_per_user: true}"),
        ("limits", "{starts_per_minute_per_user: 'five'}"),
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
        ("accounts: {allow_users: [1alice]}", "nobody can have this name: '1alice'"),
        ("accounts: {deny_users: [alice@ad.example.org]}", "(unless accounts.directory_names is set)"),
        ("accounts: {directory_names: true, deny_users: ['a:b']}", "'a:b' holds ':'"),
        ("accounts: {directory_names: true, allow_users: ['@hpc']}", "does not begin with"),
        ("accounts: {directory_names: true, allow_users: [1e5]}", "number"),
        ("worker_account: mep worker", "not the name of an account: 'mep worker' holds ' '"),
        ("render_account: root", "administrator"),
    ],
)
def test_keys_of_keys_are_named_with_what_is_right(text: str, names: str) -> None:
    assert names in problems(text)


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
        (
            "{directory_names: true, deny_users: [Alice, 1a, b@ad.example.org, root]}",
            AccountPolicy(directory_names=True, deny_users=("Alice", "1a", "b@ad.example.org", "root")),
        ),
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


@settings(deadline=None)
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
