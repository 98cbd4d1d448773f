"""The files that decide what root does, one at a time: read if they are root's alone, else refused with the remedy.

`profile` reads a whole profile with these, when the manager starts and whenever it reloads; the manager rereads a
mapping by itself. Every part of the way to a file is looked at (`mep.trust`), and then it is opened by its path:
between the two it cannot become another file, because only root could change the way.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from pathlib import Path
from typing import Any

from identity.jsontext import DocumentError
from identity.mapper import Mapper
from identity.printable import shown
from mep import trust
from mep.profile import programs as reach
from mep.profile.errors import ConfigError
from mep.profile.mapping_documents import MappingDocuments, MappingHint
from mep.reader.config_reader import load_yaml

PAM_FOLDER = Path("/etc/pam.d")

_FIXED = ("HOME", "USER", "LOGNAME", "SHELL", "PWD")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_folder(directory: Path) -> None:
    """Raises ConfigError if others than root may change what is in the folder, or is not there."""
    _status(directory, "make it")


def read_trusted(path: Path, remedy: str = "`mep configure` writes a commented one") -> str:
    """The text of a file that decides what root does: trusted, or refused. `remedy` is for one that is not there.

    Raises ConfigError.
    """
    _check_file(path, remedy)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ConfigError(path, [f"not UTF-8 text (byte {e.start}); save it as UTF-8"]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be read: {e.strerror}"]) from None


def check_program(program: Path) -> None:
    """Returns if nobody but root can change the program, or what executes it if it is a script. Raises ConfigError."""
    at = program
    try:
        for at in reach.chain(program):
            if not _check_file(at, "it cannot be executed; install it, or correct its path").st_mode & 0o111:
                raise ConfigError(at, [f"is not executable; mend it: chmod a+rx {at}"])
    except OSError as e:
        raise ConfigError(at, [f"cannot be read: {e.strerror}"]) from None


def check_pam_service(service_name: str, folder: Path = PAM_FOLDER) -> None:
    """Returns if PAM has a file for the service, which nobody but root can change.

    Without one PAM would go by the rules of `other`, whatever they are. Raises ConfigError.
    """
    path = folder / service_name.lower()  # as PAM does
    if path.parent != folder or path.name == "..":
        raise ConfigError(folder, [f"pam.service_name: {service_name!r} cannot name a file here; write a plain name"])
    _check_file(
        path, "the package installs /etc/pam.d/mep; copy that, or set pam.service_name to a service that exists"
    )


def _check_file(path: Path, remedy: str) -> os.stat_result:
    status = _status(path, remedy)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(path, ["is a folder, or another thing that is not a file; put a file there"])
    return status


def _status(path: Path, remedy: str) -> os.stat_result:
    try:
        return trust.check(path)
    except FileNotFoundError:
        raise ConfigError(path, [f"no such file; {remedy}"]) from None
    except trust.Untrusted as e:
        raise ConfigError(path, [str(e)]) from None
    except OSError as e:
        raise ConfigError(path, [f"cannot be looked at: {e.strerror}"]) from None


def read_templates(template: Path) -> dict[str, str]:
    """File name -> text of the template and of the `*.j2` files beside it. Raises ConfigError."""
    from mep.renderer.template import syntax_problem

    templates = {template.name: read_trusted(template)}
    if not templates[template.name].strip():
        raise ConfigError(template, ["is empty; user endpoints need at least an `engine`"])
    for path in sorted(template.parent.glob("*.j2")):
        templates.setdefault(path.name, read_trusted(path))
    for name in templates:
        if wrong := syntax_problem(templates, name):
            raise ConfigError(template.parent / name, [wrong])
    return templates


def read_schema(path: Path) -> dict[str, Any]:
    """A JSON schema of user options. Raises ConfigError."""
    import jsonschema

    try:
        schema = json.loads(read_trusted(path))
    except (ValueError, RecursionError) as e:
        raise ConfigError(path, [f"not JSON: {e}"]) from None
    if not isinstance(schema, dict):
        raise ConfigError(path, ["expected a JSON object"])
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as e:
        raise ConfigError(path, [f"not a JSON schema: {e.json_path}: {e.message}"]) from None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as e:  # a "$schema" that names nothing
        raise ConfigError(path, [f"not a JSON schema: {type(e).__name__}: {e}"]) from None
    return schema


def read_environment(path: Path) -> dict[str, str]:
    """Variables of user endpoints. Raises ConfigError."""
    data = load_yaml(path, read_trusted(path))
    if data is None:
        return {}
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


def read_mapping(path: Path) -> MappingDocuments:
    """The mapping documents in a file; the programs that they name, and their accounts, are checked too.

    Raises ConfigError.
    """
    text = read_trusted(path)
    try:
        mapper = Mapper.parse(text, source=str(path))
    except DocumentError as e:
        where = "" if e.line is None else f"line {e.line}: "
        raise ConfigError(path, [f"{where}{e.path + ': ' if e.path else ''}{e.problem}; {e.remedy}"]) from None
    for document in mapper.programs:
        if document.run_as is not None and not _is_account(document.run_as):
            where = f"line {document.rule.line}: document {document.rule.document}: run_as"
            raise ConfigError(path, [f"{where}: there is no account {shown(document.run_as)}; name a local account"])
        try:
            check_program(Path(document.command[0]))
        except ConfigError as e:
            raise ConfigError(path, [f"mapping program {e}"]) from None
    hints = tuple(MappingHint(str(each.where), each.text, each.suggestion) for each in mapper.hints)
    return MappingDocuments(path, text, mapper.digest, hints)


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return False
    return True
