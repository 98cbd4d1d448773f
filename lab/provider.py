"""An OpenID Connect provider of one's own: npm's `oidc-provider`, which is certified, on a free port of loopback.

    back = "http://localhost:5000/login/return"
    with OidcProvider(folder / "provider", [back], {"alice": {"email": ...}}) as provider:
        login = {"issuer": provider.issuer, "client_id": CLIENT_ID, "client_secret": provider.client_secret}

Its page takes any password for the accounts that it has. `lab/setup browser` installs it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.files import write_private
from lab.ports import free_ports
from lab.process import Running, end
from lab.waiting import until

CLIENT_ID = "mep-hub"
"""The hub's at the provider."""
START_TIMEOUT = 60.0

_SOURCE = Path(__file__).parent / "oidc"


class ProviderFailed(Exception):
    """The provider did not come up or did not end; the text has the end of its log."""


class OidcProvider(Running):
    """`start` and `stop`; a context manager does both. It forgets all logins when it ends, and keeps its port."""

    def __init__(self, folder: Path, redirect_uris: Sequence[str], accounts: Mapping[str, Mapping[str, Any]]) -> None:
        """`accounts` are the claims of each by its login name, which is its `sub`."""
        self.folder = folder.absolute()
        (self.port,) = free_ports(1)
        self.client_secret = secrets.token_urlsafe(32)
        self._redirect_uris = redirect_uris
        self._accounts = accounts
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        """Its name, which is where it is."""
        return f"http://localhost:{self.port}"

    def set_accounts(self, accounts: Mapping[str, Mapping[str, Any]]) -> None:
        """Changes who can log in, and what is said of them, from the next question on."""
        self._accounts = accounts
        self._write_settings()

    def start(self) -> None:
        """Starts it and waits until it answers. Raises ProviderFailed."""
        settings = self._write_settings()
        log = self.folder / "provider.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["node", str(_SOURCE / "server.js"), str(modules()), str(settings)],
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self._process

        def failed(text: str) -> Exception:
            return ProviderFailed(f"{text}:\n{log.read_text(errors='replace')[-2000:]}")

        def ready() -> bool:
            if process.poll() is not None:
                raise failed("the provider ended at its start")
            return b"ready\n" in log.read_bytes()

        try:
            until(ready, "the provider", START_TIMEOUT, failed=failed)
        except BaseException:
            process.kill()
            process.wait()
            self._process = None
            raise

    def stop(self) -> None:
        """Ends it. Harmless when stopped. Raises ProviderFailed when it does not end, or not with 0."""
        process, self._process = self._process, None
        end(process, "the provider", ProviderFailed)

    def _write_settings(self) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / "settings.json"
        client = {
            "client_id": CLIENT_ID,
            "client_secret": self.client_secret,
            "redirect_uris": list(self._redirect_uris),
        }
        write_private(path, json.dumps({"port": self.port, "clients": [client], "accounts": self._accounts}))
        return path


def modules() -> Path:
    """Where `lab/setup browser` has put the packages of package-lock.json: beside the environment that we run in."""
    lock = hashlib.sha256((_SOURCE / "package-lock.json").read_bytes()).hexdigest()[:12]
    return Path(sys.prefix).parent / f"oidc-{lock}"
