from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uep.config import ConfigError, parse
from uep.idle import IdleLimits
from uep.log_file import Bounds

ENGINE = "engine: {type: ThreadPoolEngine}\n"


def test_defaults() -> None:
    config = parse(ENGINE)
    assert config.heartbeat_period == 30
    assert config.idle == IdleLimits(0, 5760)
    assert config.raw == ENGINE
    assert config.allowed_functions is None


def test_everything_the_public_configuration_knows() -> None:
    text = """
display_name: x
allowed_functions: [5D1A4D5C-6B45-4D6C-8B0C-2B1A8C1F9E11]
authentication_policy: 5d1a4d5c-6b45-4d6c-8b0c-2b1a8c1f9e11
subscription_id: null
amqp_port: 443
heartbeat_period: 0.5
environment: null
local_compute_services: false
debug: true
admins: []
high_assurance: false
heartbeat_threshold: 120
idle_heartbeats_soft: 10
idle_heartbeats_hard: 3
endpoint_setup:
endpoint_teardown: echo bye
paths: {endpoint_dir: ~/x, endpoint_log: null}
"""
    config = parse(text + ENGINE)
    assert config.idle == IdleLimits(10, 11)
    assert (config.amqp_port, config.heartbeat_period, config.debug) == (443, 0.5, True)
    assert config.allowed_functions == frozenset({"5d1a4d5c-6b45-4d6c-8b0c-2b1a8c1f9e11"})
    assert (config.endpoint_setup, config.endpoint_teardown) == (None, "echo bye")
    assert (config.endpoint_dir, config.endpoint_log) == ("~/x", None)
    expected = ("admins", "authentication_policy", "display_name", "heartbeat_threshold", "local_compute_services")
    assert config.without_effect == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("idle_heartbeat_soft: 1\n" + ENGINE, "did you mean 'idle_heartbeats_soft'"),
        ("zzz: 1\n" + ENGINE, "unknown key 'zzz'; known: "),
        ("", "needs an 'engine'"),
        ("engine: ThreadPoolEngine", "needs an 'engine'"),
        ("engine: {max_workers: 1}", "needs an 'engine'"),
        ("[1]", "must be a mapping"),
        ("a: [", "not YAML"),
        ("heartbeat_period: 0\n" + ENGINE, "heartbeat_period"),
        ("heartbeat_period: '3 0'\n" + ENGINE, "heartbeat_period"),
        ("idle_heartbeats_soft: 10.5\n" + ENGINE, "idle_heartbeats_soft"),
        ("idle_heartbeats_soft: true\n" + ENGINE, "idle_heartbeats_soft"),
        ("amqp_port: 70000\n" + ENGINE, "amqp_port"),
        ("debug: 2\n" + ENGINE, "debug"),
        ("allowed_functions: [x]\n" + ENGINE, "allowed_functions"),
        ("log_size: 63K\n" + ENGINE, "log_size: expected a size, at least 64K"),
        ("log_size: 4MB\n" + ENGINE, "log_size"),
        ("log_size: true\n" + ENGINE, "log_size"),
        ("log_size: -4\n" + ENGINE, "log_size"),
        ("log_keep: -1\n" + ENGINE, "log_keep: expected a whole number, 0 to 100"),
        ("log_keep: 101\n" + ENGINE, "log_keep"),
        ("paths: {log: x}\n" + ENGINE, "unknown key in paths"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(text)


@pytest.mark.parametrize(("text", "size"), [("65536", 65536), ("'100K'", 102400), ("4M", 4 << 20), ("1G", 1 << 30)])
def test_sizes_of_a_log(text: str, size: int) -> None:
    assert parse(f"log_size: {text}\nlog_keep: '5'\n{ENGINE}").log == Bounds(size, 5)


def test_near_types_are_taken_as_the_public_package_takes_them() -> None:
    text = "amqp_port: '443'\nidle_heartbeats_soft: '10'\nidle_heartbeats_hard: 20.0\ndebug: 'yes'\n"
    config = parse(text + "heartbeat_period: '30'\nsetup_timeout: '5'\nhigh_assurance: 'False'\n" + ENGINE)
    assert (config.amqp_port, config.idle, config.debug) == (443, IdleLimits(10, 20), True)
    assert (config.heartbeat_period, config.setup_timeout, config.high_assurance) == (30.0, 5.0, False)


def test_a_period_is_told_as_it_is_written() -> None:
    assert repr(parse(f"heartbeat_period: 30\n{ENGINE}").heartbeat_period) == "30"
    assert repr(parse(ENGINE).heartbeat_period) == "30"


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["heartbeat_period", "amqp_port", "paths", "debug", "engine", "x"]), scalars))
def test_nothing_but_config_errors(data: dict[str, Any]) -> None:
    try:
        parse(yaml.safe_dump(data))
    except ConfigError as e:
        assert str(e)
