"""TLS for other hosts: a certificate and its key, given to RabbitMQ and to the hub, and what both are told about them.

Each gets copies that its account alone can read; a new certificate is given by the same command.
"""

from __future__ import annotations

import contextlib
import grp
import pwd
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hub.setup import files
from hub.setup.rabbitmq import Node
from hub.setup.steps import Found, SetupFailed, Step, right_or_due

PORT = 5671
"""Where RabbitMQ listens for other hosts."""
HUB_LISTEN = "0.0.0.0:5443"
"""Where the hub does."""
_CONFIGURATION = "60-mep-hub-tls.conf"
_CERTIFICATE, _KEY = "mep-hub.pem", "mep-hub.key"


@dataclass(frozen=True, slots=True)
class Given:
    """A certificate for the host name by which other hosts know this one, with what is between it and the authority."""

    name: str
    certificate: Path
    key: Path


def check(given: Given) -> None:
    """Reads both files.

    Raises:
        SetupFailed: they cannot be read or do not belong together, or the certificate is not for the name or not valid
            now.
    """
    where = f"{given.certificate} with {given.key}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(given.certificate, given.key, password=lambda: "")
        trust = ssl.create_default_context(cafile=str(given.certificate))
    except OSError as e:
        reason = f"not a certificate and its key ({e.reason})" if isinstance(e, ssl.SSLError) else e.strerror
        raise SetupFailed(f"{where}: {reason}") from None
    # The certificate itself is trusted here: what is asked is its name and time.
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        _shake_hands(context, trust, given.name)
    except ssl.SSLCertVerificationError as e:
        raise SetupFailed(f"{given.certificate}: other hosts would refuse it: {e.verify_message}") from None


def configure(node: Node, given: Given, *, port: int = PORT, host: str = "", dry: bool = False) -> Iterator[Step]:
    """Gives RabbitMQ certificate and key, and has it listen for other hosts.

    Raises:
        SetupFailed: a file cannot be read or written, or its account could not read the key.
    """
    account = _account("rabbitmq")
    for path, source in (_rabbitmq_files(node, given)).items():
        yield _copy(source, path, 0o640, 0, account.pw_gid, dry=dry)
        if not dry:
            _check_readable(path, account)
    text = configuration(*_rabbitmq_files(node, given), port=port, host=host)
    yield files.put(node.folder / "conf.d" / _CONFIGURATION, text, dry=dry)


def configuration(certificate: Path, key: Path, *, port: int = PORT, host: str = "") -> str:
    """Makes RabbitMQ's configuration for TLS, at all addresses unless a `host` is named."""
    return (
        f"listeners.ssl.default = {host and f'{host}:'}{port}\n"
        f"ssl_options.certfile = {certificate}\n"
        f"ssl_options.keyfile = {key}\n"
        "ssl_options.verify = verify_none\n"  # of clients: they have passwords
    )


def newest(node: Node) -> list[Path]:
    """Lists the files that RabbitMQ must have read since they were written, whether they are there or not."""
    return [node.folder / "conf.d" / _CONFIGURATION, node.folder / _CERTIFICATE, node.folder / _KEY]


def tell_hub(config: Path, given: Given, uid: int, gid: int, *, dry: bool) -> Iterator[Step]:
    """Gives the hub certificate and key, and hub.yaml the keys for other hosts; those that it has are the admin's.

    Raises:
        SetupFailed: a file cannot be read or written, or hub.yaml is not as set-up has made it.
    """
    folder = config.parent
    for name, source in ((_CERTIFICATE, given.certificate), (_KEY, given.key)):
        yield _copy(source, folder / name, 0o600, uid, gid, dry=dry)
    broker = {"endpoint_host": given.name, "endpoint_port": PORT, "scheme": "amqps"}
    tls = {"listen": HUB_LISTEN, "certificate": _CERTIFICATE, "key": _KEY}
    what = f"{config}: `tls`, and `broker` for other hosts"
    if dry and not config.exists():
        yield Step(Found.DUE, what)
        return
    text = config.read_text(encoding="utf-8")
    there = _parsed(text)
    if there.get("tls") == tls and broker.items() <= there.get("broker", {}).items():
        yield Step(Found.RIGHT, what)
    elif "tls" in there or broker.keys() & there.get("broker", {}).keys():
        remedy = f"it has other values, so it is left alone; ours are `tls: {tls}` and, in `broker`, {broker}"
        yield Step(Found.EDITED, what, remedy)
    else:
        ours, theirs = ("".join(f"  {key}: {value}\n" for key, value in each.items()) for each in (tls, broker))
        added = text.replace("broker:\n", f"broker:\n{theirs}", 1).replace("clients:\n", f"tls:\n{ours}clients:\n", 1)
        if _parsed(added) != {**there, "tls": tls, "broker": {**there.get("broker", {}), **broker}}:
            raise SetupFailed(f"{config}: add these by hand: `tls: {tls}` and, in `broker`, {broker}")
        if not dry:
            files.write(config, added, 0o600, uid, gid)
        yield Step(Found.DUE, what)


def _parsed(text: str) -> dict[str, Any]:
    with contextlib.suppress(yaml.YAMLError):
        value = yaml.safe_load(text)
        if isinstance(value, dict):
            return value
    raise SetupFailed("hub.yaml: cannot be read as YAML")


def _rabbitmq_files(node: Node, given: Given) -> dict[Path, Path]:
    return {node.folder / _CERTIFICATE: given.certificate, node.folder / _KEY: given.key}


def _copy(source: Path, path: Path, mode: int, uid: int, gid: int, *, dry: bool) -> Step:
    try:
        text = source.read_text(encoding="ascii")
        right = path.exists() and path.read_text(encoding="ascii") == text
    except (OSError, UnicodeDecodeError) as e:
        raise SetupFailed(f"{source} to {path}: {type(e).__name__}") from None
    if not right and not dry:
        files.write(path, text, mode, uid, gid)
    return right_or_due(str(path), right=right)


def _account(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise SetupFailed(f"there is no account {name}; is the package rabbitmq-server installed?") from None


def _check_readable(path: Path, account: pwd.struct_passwd) -> None:
    """Tries it as that account: each folder above has a say, too."""
    groups = [group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem]
    done = subprocess.run(
        ["/usr/bin/test", "-r", path], user=account.pw_uid, group=account.pw_gid, extra_groups=groups, check=False
    )
    if done.returncode != 0:
        raise SetupFailed(f"{path}: RabbitMQ's account {account.pw_name} cannot read it; look at the folders above")


def _shake_hands(server: ssl.SSLContext, trust: ssl.SSLContext, name: str) -> None:
    """Has a client with `trust` meet the server, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        trust.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                ends.remove(end)
