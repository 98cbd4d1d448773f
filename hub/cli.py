"""`mep-hub serve --config hub.yaml`. Logs to stderr; one line says when it is ready.

Exit codes: 0 after SIGTERM, 67 for an unknown account, 69 when something that is needed is not there or is not safe
(broker, address, database, rabbitmqctl), 78 when hub.yaml is wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import pwd
import secrets
import sys
import uuid
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from hub import config, server
from hub.amqp import setup
from wire.redaction import Redactor

cli = typer.Typer(add_completion=False, no_args_is_help=True, help="A Globus Compute web service for one site.")


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
def broker_setup(
    url_file: Annotated[Path, typer.Option(help="Where to write the broker's URL: `url_file` of hub.yaml.")],
    owner: Annotated[str, typer.Option(help="The account that runs the hub; the file is readable by it alone.")],
    host: Annotated[str, typer.Option(help="Of the broker, in the URL.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Likewise.")] = 5672,
    rabbitmqctl: Annotated[str, typer.Option(help="RabbitMQ's program.")] = "rabbitmqctl",
) -> None:
    """Set up RabbitMQ for the hub, as root on its host; again is harmless, and due after an upgrade."""
    try:
        account = pwd.getpwnam(owner)
    except KeyError:
        _fail(f"--owner: there is no account {owner!r}", os.EX_NOUSER)
    try:
        setup.set_up(url_file, account.pw_uid, account.pw_gid, host, port, rabbitmqctl)
    except setup.SetupFailed as e:
        _fail(str(e), os.EX_UNAVAILABLE)
    typer.echo(f"RabbitMQ has user {setup.USER!r} and virtual host {setup.VHOST!r}, and no user {setup.GUEST!r}")
    typer.echo(f"{url_file} has their URL, for {owner} only")


@cli.command()
def new_client() -> None:
    """Make up a client credential: prints its id, its secret, and the secret's hash for hub.yaml."""
    secret = secrets.token_urlsafe(32)
    typer.echo(f"client_id: {uuid.uuid4()}")
    typer.echo(f"client_secret: {secret}")
    typer.echo(f"client_secret_sha256: {hashlib.sha256(secret.encode()).hexdigest()}")


def main() -> None:
    """Runs the `mep-hub` program."""
    cli(prog_name="mep-hub")


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Redactor())
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(f"mep-hub: {text}", err=True)
    sys.exit(code)
