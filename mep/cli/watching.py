"""The commands that show what runs: `mep status`, `mep ps`. The API of the manager's worker answers (docs/api.md)."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from mep.cli import tables
from mep.cli.common import DEFAULT, Json, Name, need_profile, paths, profile_directory, trusted_run_directory
from mep.cli.tables import Column
from mep.daemon.failed import Failed, exit_codes

T = TypeVar("T")
NOT_RUNNING = 3
HANGS = 4
"""Exit codes of commands that ask a running manager, as of `systemctl status`."""
PERIOD = 2.0
"""Seconds between two looks of --watch."""
_SHOWN = 3
"""Errors and refusals that `status` shows."""
_TOO_FEW_RIGHTS = "must be root, or a member of the group that status_group of config.yaml names"
_SYSTEM = Path("/run/mep")


def status(name: Name = DEFAULT, as_json: Json = False) -> None:
    """Show how the running manager of an endpoint is doing; ends with 3 when none runs, with 4 when it hangs."""
    from mep.cli import asking
    from mep.monitor import last_run

    asked = Asked(name)
    try:
        answer = asked.ask(asking.status)
        refusals = asked.ask(lambda folder: asking.events(folder, event="refused", limit=str(_SHOWN))) or []
    except asking.NoAnswer as e:
        _print(_hangs(name, asked, str(e)), as_json)
        raise typer.Exit(HANGS) from None
    if answer is None and (pid := asked.pid()) is None:
        _print(_stopped(name, asked), as_json)
        raise typer.Exit(NOT_RUNNING)
    if answer is None:
        said = last_run.describe_wait(asked.run_directory()) or _ON_ITS_WAY
        _print({"state": "starting", "pid": pid, "text": f"Endpoint {name} runs (pid {pid}). {said}"}, as_json)
        return
    line = answer["line"]
    text = [f"Endpoint {name} runs (pid {answer.get('pid')}). {line[:1].upper()}{line[1:]}"]
    text += _counts(answer.get("events"))
    text += [f"  refused      {_one_refusal(each)}" for each in refusals[:_SHOWN]]
    text += [
        f"  error        {_when(each.get('time'))}: {each.get('text')}" for each in _dicts(answer, "errors")[-_SHOWN:]
    ]
    _print({"state": "running", **answer, "last_refusals": refusals, "text": "\n".join(text)}, as_json)


def ps(
    name: Name = DEFAULT,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until it is interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Show the user endpoints that run, and who gets none; ends with 3 when no manager runs, with 4 when it hangs."""
    before: Mapping[str, tuple[float, float]] = {}
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            running, held, left_out = _running(name)
            if as_json:
                said = {"user_endpoints": running, "left_out": left_out, "held_back": held}
                print(json.dumps(said) if watch else json.dumps(said, indent=2), flush=True)
            else:
                text = "\n".join(_table(running, held, left_out, before, tables.width()))
                print(f"{_CLEAR if watch and tables.width() else ''}{text}", flush=True)
            if not watch:
                return
            now = time.monotonic()
            before = {str(each.get("name")): (now, _number(each.get("cpu_seconds")) or 0.0) for each in running}
            time.sleep(PERIOD)


class Asked:
    """A manager that is asked, whose run folder is looked for: root's, or for others the system's, too."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.directory = profile_directory(name)
        self._run: Path | None = None

    def run_directory(self) -> Path:
        """Raises Failed, PermissionError."""
        from mep.processes import status_protocol

        if self._run is None:
            own, system = paths().run / self._name, _SYSTEM / self._name
            ours = own.exists() or os.geteuid() == 0 or not (system / status_protocol.NAME).exists()
            self._run = own if ours else system
            self._check(self._run)
        return self._run

    def _check(self, run_directory: Path) -> None:
        """Raises Failed unless nobody but root, or we, can have put a socket there; PermissionError."""
        from mep.profile import places

        if run_directory == paths().run / self._name:
            with contextlib.suppress(PermissionError):
                trusted_run_directory(self._name)
                return
        with exit_codes():
            places.check(run_directory)  # whoever may not list the folder sees as much

    def ask(self, question: Callable[[Path], T | None]) -> T | None:
        """The answer; None when nobody listens. Raises NoAnswer; Failed, when who asks may not."""
        try:
            return question(self.run_directory())
        except PermissionError:
            raise Failed(os.EX_NOPERM, f"{_TOO_FEW_RIGHTS}, to look at a manager") from None

    def pid(self) -> int | None:
        """The process that runs, though it does not listen. Raises Failed."""
        from mep.monitor import run_lock

        try:
            pid = run_lock.holder(self.run_directory())
            if pid is None:
                need_profile(self.directory)
        except PermissionError:
            raise Failed(os.EX_NOPERM, f"{_TOO_FEW_RIGHTS}, to look at a manager") from None
        except run_lock.NoPlace as e:
            raise Failed(os.EX_CONFIG, str(e)) from None
        return pid


def _running(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """The user endpoints, who is held back, and how many are not told of. Raises Exit, Failed."""
    from mep.cli import asking

    asked = Asked(name)
    try:
        answer = asked.ask(lambda folder: asking.get(folder, "/v1/user-endpoints"))
        held = asked.ask(asking.held_back)
    except asking.NoAnswer as e:
        print(_hangs(name, asked, str(e))["text"], file=_stderr())
        raise typer.Exit(HANGS) from None
    if answer is None or held is None:
        text = _stopped(name, asked)["text"] if asked.pid() is None else f"Endpoint {name}: {_ON_ITS_WAY}"
        print(text, file=_stderr())
        raise typer.Exit(NOT_RUNNING)
    left_out = answer.get("left_out")
    return _dicts(answer, "user_endpoints"), held, left_out if isinstance(left_out, int) else 0


_COLUMNS = (
    Column("USER", least=14),
    Column("IDENTITY", least=12, leaves=2),
    Column("STATE", least=8),
    Column("SINCE", right=True),
    Column("WAIT", right=True),
    Column("RUN", right=True),
    Column("DONE", right=True),
    Column("IDLE", leaves=7, right=True),
    Column("MEM", leaves=6, right=True),
    Column("CPU", leaves=5, right=True),
    Column("ENGINE", least=16, leaves=3),
    Column("BLOCKS", leaves=8),
    Column("JOBS", least=4, leaves=1),
    Column("USER ENDPOINT", least=8),
)
_HELD_COLUMNS = (Column("HELD BACK", least=8), Column("BY"), Column("UNTIL"), Column("REASON", least=10))
_CLEAR = "\x1b[H\x1b[2J"
_ON_ITS_WAY = "It is on its way up or down, and serves nobody."


def _table(
    running: Sequence[Mapping[str, Any]],
    held: Sequence[Mapping[str, Any]],
    left_out: int,
    before: Mapping[str, tuple[float, float]],
    most: int | None,
) -> list[str]:
    text = tables.lines(_COLUMNS, [_row(each, before) for each in running], most) if running else ["No user endpoints."]
    text += [f"... and {left_out} more"] if left_out else []
    troubles = [(each, text) for each in running for text in (each.get("ending"), each.get("jobs")) if text]
    text += [f"{each.get('account')}, {each.get('name')}: {trouble}" for each, trouble in troubles]
    if held:
        rows = [[_who(each), str(each.get("kind")), _until(each), str(each.get("reason"))] for each in held]
        text += ["", *tables.lines(_HELD_COLUMNS, rows, most)]
    return text


def _row(each: Mapping[str, Any], before: Mapping[str, tuple[float, float]]) -> list[str]:
    blocks, most = each.get("blocks"), each.get("max_blocks")
    return [
        str(each.get("account")),
        str(each.get("username") or each.get("identity")),
        str(each.get("state")).split(",")[0],
        _age(each.get("since")),
        *(_plain(each.get(key)) for key in ("waiting", "running", "done")),
        _age(each.get("idle_since")),
        _size(each.get("memory_bytes")),
        _cpu(each, before),
        _plain(each.get("engine")),
        "-" if blocks is None else f"{blocks}/{_plain(most)}",
        ",".join(map(str, jobs)) if isinstance(jobs := each.get("batch_jobs"), list) and jobs else "-",
        str(each.get("name")).rpartition(".")[2],
    ]


def _cpu(each: Mapping[str, Any], before: Mapping[str, tuple[float, float]]) -> str:
    """The time so far; when it was looked at before, how much of a processor since then."""
    seconds, earlier = _number(each.get("cpu_seconds")), before.get(str(each.get("name")))
    if seconds is None:
        return "-"
    if earlier is not None and (passed := time.monotonic() - earlier[0]) > 0:
        return f"{max(0.0, 100 * (seconds - earlier[1]) / passed):.0f}%"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _who(held: Mapping[str, Any]) -> str:
    """The name where it is known here or to the system, else the number."""
    if held.get("kind") == "drain":
        return "everybody"
    known, uid = held.get("account") or held.get("target"), held.get("uid")
    if known:
        return str(known)
    import pwd

    with contextlib.suppress(KeyError, TypeError, OverflowError):
        return pwd.getpwuid(uid).pw_name  # type: ignore[arg-type]  # what is no uid is a TypeError
    return f"uid {uid}"


def _until(held: Mapping[str, Any]) -> str:
    return "-" if held.get("until") is None else _when(held["until"])


def _when(seconds: object) -> str:
    """A time for people: today's without the day."""
    if (number := _number(seconds)) is None:
        return "?"
    try:
        there, now = time.localtime(number), time.localtime()
    except (OverflowError, ValueError, OSError):
        return "?"
    return time.strftime("%H:%M:%S" if there[:3] == now[:3] else "%Y-%m-%d %H:%M", there)


def _age(since: object) -> str:
    if (number := _number(since)) is None:
        return "-"
    seconds = max(0, int(time.time() - number))
    for size, letter, below, more in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{seconds // size}{letter}{seconds % size // below:02}{more}"
    return f"{seconds}s"


def _size(said: object) -> str:
    if (size := _number(said)) is None:
        return "-"
    for letter, unit in (("T", 2**40), ("G", 2**30), ("M", 2**20)):
        if size >= unit:
            return f"{size / unit:.1f}{letter}" if size < 10 * unit else f"{size / unit:.0f}{letter}"
    return f"{size / 2**10:.0f}K"


def _number(value: object) -> float | None:
    """A number of a size that means something."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_GREATEST < value < _GREATEST:
        return None
    return float(value)


_GREATEST = 2**60


def _plain(value: object) -> str:
    return "-" if value is None else str(value)


def _counts(events: object) -> list[str]:
    """What was decided in the last minute, hour and day, if anything."""
    if not isinstance(events, dict):
        return []
    text = []
    for window in ("last_minute", "last_hour", "last_day"):
        if isinstance(counted := events.get(window), dict) and counted:
            shown = [f"{counted[event]} {event}" for event in _COUNTED if event in counted]
            text.append(f"  {window.replace('_', ' '):<13}{', '.join(shown) or 'nothing'}")
    if isinstance(refusals := events.get("refusals"), dict) and refusals:
        by = ", ".join(f"{count} at stage {stage}" for stage, count in refusals.items())
        text.append(f"  refusals     {by}, since {_when(events.get('since'))}")
    return text


_COUNTED = ("received", "started", "refreshed", "refused", "checked in", "exited")


def _one_refusal(said: Mapping[str, Any]) -> str:
    whom = said.get("account") or said.get("username") or said.get("identity") or "somebody"
    why = f"stage {said.get('stage')}: {said.get('reason')}"
    return f"{_when(said.get('time'))}, {whom}, {why} (mep why {said.get('request')})"


def _stopped(name: str, asked: Asked) -> dict[str, Any]:
    """What is told of a manager that does not run: how it ended, and the last errors of its log."""
    from mep.cli import log_files
    from mep.daemon import other_hosts
    from mep.monitor import last_run

    elsewhere = other_hosts.running_on(paths(), name)
    how = f"It {elsewhere}." if elsewhere else last_run.describe(asked.run_directory())
    errors = log_files.last_errors(paths().log_file(asked.directory), _SHOWN)
    where = " here" if elsewhere else ""
    text = [f"Endpoint {name} is not running{where}. {how}".rstrip(), *(f"  error        {line}" for line in errors)]
    return {"state": "stopped", "last": how, "last_errors": errors, "text": "\n".join(text)}


def _hangs(name: str, asked: Asked, why: str) -> dict[str, Any]:
    pid = asked.pid()
    try:
        words = (asked.run_directory() / "status").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        words = ""
    last = f"It, or its worker, stands still or is being started again; see its log. Its last word was: {words}"
    text = f"Endpoint {name} hangs: its manager (pid {pid}) {why}. {last if words else ''}".rstrip()
    return {"state": "hangs", "pid": pid, "text": text}


def _dicts(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    listed = answer.get(name)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _print(said: Mapping[str, Any], as_json: bool) -> None:
    """The text; or all but the text, for programs."""
    if as_json:
        print(json.dumps({name: value for name, value in said.items() if name != "text"}, indent=2))
    else:
        print(said["text"])


def _stderr() -> Any:
    import sys

    return sys.stderr
