"""A profile: the folder of one endpoint (`/etc/mep/NAME`), read and checked as a whole, before anything starts.

    config.yaml                        the manager's configuration
    user_config_template.yaml.j2       Jinja template of user endpoints' configuration (or without `.j2`)
    user_config_schema.json            JSON schema of user options; optional
    user_environment.yaml              environment of user endpoints; optional
    identity mapping documents         where `identity_mapping_config_path` says
    endpoint.json                      the endpoint's id, written at its first registration

A folder made by the public package's `configure` is a profile.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import identity
from identity import trust
from mep.config import ConfigError, ManagerConfig, read_config

TEMPLATE = "user_config_template.yaml.j2"
SCHEMA = "user_config_schema.json"
ENVIRONMENT = "user_environment.yaml"
CONFIG = "config.yaml"
MAPPING = "example_identity_mapping_config.json"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_FIXED = ("HOME", "USER", "LOGNAME", "SHELL", "PWD")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Profile:
    """All that the manager reads from its folder.

    config_text: config.yaml as it is, reported to the service.
    templates: file name -> text of the template and of the `*.j2` files beside it, for `include` and `extends`.
    template_name: the template itself, a key of `templates`.
    schema: JSON schema of user options, or None.
    environment: variables of user_environment.yaml.
    """

    name: str
    directory: Path
    config: ManagerConfig
    config_text: str = field(repr=False)
    templates: Mapping[str, str] = field(repr=False)
    template_name: str
    schema: Mapping[str, Any] | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    mapper: identity.Mapper = field(repr=False)


def check_name(name: str) -> None:
    """Raises ValueError unless `name` can name a profile."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name an endpoint: use letters, digits, '_', '-', '.', at most 128")


def load(directory: Path) -> Profile:
    """Reads the profile in `directory`.

    Raises:
        ConfigError: the folder or a file in it is missing, unreadable, untrusted or wrong; the text says which.
    """
    if not directory.is_dir():
        remedy = f"make it with `mep configure {directory.name}`"
        raise ConfigError(directory, [f"no profile of this name; {remedy}"])
    config_path = directory / CONFIG
    config_text = _read(config_path)
    config = read_config(config_path, config_text)
    template = config.user_config_template_path or _template_path(directory)
    schema = config.user_config_schema_path or directory / SCHEMA
    environment = directory / ENVIRONMENT
    return Profile(
        name=directory.name,
        directory=directory,
        config=config,
        config_text=config_text,
        templates=_read_templates(template),
        template_name=template.name,
        schema=_read_schema(schema) if schema.exists() or config.user_config_schema_path else None,
        environment=_read_environment(environment) if environment.exists() else {},
        mapper=_read_mapping(config_path, config.identity_mapping_config_path),
    )


def endpoint_id(directory: Path) -> str | None:
    """The id that the profile was registered with, or None before its first registration. Raises ConfigError."""
    path = directory / "endpoint.json"
    if not path.exists():
        return None
    try:
        return str(json.loads(_read(path))["endpoint_id"])
    except (ValueError, TypeError, KeyError):
        raise ConfigError(
            path, ['expected {"endpoint_id": "UUID"}; restore it, or delete it to register anew']
        ) from None


def save_endpoint_id(directory: Path, endpoint_id: str) -> None:
    """Remembers the id, so that the next start registers the same endpoint."""
    path = directory / "endpoint.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"endpoint_id": endpoint_id}), encoding="utf-8")
    os.replace(temporary, path)  # noqa: PTH105 - Path.replace is the same call


def _template_path(directory: Path) -> Path:
    path = directory / TEMPLATE
    plain = path.with_suffix("")
    return plain if plain.exists() and not path.exists() else path


def _read(path: Path) -> str:
    """The text of a file that decides what root does: trusted, or refused."""
    try:
        trust.check(path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(path, ["no such file; `mep configure` writes a commented one"]) from None
    except UnicodeDecodeError as e:
        raise ConfigError(path, [f"not UTF-8 text (byte {e.start})"]) from None
    except trust.Untrusted as e:
        raise ConfigError(path, [str(e)]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be read: {e.strerror}"]) from None


def _read_templates(template: Path) -> dict[str, str]:
    templates = {template.name: _read(template)}
    for path in sorted(template.parent.glob("*.j2")):
        templates.setdefault(path.name, _read(path))
    return templates


def _read_schema(path: Path) -> dict[str, Any]:
    import jsonschema

    try:
        schema = json.loads(_read(path))
    except ValueError as e:
        raise ConfigError(path, [f"not JSON: {e}"]) from None
    if not isinstance(schema, dict):
        raise ConfigError(path, ["expected a JSON object"])
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as e:
        raise ConfigError(path, [f"not a JSON schema: {e.json_path}: {e.message}"]) from None
    return schema


def _read_environment(path: Path) -> dict[str, str]:
    try:
        data = yaml.safe_load(_read(path)) or {}
    except yaml.YAMLError as e:
        raise ConfigError(path, [f"not valid YAML: {' '.join(str(e).split())}"]) from None
    if not isinstance(data, dict):
        raise ConfigError(path, ["expected variables and values (`NAME: value`)"])
    problems = [problem for name, value in data.items() if (problem := _variable_problem(name, value))]
    if problems:
        raise ConfigError(path, problems)
    return {str(name): str(value) for name, value in data.items()}


def _variable_problem(name: Any, value: Any) -> str | None:
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        return f"{name!r} cannot name an environment variable"
    if name in _FIXED:
        return f"{name} comes from the account and cannot be set here"
    if isinstance(value, (dict, list)) or "\0" in str(value):
        return f"{name}: expected one value"
    return None


def _read_mapping(config_path: Path, path: Path | None) -> identity.Mapper:
    if path is None:
        remedy = "set identity_mapping_config_path to a file of identity mapping documents"
        raise ConfigError(config_path, [f"no identity mapping: {remedy}"])
    try:
        return identity.parse(_read(path), source=str(path))
    except identity.DocumentError as e:
        raise ConfigError(path, [str(e).removeprefix(f"{path}: ")]) from None
