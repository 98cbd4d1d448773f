"""The files of a profile but for config.yaml, each checked as a whole: template, schema, environment, mapping.

`loader` reads a profile with these, when the manager starts and whenever it reloads; `daemon.anew` rereads a mapping.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep.processes.printable import escaped, quoted
from mep.profile import command_trust, programs
from mep.profile.errors import ConfigError
from mep.profile.mapping_documents import MappingDocuments, MappingHint, MappingProgram
from mep.profile.profile import OWN_VARIABLES
from mep.reader import apart, parsers
from mep.reader.trusted import read_trusted
from mep.reader.yaml_text import load_yaml

log = logging.getLogger(__name__)

MOST_TEMPLATES = 256
MOST_TEMPLATE_TEXT = 4 << 20
"""Characters, of all templates together."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_templates(template: Path) -> dict[str, str]:
    """Name -> text of the template, of the `*.j2` files beside it, and of all that these bring in.

    What they name may be any file of the template's folder or below it. Where a name is only known when the template is
    rendered, it can be that of any `*.j2` file there. Each file is trusted like the template, or refused.

    Raises:
        ConfigError: a file is not in order, or they are too many.
    """
    folder = template.parent
    templates: dict[str, str] = {}
    new = _read_below(template, [template.name, *sorted(path.name for path in folder.glob("*.j2"))], templates)
    while new:
        try:
            named, open_ended = apart.parse(template, parsers.included, {name: templates[name] for name in new})
            wanted = [_said(name) for name in named]
        except (ValueError, TypeError):
            raise apart.senseless(template) from None
        if open_ended:
            wanted += sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.j2"))
        there = [name for name in wanted if os.path.lexists(folder / name) and not (folder / name).is_dir()]
        new = _read_below(template, there, templates)
    return checked_templates(template, templates)


def _read_below(template: Path, names: list[str], templates: dict[str, str]) -> list[str]:
    """Reads what is not among the templates yet. The names of these. Raises ConfigError."""
    new = [name for name in dict.fromkeys(names) if name not in templates]
    for name in new:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise apart.senseless(template)
        templates[name] = read_trusted(template.parent / name)
        size = sum(map(len, templates.values()))
        if len(templates) > MOST_TEMPLATES or size > MOST_TEMPLATE_TEXT:
            raise ConfigError(
                template, [f"has more than {MOST_TEMPLATES} files with it, or {MOST_TEMPLATE_TEXT >> 20} MiB of text"]
            )
    return new


def checked_templates(template: Path, templates: dict[str, str]) -> dict[str, str]:
    """The texts, if each is a template. Raises ConfigError."""
    if not templates[template.name].strip():
        raise ConfigError(template, ["is empty; user endpoints need at least an `engine`"])
    if found := apart.parse(template, parsers.template_problem, templates):
        name, wrong = found
        raise ConfigError(template.parent / str(name), [escaped(str(wrong))])
    return templates


def read_schema(path: Path) -> dict[str, Any]:
    """A JSON schema of user options. Raises ConfigError."""
    return parse_schema(path, read_trusted(path))


def parse_schema(path: Path, text: str) -> dict[str, Any]:
    """The JSON schema in `text`, which was read from `path`. Raises ConfigError."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as e:
        from identity.jsontext import remedy  # here: whoever reads a profile that is in order does not load it

        raise ConfigError(path, [f"not JSON: {e}; {remedy(e)}"]) from None
    if not isinstance(schema, dict):
        raise ConfigError(path, ["expected a JSON object"])
    if wrong := apart.parse(path, parsers.schema_problem, text):
        raise ConfigError(path, [escaped(str(wrong))])
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
    if own := [name for name in OWN_VARIABLES if name in data]:
        log.warning("%s: %s: not used; user endpoints have these from their account", path, ", ".join(own))
    return {str(name): str(value) for name, value in data.items()}


def _variable_problem(name: Any, value: Any) -> str | None:
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        return f"{name!r} cannot name an environment variable"
    if isinstance(value, (dict, list)) or "\0" in str(value):
        return f"{name}: expected one value"
    return None


def read_mapping(path: Path) -> MappingDocuments:
    """The mapping documents in a file. Raises ConfigError."""
    return parse_mapping(path, read_trusted(path))


def no_mapping(path: Path) -> MappingDocuments:
    """Nobody is mapped, until there is such a file."""
    return MappingDocuments(path, "[]", hashlib.sha256(b"[]").hexdigest())


def parse_mapping(path: Path, text: str) -> MappingDocuments:
    """The mapping documents in `text`, which was read from `path`. The programs that they name, and their accounts,
    are checked too.

    Raises:
        ConfigError: it is not in order.
    """
    found = apart.parse(path, parsers.mapping_documents, text, str(path))
    try:
        hints = [MappingHint(*map(_said, each)) for each in found["hints"]]
        named = [_read_program(each) for each in found["programs"]]
    except (KeyError, TypeError, ValueError):
        raise apart.senseless(path) from None
    for each in found["passed_over"]:
        log.warning("%s", escaped(_said(each)))
    for each in named:
        _check_program(path, each)
        hints += _hints(each)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return MappingDocuments(path, text, digest, tuple(hints), tuple(each.program for each in named))


@dataclass(frozen=True)
class _Named:
    """A program, the rule that names it, and where it stands."""

    program: MappingProgram
    rule: str
    where: str


def _read_program(said: Any) -> _Named:
    """What the process that parsed says of a program. Raises KeyError, TypeError, ValueError: it makes no sense."""
    argv = tuple(map(_said, said["argv"]))
    if not argv or not argv[0].startswith("/") or any("\0" in word for word in argv):
        raise ValueError("no command")
    run_as = None if said["run_as"] is None else _said(said["run_as"])
    return _Named(
        MappingProgram(argv, run_as), _said(said["rule"]), f"line {said['line']:d}: document {said['document']:d}"
    )


def _said(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError("no text")
    return text


def _check_program(path: Path, named: _Named) -> None:
    argv, run_as = named.program.argv, named.program.run_as
    if run_as is not None and not _is_account(run_as):
        raise ConfigError(path, [f"{named.where}: run_as: there is no account {quoted(run_as)}; name a local account"])
    try:
        command_trust.check(argv)
        command_trust.check_packages(argv)
    except ConfigError as e:
        raise ConfigError(path, [f"mapping program {e}"]) from None


def _hints(named: _Named) -> Iterator[MappingHint]:
    """What keeps an ordinary account, which the program runs as unless `run_as` names one, from executing it; and what
    nobody has looked at."""
    argv, run_as = named.program.argv, named.program.run_as
    obstacle = programs.obstacle(Path(argv[0])) if run_as is None else None
    if obstacle is not None:
        yield MappingHint(named.rule, obstacle, "mend that, or set run_as to an account that can execute it")
    for argument in command_trust.unfollowed(argv):
        yield MappingHint(named.rule, command_trust.unfollowed_text(argument), command_trust.UNFOLLOWED_REMEDY)


def _is_account(name: str) -> bool:
    try:
        return pwd.getpwnam(name).pw_name == name  # a directory may take names that differ in case for the same
    except (KeyError, ValueError):
        return False
