"""The program `mep-hub`. `serve` logs to stderr; one line says when it is ready.

Exit codes: 0 after SIGTERM, 64 for wrong usage, 69 when something that is needed is not there or is not safe (broker,
address, database; for `setup` RabbitMQ, systemd), 65 for `forget` of nobody, 77 for `setup` without root's rights, 78
when hub.yaml, or for `forward` a setting, is wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import ssl
import sys
import uuid
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from hub import config, server, systemd
from hub.callers import Callers
from hub.forwarder import Destination, Forwarder
from hub.setup import host
from hub.setup.steps import SetupFailed
from hub.setup.tls import Given
from hub.store.store import Store
from wire.redaction import Redactor

_USAGE_OF_TYPER = 2

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="A Globus Compute web service for one site.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(given: bool) -> None:
    if given:
        typer.echo(f"mep-hub {version('mep')}")
        raise typer.Exit


@cli.callback()
def before_each_command(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """A Globus Compute web service for one site."""


@cli.command()
def serve(
    config_file: Annotated[Path, typer.Option("--config", help="hub.yaml: mode 0600, owned by the runner.")],
    debug: Annotated[bool, typer.Option(help="Log more.")] = False,
) -> None:
    """Run the web service until SIGTERM."""
    _log_to_stderr(logging.DEBUG if debug else logging.INFO)
    try:
        asyncio.run(server.serve(config.load(config_file)))
    except config.ConfigError as e:
        _fail(str(e), os.EX_CONFIG)
    except server.CannotStart as e:
        _fail(str(e), os.EX_UNAVAILABLE)


@cli.command()
def setup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to do.")] = False,
    name: Annotated[str, typer.Option(help="For other hosts: the name by which they know this one.")] = "",
    certificate: Annotated[Path | None, typer.Option(help="For other hosts: file of the certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="For other hosts: file of its key.")] = None,
) -> None:
    """Set up this host for a hub, as root, on RabbitMQ as its package makes it; for other hosts with TLS.

    Another run changes only what is not right any more, and nothing that was edited; one is due after an upgrade.
    """
    if os.geteuid() != 0:
        _fail("setup: makes an account and units, and reads RabbitMQ's passwords: run it as root", os.EX_NOPERM)
    given = None
    if name or certificate or key:
        if not (name and certificate and key):
            _fail("setup: for other hosts give all of --name, --certificate and --key", os.EX_USAGE)
        given = Given(name, certificate, key)
    try:
        for step in host.set_up(given, dry=dry_run):
            typer.echo(step.line(dry=dry_run))
    except SetupFailed as e:
        _fail(f"setup: {e}", os.EX_UNAVAILABLE)
    if not dry_run:
        typer.echo(f"Next: clients in {host.CONFIG} (mep-hub new-client), then: systemctl restart mep-hub")


@cli.command()
def forward(
    to: Annotated[str, typer.Option(envvar="MEP_HUB", help="HOST:PORT of the hub, as its certificate names it.")],
    ca: Annotated[str, typer.Option(envvar="MEP_HUB_CA", help="File of the authority; else those of the system.")] = "",
) -> None:
    """On a host without the hub, pass on to it what clients say to port 5000, with TLS; until SIGTERM.

    systemd holds that port: systemctl enable --now mep-hub-forward.socket.
    """
    _log_to_stderr(logging.INFO)
    name, _, port = to.rpartition(":")
    name = name.removeprefix("[").removesuffix("]")
    if not name or not port.isdecimal() or not 0 < int(port) < 65536:
        _fail(f"forward: MEP_HUB: expected HOST:PORT, got {to!r}", os.EX_CONFIG)
    try:
        trust = ssl.create_default_context(cafile=ca or None)
    except OSError as e:
        _fail(f"forward: MEP_HUB_CA: {ca}: {getattr(e, 'reason', None) or e.strerror}", os.EX_CONFIG)
    listening = systemd.given_sockets()
    if not listening:
        _fail("forward: has no port from systemd; use: systemctl start mep-hub-forward.socket", os.EX_UNAVAILABLE)
    asyncio.run(Forwarder(Destination(name, int(port), trust)).run(listening))


@cli.command()
def new_client() -> None:
    """Make up a client credential: prints its id, its secret, and the secret's hash for hub.yaml."""
    secret = secrets.token_urlsafe(32)
    typer.echo(f"client_id: {uuid.uuid4()}")
    typer.echo(f"client_secret: {secret}")
    typer.echo(f"client_secret_sha256: {hashlib.sha256(secret.encode()).hexdigest()}")


@cli.command()
def forget(
    username: Annotated[str, typer.Argument(help="Such as alice@example.org.")],
    config_file: Annotated[Path, typer.Option("--config", help="hub.yaml; run this as who runs the hub.")],
) -> None:
    """Log out a person everywhere and at once, and free their usernames. Tasks that wait or run go on.

    Whom the provider lets in may log in again.
    """
    try:
        forgotten = asyncio.run(_forget(config.load(config_file), username))
    except config.ConfigError as e:
        _fail(str(e), os.EX_CONFIG)
    except (OSError, SQLAlchemyError) as e:
        _fail(f"forget: database: {e}", os.EX_UNAVAILABLE)
    if forgotten is None:
        _fail(f"forget: nobody who has logged in with a browser is {username}", os.EX_DATAERR)
    typer.echo(f"Forgotten: {username}, identity {forgotten}")


async def _forget(loaded: config.HubConfig, username: str) -> str | None:
    with closing(Store(loaded.database, beside_hub=True)) as store:
        return await Callers(store, loaded.clients, {}).forget(username)


def main() -> None:
    """Runs the `mep-hub` program."""
    try:
        cli(prog_name="mep-hub")
    except SystemExit as e:
        sys.exit(os.EX_USAGE if e.code == _USAGE_OF_TYPER else e.code)


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Redactor())
    logging.basicConfig(level=level, handlers=[handler])
    for name in ("uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"mep-hub: {text}", err=True)
    sys.exit(code)
