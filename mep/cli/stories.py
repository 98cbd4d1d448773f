"""The commands that tell what happened: `mep logs`, `mep why`. `story` does it."""

from __future__ import annotations

from typing import Annotated

import typer

from mep.cli.common import DEFAULT, Json, Name

_LINES = 100


def logs(
    name: Name = DEFAULT,
    uep: Annotated[
        str, typer.Option("--uep", help="The log of this user endpoint, read as its user.", show_default=False)
    ] = "",
    request: Annotated[
        str, typer.Option("--request", help="Only lines about this request, of all logs kept.", show_default=False)
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also what is added, until interrupted.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many lines of the end.")] = _LINES,
    as_json: Json = False,
) -> None:
    """Show the log of a manager, or of one of its user endpoints."""
    from mep.cli import story

    story.logs(name, uep, request, follow=follow, lines=lines, as_json=as_json)


def why(
    request: Annotated[str, typer.Argument(help="Id of a request, as users and logs have it.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Only of this profile; else of all.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """Tell the whole story of a request: decisions, log, the user endpoint's own words; ends with 1 if none has it."""
    from mep.cli import story

    story.why(request, name, as_json=as_json)
