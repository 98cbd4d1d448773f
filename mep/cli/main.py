"""The command line of the manager: `mep COMMAND`. Puts the groups of commands together; each has a file of its own.

Every error that a person can mend ends in one text on standard error and an exit code of <sysexits.h>:
78 a profile is wrong, 77 not allowed, 75 try again later, 69 not available, 64 wrong usage. 1: `map`, `explain` or
`render` answer that the manager would refuse.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mep import __version__
from mep.cli import configure, inspect, login, run
from mep.cli.common import choose_paths, paths
from mep.daemon.failed import Failed, exit_codes

_USAGE_OF_TYPER = 2


def main() -> None:
    """The program `mep`."""
    try:
        app(standalone_mode=True)
    except Failed as e:
        print(f"mep: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except SystemExit as e:
        sys.exit(os.EX_USAGE if e.code == _USAGE_OF_TYPER else e.code)


app = typer.Typer(
    help="Multi-user endpoint manager for Globus Compute.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def before_each_command(
    context: typer.Context,
    config_dir: Annotated[
        Path | None, typer.Option("--config-dir", "-c", help="Folder that holds the profiles.")
    ] = None,
) -> None:
    from mep.reader import environment

    if context.invoked_subcommand == "start":
        return  # the manager does this itself; what is in the file, secrets too, would come into its environment
    choose_paths(config_dir)
    with exit_codes():
        environment.load(paths().config / "environment")
    choose_paths(config_dir)  # the file may name paths


def version() -> None:
    """Show the version."""
    print(f"mep {__version__}")


for _command in (
    *(inspect.status, inspect.check, inspect.map_, inspect.explain, inspect.render),
    *(version, configure.configure),
    *(run.start, run.reload, run.stop, run.list_),
    *(login.login, login.logout, login.whoami),
):
    app.command(_command.__name__.rstrip("_"))(_command)
