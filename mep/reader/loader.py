"""A profile: the folder of one endpoint (`/etc/mep/NAME`), read and checked as a whole, before anything starts.

    config.yaml                        the manager's configuration
    user_config_template.yaml.j2       Jinja template of user endpoints' configuration (or without `.j2`)
    user_config_schema.json            JSON schema of user options; optional
    user_environment.yaml              environment of user endpoints; optional
    identity mapping documents         where `identity_mapping_config_path` says
    endpoint.json                      the endpoint's id, written at its first registration

A folder made by the public package's `configure` is a profile. How each file is read, and that others than root may not
change it, is in `profile_files`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from identity.mapper import Mapper
from mep.privileged import session
from mep.profile import programs as reach
from mep.profile.config import ConfigError, ConfigErrors, ManagerConfig, read_config
from mep.reader import files as profile_files
from mep.reader.files import check_folder, check_program
from mep.reader.files import check_pam_service as check_pam_service  # as parts of a profile, for those who read it
from mep.reader.files import read_mapping as read_mapping
from mep.reader.files import read_trusted as read_trusted

TEMPLATE = "user_config_template.yaml.j2"
SCHEMA = "user_config_schema.json"
ENVIRONMENT = "user_environment.yaml"
CONFIG = "config.yaml"
MAPPING = "example_identity_mapping_config.json"
REGISTERED = "endpoint.json"

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


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
    mapper: Mapper = field(repr=False)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal digits, of all that decides what is started and as whom; audit lines tell it.

        The settings count beside their text: after a reload some of the text may wait for a restart.
        """
        settings = dataclasses.asdict(self.config)
        files = [self.config_text, self.template_name, self.templates, self.schema, self.environment]
        parts = json.dumps([settings, *files, self.mapper.digest], sort_keys=True, default=_in_order)
        return hashlib.sha256(parts.encode()).hexdigest()


def _in_order(value: object) -> object:
    """What JSON has no form for: paths, and sets, whose order differs from process to process."""
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def check_name(name: str) -> None:
    """Raises ValueError unless `name` can name a profile."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name an endpoint: use letters, digits, '_', '-', '.', at most 128")


@dataclass(frozen=True)
class Finding:
    """One file of a profile, and the text of what is wrong with it, if anything."""

    path: Path
    problem: str | None


def load(directory: Path) -> Profile:
    """Reads the profile in `directory`.

    Raises:
        ConfigError: the folder or files in it are missing, unreadable, untrusted or wrong; the text names each.
    """
    site, findings = examine(directory)
    if site is None:
        raise ConfigErrors([finding.problem for finding in findings if finding.problem])
    return site


def examine(directory: Path) -> tuple[Profile | None, list[Finding]]:
    """The profile in `directory`, unless something is wrong with it, and a finding for each of its files."""
    if not directory.is_dir():
        missing = ConfigError(directory, [f"no profile of this name; make it with `mep configure {directory.name}`"])
        return None, [Finding(directory, str(missing))]
    findings = _Findings()
    findings.of(directory, check_folder)
    if findings.bad:  # told once, and not for each file in it
        return None, findings.all
    config_path = directory / CONFIG
    config_text = findings.of(config_path, read_trusted)
    read = findings.of(config_path, lambda path: _read_manager_config(path, config_text or ""))
    config = read or ManagerConfig()
    template = config.user_config_template_path or _template_path(directory)
    schema = config.user_config_schema_path or directory / SCHEMA
    environment = directory / ENVIRONMENT
    # Whether there should be one in its usual place is not known when the configuration could not be read.
    templates = findings.of(template, profile_files.read_templates) if read or _is_there(template) else None
    wants_schema = config.user_config_schema_path is not None or _is_there(schema)
    read_schema = findings.of(schema, profile_files.read_schema) if wants_schema else None
    variables = findings.of(environment, profile_files.read_environment) if _is_there(environment) else {}
    mapping = config.identity_mapping_config_path
    mapper = findings.of(mapping, read_mapping) if mapping is not None else None
    if _is_there(directory / REGISTERED):
        findings.of(directory / REGISTERED, lambda _: endpoint_id(directory))
    if read is None or findings.bad or templates is None or variables is None or mapper is None:
        return None, findings.all
    return Profile(
        name=directory.name,
        directory=directory,
        config=config,
        config_text=config_text or "",
        templates=templates,
        template_name=template.name,
        schema=read_schema,
        environment=variables,
        mapper=mapper,
    ), findings.all


def check_outside(site: Profile) -> None:
    """Returns if what the profile relies on outside of its folder is in order: programs, and the PAM service.

    Only root can change these, and ordinary users can execute the programs. Raises ConfigError with everything that is
    wrong.
    """
    programs = (Path(sys.executable), Path(site.config.uep_command[0]))
    problems = [problem for program in programs if (problem := program_problem(program))]
    if site.config.pam.enable and (problem := pam_problem(site.config.pam.service_name)):
        problems.append(problem)
    if problems:
        raise ConfigErrors(list(dict.fromkeys(problems)))  # the one may be the other's interpreter


def program_problem(program: Path) -> str | None:
    """What keeps `program` from being what user endpoints are started with, and the remedy; None when nothing does."""
    try:
        check_program(program)
    except ConfigError as e:
        return str(e)
    obstacle = reach.obstacle(program)
    return obstacle and f"{obstacle}; user endpoints run as ordinary users"


def pam_problem(service_name: str) -> str | None:
    """What keeps PAM from being used by the rules of this service, and the remedy; None when nothing does.

    Loads PAM, which no request should have to wait for.
    """
    try:
        check_pam_service(service_name)
        session.load()
    except (ConfigError, session.PamError) as e:
        return str(e)
    return None


class _Findings:
    """Reads file after file and remembers what was wrong."""

    def __init__(self) -> None:
        self._by_path: dict[Path, Finding] = {}

    @property
    def all(self) -> list[Finding]:
        return list(self._by_path.values())

    @property
    def bad(self) -> bool:
        return any(finding.problem for finding in self.all)

    def of(self, path: Path, reader: Callable[[Path], T]) -> T | None:
        """What `reader` makes of the file; None when it raises ConfigError, now or in an earlier reading."""
        if path in self._by_path and self._by_path[path].problem:
            return None
        try:
            value = reader(path)
        except ConfigError as e:
            self._by_path[path] = Finding(path, str(e))
            return None
        self._by_path.setdefault(path, Finding(path, None))
        return value


def _is_there(path: Path) -> bool:
    """Also a link that leads nowhere: it was meant to be read."""
    return path.exists() or path.is_symlink()


def endpoint_id(directory: Path) -> str | None:
    """The id that the profile was registered with, or None before its first registration. Raises ConfigError."""
    return _remembered(directory).get("endpoint_id")


def broker_address(directory: Path) -> str | None:
    """Where the service last said that its broker is (`amqps://host:port`), or None. Raises ConfigError."""
    return _remembered(directory).get("broker")


def remember(directory: Path, endpoint_id: str, broker: str) -> None:
    """Remembers the id, so that the next start registers the same endpoint, and the broker's address, for `check`.

    Raises ConfigError: the folder cannot be written.
    """
    path = directory / REGISTERED
    temporary = path.with_suffix(".new")
    try:
        temporary.write_text(json.dumps({"endpoint_id": endpoint_id, "broker": broker}), encoding="utf-8")
        temporary.replace(path)
    except OSError as e:
        raise ConfigError(path, [f"cannot be written: {e.strerror}; it must keep the endpoint's id"]) from None


def _remembered(directory: Path) -> dict[str, str]:
    path = directory / REGISTERED
    if not _is_there(path):
        return {}
    remedy = "restore it, or delete it to register anew"
    try:
        facts = json.loads(read_trusted(path, remedy))
        known = {"endpoint_id": str(uuid.UUID(facts["endpoint_id"]))}
        if "broker" in facts:
            known["broker"] = _address(facts["broker"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigError(path, [f'expected {{"endpoint_id": "UUID"}}; {remedy}']) from None
    return known


def _address(url: str) -> str:
    """An address with a host and a port. Raises ValueError, TypeError, AttributeError."""
    parts = urlsplit(url)
    if not parts.hostname or len(parts.hostname) > 253 or not parts.port:
        raise ValueError("expected amqps://host:port")
    return url


def _template_path(directory: Path) -> Path:
    path = directory / TEMPLATE
    plain = path.with_suffix("")
    return plain if plain.exists() and not path.exists() else path


def _read_manager_config(path: Path, text: str) -> ManagerConfig:
    config = read_config(path, text)
    if config.identity_mapping_config_path is None:
        remedy = "set identity_mapping_config_path to a file of identity mapping documents"
        raise ConfigError(path, [f"no identity mapping: {remedy}"])
    return config
