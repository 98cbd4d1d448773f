"""The commands about functions: `mep functions pin` writes the hash of a function's code into config.yaml."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mep.cli.common import Name, load, login_app_of, need_profile, profile_directory
from mep.daemon.failed import Failed, exit_codes
from mep.profile import functions, whole_file
from mep.profile.profile import CONFIG

if TYPE_CHECKING:
    from mep.profile.config import ManagerConfig

KEY = "allowed_functions"


def pin(
    name: Name,
    function: Annotated[
        list[str] | None, typer.Argument(help="Ids of functions; without any, those that the profile allows.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Pin functions: ask the service for their code, show it, and write its hash into config.yaml.

    Asks before it writes. A user endpoint of the profile then runs nothing whose code has another hash.
    """
    from mep.cli import function_code
    from mep.registration import remote

    directory = profile_directory(name)
    need_profile(directory)
    config = load(directory).config
    allowed = list(config.allowed_functions or ())
    wanted = list(map(_id, function)) if function else functions.ids(allowed)
    if not wanted:
        raise Failed(os.EX_USAGE, f"{directory / CONFIG} allows no function by name; say which: functions pin NAME ID")
    pins = functions.pins(allowed)
    with exit_codes(), login_app_of(config) as app:
        for each in dict.fromkeys(wanted):
            shown = function_code.shown(remote.function(config, app, each), each)
            if pins.get(each, shown.sha256) != shown.sha256:
                raise Failed(os.EX_DATAERR, _changed(each, pins[each], shown.sha256))
            print(f"{shown.text}\n")
            pins[each] = shown.sha256
    entries = {each: each for each in functions.ids(allowed)}
    entries |= {each: f"{each}{functions.MARK}{digest}" for each, digest in pins.items()}
    if plain := [each for each in entries if each not in pins]:
        text = (
            f"allowed as well, and not pinned: {', '.join(plain)}; all or none: name them, too, or no function at all"
        )
        raise Failed(os.EX_USAGE, text)
    _write(directory / CONFIG, config, list(entries.values()), yes=yes)


def _id(given: str) -> str:
    import uuid

    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise Failed(os.EX_USAGE, f"{given!r:.80} is not the id of a function, a UUID") from None


def _changed(function: str, pinned: str, now: str) -> str:
    return (
        f"function {function} is pinned with the SHA-256 {pinned}, and the service says that its code has {now}. The"
        " code of a registered function never changes: find out who has changed it. Nothing was written"
    )


def _write(path: Path, config: ManagerConfig, entries: list[str], *, yes: bool) -> None:
    """Writes the list into config.yaml, all else of which stays as it is. Raises Failed."""
    from mep.reader import config_reader, edited_list
    from mep.reader.trusted import read_trusted

    if entries == list(config.allowed_functions or ()):
        print(f"{path} has these hashes already.")
        return
    with exit_codes():
        before = read_trusted(path)
        text = edited_list.with_list(path, before, KEY, entries)
        if config_reader.read_config(path, text) != dataclasses.replace(config, allowed_functions=tuple(entries)):
            lines = "".join(f"\n  - {entry}" for entry in entries)
            raise Failed(os.EX_CONFIG, f"{path}: cannot be edited without another change; write there:\n{KEY}:{lines}")
        print("\n".join([f"{KEY}:", *(f"  - {entry}" for entry in entries)]))
        if not yes:
            typer.confirm(f"Have you read the code, and write this into {path}?", abort=True)
        if read_trusted(path) != before:
            raise Failed(os.EX_TEMPFAIL, f"{path} has been changed meanwhile; nothing was written")
        whole_file.replace(path, text, durable=True)
    print(f"Written. In force with the next start: mep restart {path.parent.name}")
