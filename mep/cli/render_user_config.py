"""`mep render-user-config`: what a template gives, from a profile or from files of one's own; nobody need be root.

The words are the public package's. The rendering is the manager's own, in a child without rights where root asks.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mep.cli.common import completed, load, paths, profile_directory
from mep.daemon.failed import Failed, exit_codes, profile_name

if TYPE_CHECKING:
    from mep.profile.config import ManagerConfig

_RESERVED = "What users cannot set"
_TIME = 15.0
"""Seconds for one rendering; the manager gives less."""

File = Path | None


def render_user_config(
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", "-e", help="The profile to take files from: name or id.", autocompletion=completed),
    ] = None,
    template: Annotated[File, typer.Option("--template", "-t", help="The template.")] = None,
    user_options: Annotated[File, typer.Option("--user-options", "-o", help="JSON: user_endpoint_config.")] = None,
    user_schema: Annotated[File, typer.Option("--user-schema", "-s", help="The schema of these.")] = None,
    parent_config: Annotated[
        File, typer.Option(help="YAML: config.yaml, for `parent_config`.", rich_help_panel=_RESERVED)
    ] = None,
    user_runtime: Annotated[
        File, typer.Option(help="JSON: `user_runtime`. Else that of this host.", rich_help_panel=_RESERVED)
    ] = None,
    mapped_identity: Annotated[
        File, typer.Option(help="JSON: `mapped_identity`. Else your own account.", rich_help_panel=_RESERVED)
    ] = None,
) -> None:
    """Show what a template becomes. What no option gives comes from the profile of -e. `-` is standard input."""
    given = (template, user_options, user_schema, parent_config, user_runtime, mapped_identity)
    if sum(str(path) == "-" for path in given) > 1:
        raise Failed(os.EX_USAGE, "only one of the files can be standard input")
    if endpoint is None and template is None:
        raise Failed(os.EX_USAGE, "give --endpoint, --template, or both")
    files, variables = _files(endpoint, template, user_schema, parent_config)
    options = {} if user_options is None else _object(user_options, "user options")
    runtime = _runtime_here() if user_runtime is None else _object(user_runtime, "user runtime")
    identity = _my_identity() if mapped_identity is None else _identity(mapped_identity)
    print(_rendered([files, options, runtime, {"mapped_identity": identity, "env": variables}]))


def _files(endpoint: str | None, template: File, schema: File, parent: File) -> tuple[dict[str, Any], dict[str, str]]:
    """What the render server is given of a profile (`processes.render_protocol`), and its variables. Raises Failed."""
    from mep.profile.config import ManagerConfig

    files: dict[str, Any] = {"schema": None}
    variables: dict[str, str] = {}
    config = ManagerConfig()
    if endpoint is not None:
        profile = load(profile_directory(profile_name(paths().config, endpoint)))
        config = profile.config
        files |= {"template": profile.template_name, "templates": dict(profile.templates)}
        files |= {"schema": profile.schema}
        variables = dict(profile.environment)
    if template is not None:
        files |= {"template": template.name, "templates": _templates(template)}
    if schema is not None:
        files["schema"] = _object(schema, "user schema")
    if parent is not None:
        config = _parent(parent)
    plain = dataclasses.asdict(config).items()
    shown = {key: str(value) if isinstance(value, Path) else value for key, value in plain}
    return {**files, "config": shown}, variables


def _templates(template: Path) -> dict[str, str]:
    """The template, and those beside it that it may name."""
    beside = sorted(template.parent.glob("*.j2")) if str(template) != "-" else []
    return {**{path.name: _text(path) for path in beside}, template.name: _text(template)}


def _parent(path: Path) -> ManagerConfig:
    from mep.reader.config_reader import read_config

    with exit_codes():
        return read_config(path, _text(path))


def _runtime_here() -> dict[str, Any]:
    """As a client on this host would send it."""
    from globus_compute_sdk.sdk.batch import create_user_runtime

    runtime: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(create_user_runtime())))
    return runtime


def _my_identity() -> dict[str, Any]:
    return _variable(pwd.getpwuid(os.getuid()), str(uuid.UUID(int=0)))


def _identity(path: Path) -> dict[str, Any]:
    """As a template sees it, `{"local": {...}, "globus": {...}}`; or with the public package's `local_user_record`."""
    said = _object(path, "mapped identity")
    record = said.get("local_user_record")
    if record is None:
        return said
    try:
        named = dict(zip(_RECORD, record, strict=True)) if isinstance(record, list) else record
        return _variable([named[key] for key in _RECORD], said.get("matched_identity"))
    except (KeyError, TypeError, ValueError):
        keys = ", ".join(_RECORD)
        raise Failed(os.EX_DATAERR, f"{path}: local_user_record: expected an object with {keys}") from None


_RECORD = ("pw_name", "pw_passwd", "pw_uid", "pw_gid", "pw_gecos", "pw_dir", "pw_shell")


def _variable(record: Sequence[Any], identity: str | None) -> dict[str, Any]:
    """The template variable, for a record of the system's accounts."""
    name, _, uid, gid, gecos, home, shell = record
    local = {"uname": name, "uid": uid, "gid": gid, "gecos": gecos, "shell": shell, "dir": home}
    return {"local": {**local, "groups": os.getgrouplist(name, gid)}, "globus": {"id": identity}}


def _object(path: Path, what: str) -> dict[str, Any]:
    from identity import jsontext

    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as e:
        raise Failed(os.EX_DATAERR, f"{path}: {what}: not JSON: {e}; {jsontext.remedy(e)}") from None
    if not isinstance(value, dict):
        raise Failed(os.EX_DATAERR, f"{path}: {what}: expected a JSON object")
    return value


def _text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise Failed(os.EX_NOINPUT, f"{path}: cannot be read: {e}") from None


def _rendered(request: list[dict[str, Any]]) -> str:
    """Raises Failed: refused, as the manager would; 1."""
    from mep.processes import forked
    from mep.processes.render_protocol import MAX_CONFIG, MAX_REASON
    from mep.renderer import answer

    def work() -> bytes:
        granted, text = answer.answer([json.dumps(part).encode() for part in request])
        return bytes([granted]) + text

    answer.warm_up()
    try:
        said = forked.ask_and_wait(work, _TIME, 4 * (MAX_CONFIG + MAX_REASON))
    except forked.ChildLost as e:
        raise Failed(1, f"cannot be rendered: {e}") from None
    except OSError as e:
        raise Failed(os.EX_OSERR, str(e)) from None
    text = said[1:].decode("utf-8", "replace")
    if not said[0]:
        stage, admin, user = text.split("\0")
        raise Failed(1, f"refused at stage {stage}: {admin}\nthe user would read: {user}")
    return text
