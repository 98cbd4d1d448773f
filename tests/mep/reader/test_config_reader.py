"""config.yaml as a whole: its keys, with their lines, and everything that is wrong, told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mep.profile import functions
from mep.profile.config import ManagerConfig
from mep.profile.keys import Key, Section, Takes, declared
from mep.profile.sections.accounts import AccountPolicy
from mep.profile.sections.limits import Limits
from mep.profile.sections.pam import PamConfig
from mep.profile.sections.resources import Resources
from mep.reader.config_reader import read_config
from mep.reader.values import READERS
from tests.mep.reader.config_texts import PATH, problems

KEYS = declared(ManagerConfig)


def test_an_empty_file_is_the_defaults() -> None:
    assert read_config(PATH, "") == ManagerConfig()
    assert read_config(PATH, "display_name:\n") == ManagerConfig()


def test_there_is_a_reader_for_whatever_a_key_takes() -> None:
    assert set(READERS) == set(Takes)
    sections = [declared(key.holds) for key in KEYS.values() if isinstance(key, Section)]
    keys = [key for table in (KEYS, *sections) for key in table.values() if isinstance(key, Key)]
    assert {key.takes for key in keys} == set(Takes), "no reader is left over"


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


def test_a_path_begins_at_the_folder_of_the_profile() -> None:
    config = read_config(PATH, "identity_mapping_config_path: ids/map.json\naudit_log_path: /a\n")
    assert config.identity_mapping_config_path == PATH.parent / "ids" / "map.json"
    assert config.audit_log_path == Path("/a")


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
        ("public_audit_log_path: /x", "needs high_assurance: true"),
        ("high_assurance: true\naudit_log_path: /x\npublic_audit_log_path: /x", "a file of its own"),
        ("uep_command: mep-uep", "list"),
        ("uep_command: [mep-uep]", "absolute"),
        ("heartbeat_period: .inf", "seconds"),
        ("heartbeat_period: 0", "seconds"),
        ("allowed_functions: [x]", "UUID"),
        ("identity_mapping_config_path: ~/m.json", "nothing expands ~"),
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
        ("accounts:\n  min_uid: 5\npublic: 2\n", "line 3: public"),
        ("{display_name: x,\n public: 2}\n", "line 2: public"),
        ("display_name: >\n  a\n  b\npublic: 2\n", "line 4: public"),
        ("---\npublic: 2\n...\n", "line 2: public"),
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


def test_all_problems_of_a_key_with_keys_are_told() -> None:
    lines = problems("\naccounts: {min_uid: 0, deny_users: [5], allow: 1}\n").splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{PATH}: line 2: accounts: ") for line in lines)


def test_a_key_of_a_key_that_is_there_twice_is_told() -> None:
    text = "accounts:\n  deny_users: [alice]\n  min_uid: 500\n  deny_users: [bob]\n"
    assert "line 4: accounts.deny_users: is there twice" in problems(text)


def test_high_assurance_needs_a_trail() -> None:
    text = problems("public: true\nhigh_assurance: true\naudit_log_path:\n")
    assert text.startswith(f"{PATH}: line 2: high_assurance: ")
    assert "audit_log_path" in text
    config = read_config(PATH, "high_assurance: true\naudit_log_path: /var/log/audit\n")
    assert (config.high_assurance, config.audit_log_path) == (True, Path("/var/log/audit"))
    assert not KEYS["high_assurance"].reload
    assert not KEYS["audit_log_path"].reload


ONE, TWO = (f"6d0b5a52-7d5b-4a4e-9f5a-0c7d3b1f5e0{digit}" for digit in "12")
HASH = "0123456789abcdef" * 4


def test_functions_are_pinned_by_the_hash_of_their_code() -> None:
    text = f"allowed_functions:\n- {ONE.upper()}@sha256:{HASH.upper()}\n- {TWO}@sha256:{HASH}\n"
    config = read_config(PATH, text)
    assert config.allowed_functions == (f"{ONE}@sha256:{HASH}", f"{TWO}@sha256:{HASH}")
    assert functions.ids(config.allowed_functions) == [ONE, TWO]
    assert functions.pins(config.allowed_functions) == {ONE: HASH, TWO: HASH}
    assert functions.pins(read_config(PATH, f"allowed_functions: [{ONE}]").allowed_functions) == {}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (f"{ONE}@sha256:{HASH}, {TWO}", f"these are not: {TWO}; "),
        (f"{ONE}@sha256:{HASH}, {ONE}@sha256:{HASH}", "there twice"),
        (f"{ONE}@sha256:{HASH[1:]}", "64 hexadecimal digits"),
        (f"{ONE}@sha256:{HASH[1:]}g", "64 hexadecimal digits"),
        (f"'{ONE}@sha256:'", "64 hexadecimal digits"),
        (f"x@sha256:{HASH}", "expected a UUID, got 'x'"),
        (f"{ONE}@md5:{HASH}", "expected a UUID"),
        (f"{{{ONE}: 'sha256:{HASH}'}}", "expected a UUID"),
    ],
)
def test_pins_that_are_none_are_refused(entries: str, says: str) -> None:
    text = problems(f"allowed_functions: [{entries}]\n")
    assert text.startswith(f"{PATH}: line 1: allowed_functions: ")
    assert says in text


def test_pins_need_our_user_endpoint() -> None:
    pinned = f"allowed_functions: ['{ONE}@sha256:{HASH}']\n"
    public = "uep_command: [/opt/gce/bin/globus-compute-endpoint, _start-user-endpoint]\n"
    assert "line 2: uep_command: only our user endpoint" in problems(pinned + public)
    assert read_config(PATH, f"allowed_functions: [{ONE}]\n{public}").uep_command[1] == "_start-user-endpoint"
    assert read_config(PATH, pinned + "uep_command: [/usr/bin/nice, /opt/mep/bin/mep-uep]\n").uep_command


def test_the_profile_that_is_made_has_limits_and_its_examples_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "templates/default/config.yaml").read_text().replace("@", "")
    assert read_config(PATH, text.replace("MAPPING", "/m")).limits == Limits(1000, 20, 30)
    examples = text.replace("MAPPING", "/m").replace("\n#resources:", "\nresources:").replace("\n#pam:", "\npam:")
    examples = examples.replace("\n  #", "\n  ").replace("\n#  ", "\n  ")
    config = read_config(PATH, examples)
    assert config.accounts == AccountPolicy(allow_groups=("hpc",), deny_users=("guest",))
    assert config.resources == Resources(8 * 2**30, 4096, 4.0)
    assert config.pam == PamConfig(True, "mep")
