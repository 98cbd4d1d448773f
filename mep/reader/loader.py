"""A profile: the folder of one endpoint (`/etc/mep/NAME`), read and checked as a whole, before anything starts.

`profile.profile` has the list of its files. `config_reader` and `files` read each; `trusted` sees to it that only root
can change it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mep.profile.config import ManagerConfig
from mep.profile.errors import ConfigError, ConfigErrors
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import CONFIG, ENVIRONMENT, OWNER, REGISTERED, SCHEMA, TEMPLATE, Profile
from mep.reader import files
from mep.reader.config_reader import read_config
from mep.reader.registered import endpoint_id
from mep.reader.trusted import check_folder, read_trusted

T = TypeVar("T")
_CONFIG_PY = "config.py"
"""What the public package reads, and then no config.yaml."""


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
    profile, findings = examine(directory)
    if profile is None:
        raise ConfigErrors([finding.problem for finding in findings if finding.problem])
    return profile


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
    if _is_there(directory / _CONFIG_PY):
        findings.of(directory / _CONFIG_PY, _refuse_code)
    # Without the file every key has its default, as in the public package.
    config_text = findings.of(config_path, read_trusted) if _is_there(config_path) else ""
    read = findings.of(config_path, lambda path: _read_manager_config(path, config_text or ""))
    config = read or ManagerConfig()
    template = config.user_config_template_path or _template_path(directory)
    schema = config.user_config_schema_path or directory / SCHEMA
    environment = directory / ENVIRONMENT
    # Whether there should be one in its usual place is not known when the configuration could not be read.
    templates = findings.of(template, files.read_templates) if read or _is_there(template) else None
    wants_schema = config.user_config_schema_path is not None or _is_there(schema)
    read_schema = findings.of(schema, files.read_schema) if wants_schema else None
    variables = findings.of(environment, files.read_environment) if _is_there(environment) else {}
    documents = _documents(findings, directory, config)
    if _is_there(directory / REGISTERED):
        findings.of(directory / REGISTERED, lambda _: endpoint_id(directory))
    if read is None or findings.bad or templates is None or variables is None or documents is None:
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
        mapping=documents,
    ), findings.all


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


def _documents(findings: _Findings, directory: Path, config: ManagerConfig) -> MappingDocuments | None:
    """Those that the profile names. An ordinary user's endpoint is for its owner alone, whatever the profile names."""
    if os.geteuid() != 0:
        owner = directory / OWNER
        return findings.of(owner, files.read_mapping) if _is_there(owner) else files.no_mapping(owner)
    mapping = config.identity_mapping_config_path
    return None if mapping is None else findings.of(mapping, files.read_mapping)


def _template_path(directory: Path) -> Path:
    path = directory / TEMPLATE
    plain = path.with_suffix("")
    return plain if plain.exists() and not path.exists() else path


def _refuse_code(path: Path) -> None:
    remedy = f"write its values into {CONFIG}, its engine into {TEMPLATE}, and remove it"
    raise ConfigError(path, [f"a configuration that is code is not executed here; {remedy}"])


def _read_manager_config(path: Path, text: str) -> ManagerConfig:
    config = read_config(path, text)
    if config.identity_mapping_config_path is None and os.geteuid() == 0:
        remedy = "set identity_mapping_config_path to a file of identity mapping documents"
        raise ConfigError(path, [f"no identity mapping: {remedy}"])
    return config
