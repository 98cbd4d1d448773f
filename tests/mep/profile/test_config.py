"""What a reload takes over of an edited configuration, for every key; and what is loaded with the configuration."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from mep.profile.config import ManagerConfig, reloaded
from mep.profile.keys import declared
from mep.profile.sections.accounts import AccountPolicy
from mep.profile.sections.limits import Limits
from mep.profile.sections.pam import PamConfig
from mep.profile.sections.resources import Resources
from tests.mep.loading import loaded_by, rooms

KEYS = declared(ManagerConfig)

ELSE: dict[str, object] = {
    "identity_mapping_config_path": Path("/x"),
    "display_name": "x",
    "email": "x",
    "public": True,
    "accounts": AccountPolicy(min_uid=1),
    "limits": Limits(max_ueps=1),
    "resources": Resources(tasks_max=8),
    "require_scope": False,
    "pam": PamConfig(enable=True),
    "audit_log_path": Path("/x"),
    "high_assurance": True,
    "public_audit_log_path": Path("/x"),
    "client_credentials_path": Path("/x"),
    "uep_command": ("/x",),
    "start_timeout": 1.0,
    "heartbeat_period": 1.0,
    "mu_child_ep_grace_period_s": 1.0,
    "start_patience": 1.0,
    "umask": 0o027,
    "on_stop": "keep",
    "worker_account": "x",
    "render_account": "x",
    "name_service_account": "x",
    "mapping_account": "x",
    "status_group": "staff",
    "allowed_functions": ("x",),
    "amqp_port": 443,
    "authentication_policy": "x",
    "subscription_id": "x",
    "admins": ("x",),
    "unknown_options": "ignore",
    "user_config_template_path": Path("/x"),
    "user_config_schema_path": Path("/x"),
    "environment": "x",
    "local_compute_services": True,
    "debug": True,
    "log_format": "json",
    "log_size": 1 << 20,
    "log_keep": 0,
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
    if KEYS[key].reload:
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


def test_every_value_is_plain_enough_for_a_template() -> None:
    config = ManagerConfig(**ELSE)  # type: ignore[arg-type]
    json.dumps(dataclasses.asdict(config), default=str)
    for key in ("accounts", "limits", "resources", "pam"):
        json.dumps(dataclasses.asdict(getattr(config, key)))


def test_only_the_profile_and_the_standard_library_are_loaded_with_it() -> None:
    """The monitor, which is root, has it in memory: what reads files and runs patterns stays out."""
    loaded = loaded_by("mep.profile.config", "mep.profile.profile")
    assert rooms(loaded) == {"profile"}
    assert {name.partition(".")[0] for name in loaded} <= {"mep", *sys.stdlib_module_names}
    assert not loaded & {"ctypes", "_ctypes", "ssl", "subprocess"}
