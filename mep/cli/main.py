"""The command line of the manager: `mep COMMAND`. Puts the groups of commands together; each has a file of its own.

Every error that a person can mend ends in one text on standard error and an exit code of <sysexits.h>:
78 a profile is wrong, 77 not allowed, 75 try again later, 69 not available, 64 wrong usage. 1: `map`, `explain`,
`render` or `render-user-config` answer that the manager would refuse, `why` knows no such request, or somebody has
answered no.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mep import __version__
from mep.cli import (
    boot,
    configure,
    delete,
    executed,
    functions,
    login,
    orders,
    render_user_config,
    run,
    stories,
    watching,
)
from mep.cli import inspect as asked
from mep.cli.common import paths, set_up
from mep.daemon.failed import Failed, exit_codes

_USAGE_OF_TYPER = 2
_ALONE = ("start", "_start-user-endpoint")


def main() -> None:
    """The program `mep`, also under the names of the public package's."""
    try:
        app(standalone_mode=True)
    except Failed as e:
        print(f"mep: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except PermissionError as e:
        print(f"mep: {e.filename}: {e.strerror}; the folder of profiles is {paths().config}", file=sys.stderr)
        sys.exit(os.EX_NOPERM)
    except SystemExit as e:
        sys.exit(os.EX_USAGE if e.code == _USAGE_OF_TYPER else e.code)


app = typer.Typer(
    help="Multi-user endpoint manager for Globus Compute.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(given: bool) -> None:
    if given:
        version()
        raise typer.Exit


@app.callback()
def before_each_command(
    context: typer.Context,
    config_dir: Annotated[
        Path | None, typer.Option("--config-dir", "-c", help="Folder that holds the profiles.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand in _ALONE:
        return  # the manager does this itself; what is in the file, secrets too, would come into its environment
    with exit_codes():
        set_up(config_dir)


def version() -> None:
    """Show the version."""
    print(f"mep {__version__}")


def _log_details(given: bool) -> bool:
    if given:
        from mep.daemon import logs

        logs.send_to([logging.StreamHandler()], debug=True)
    return given


def _without_colours(given: bool) -> bool:
    if given:
        os.environ["NO_COLOR"] = "1"
    return given


_OF_ALL: dict[str, Any] = {
    "debug": Annotated[
        bool,
        typer.Option("--debug", help="Log details that mostly developers need.", callback=_log_details, is_eager=True),
    ],
    "log_to_console": Annotated[
        bool, typer.Option("--log-to-console", help="What this command logs goes to the console anyway.")
    ],
    "no_color": Annotated[
        bool,
        typer.Option("--no-color", help="No colours in what is printed.", callback=_without_colours, is_eager=True),
    ],
}
"""The options that every command has, unless it has its own of that name."""


def _with_options_of_all(command: Callable[..., None]) -> Callable[..., None]:
    own = inspect.signature(command)
    more = {name: kind for name, kind in _OF_ALL.items() if name not in own.parameters}

    @functools.wraps(command)
    def called(*args: Any, **given: Any) -> None:
        command(*args, **{name: value for name, value in given.items() if name not in more})

    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False) for name in more]
    called.__annotations__ = typing.get_type_hints(command, include_extras=True) | more
    parameters = [
        each.replace(annotation=called.__annotations__[each.name]) for each in (*own.parameters.values(), *added)
    ]
    setattr(called, "__signature__", own.replace(parameters=parameters))  # noqa: B010 - a function has none for mypy
    return called


_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Set up": (configure.configure, configure.migrate_to_template_capable, login.login, login.logout, login.whoami),
    "Try before": (asked.check, asked.map_, asked.explain, asked.render, render_user_config.render_user_config),
    "Run": (run.start, run.reload, run.restart, run.stop, boot.enable_on_boot, boot.disable_on_boot, delete.delete),
    "See": (run.list_, watching.status, watching.ps, stories.logs, stories.why),
    "Steer": (orders.kill, orders.drain, orders.undrain, orders.ban, orders.unban),
    "Other": (version,),
}
"""The commands in the order in which an admin meets them; --help shows them like that."""
for _group, _commands in _GROUPS.items():
    for _command in _commands:
        _name = _command.__name__.rstrip("_").replace("_", "-")
        app.command(_name, rich_help_panel=_group)(_with_options_of_all(_command))
_functions = typer.Typer(help="Functions that may run, by the hash of their code.", no_args_is_help=True)
_functions.command("pin")(_with_options_of_all(functions.pin))
app.add_typer(_functions, name="functions", rich_help_panel="Other")
app.command("python-exec", context_settings=executed.REST_AS_IT_IS, rich_help_panel="Other")(
    _with_options_of_all(executed.python_exec)
)
app.command("_start-user-endpoint", hidden=True)(_with_options_of_all(executed.start_user_endpoint))
