"""Has the endpoint registered by a process of its own, and remembers what the service says. In the daemon, root.

The library that talks to the service is loaded in that process alone, and goes with it. With client credentials it runs
without rights: it holds the client's secret, and nobody can look into it. With a stored login it is root still, since
the tokens that the service renews are written into root's `storage.db`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mep.privileged import kernel
from mep.processes import forked
from mep.processes.printable import escaped
from mep.profile.client_credentials import ClientCredentials
from mep.profile.profile import Profile
from mep.reader import client_credentials, registered
from mep.registration import answer
from mep.registration.answer import Registration
from mep.registration.errors import RegistrationError
from mep.request.account import Account

TIMEOUT = 180.0
"""Seconds for one registration: `globus_sdk` tries several times."""
MOST = 64 * 2**10
"""Bytes of an answer."""
PAUSE = 15.0
"""Seconds between two attempts while the service says that the endpoint is locked."""


class Registrar:
    """Registers one endpoint: at the start, and whenever the broker refuses what the service has said before.

    account: without rights; registers with client credentials. credentials: those of the environment, or of the file,
    which is read again each time. state: the folder with the stored login. known: the id to register under, whatever
    the profile was registered with before.
    """

    def __init__(
        self,
        profile: Profile,
        account: Account,
        credentials: ClientCredentials | None,
        state: Path,
        run_directory: Path,
        known: str | None = None,
    ) -> None:
        self._profile = profile
        self._account = account
        self._credentials = credentials
        self._state = state
        self._run_directory = run_directory
        self._known = known
        self._own = not kernel.is_root()  # here, as the process that asks may have no rights
        self._local_user = pwd.getpwuid(os.getuid()).pw_name

    async def register(self) -> Registration:
        """Registers the endpoint, under the id that it has had before, and remembers the id.

        Raises:
            ConfigError: credentials, or what is remembered, cannot be read or written.
            RegistrationError: the service does not take us.
            OSError: no process to be had, or it did not answer.
        """
        credentials, known = await forked.run(self._read)
        account = None if credentials is None else self._account
        said = await forked.ask(functools.partial(self._ask, credentials, known), account, TIMEOUT, MOST)
        told = _opened(said)
        registration = answer.read(told["answer"], self._profile.config.amqp_port, known)
        owners = answer.identities(told.get("identities")) if self._own else None
        await forked.run(functools.partial(self._remember, registration, owners))
        return registration

    async def register_once_unlocked(self, waits: Callable[[str], None]) -> Registration:
        """The same, and waits for as long as the service says that the endpoint is locked. waits: is told so each time,
        in the service's words. Raises as `register` does."""
        while True:
            try:
                return await self.register()
            except RegistrationError as e:
                if not e.locked:
                    raise
                waits(str(e))
            await asyncio.sleep(PAUSE)

    def _read(self) -> tuple[ClientCredentials | None, str | None]:
        path = self._profile.config.client_credentials_path
        credentials = self._credentials if path is None else client_credentials.find(path)
        return credentials, self._known or registered.endpoint_id(self._profile.directory)

    def _ask(self, credentials: ClientCredentials | None, known: str | None) -> bytes:
        """Asks the service. In the process of its own, which alone imports these."""
        from mep.registration.login import login_app
        from mep.registration.registration import own_identities, register

        try:
            with login_app(self._state, self._profile.config, credentials) as app:
                told = register(self._profile, app, known, self._local_user, multi_user=not self._own)
                said: dict[str, object] = {"answer": told}
                if self._own:
                    said["identities"] = own_identities(app, self._profile.config)
        except RegistrationError as e:
            said = {"exit_code": e.exit_code, "error": str(e), "locked": e.locked}
        except Exception as e:  # noqa: BLE001 - whatever it was, somebody must be told
            said = {"exit_code": os.EX_SOFTWARE, "error": f"{type(e).__name__}: {e}"}
        return json.dumps(said).encode()

    def _remember(self, registration: Registration, owners: Mapping[str, str] | None) -> None:
        if owners is not None:
            registered.remember_owner(self._profile.directory, owners, self._local_user)
        registered.remember(self._profile.directory, registration.endpoint_id, registration.broker, owners or {})
        commands = registration.as_told
        registered.remember_connection(self._run_directory, commands.connection_url, commands.queue)


def _opened(said: bytes) -> Mapping[str, Any]:
    """What the process said, with the service's answer. Raises RegistrationError."""
    try:
        told: Mapping[str, Any] = json.loads(said)
        if "answer" in told:
            return told
        code, text, locked = int(told["exit_code"]), str(told["error"]), told.get("locked") is True
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        code, text, locked = os.EX_SOFTWARE, "the process that registers the endpoint makes no sense", False
    raise RegistrationError(code if code in _CODES else os.EX_SOFTWARE, escaped(text), locked)


_CODES = frozenset(range(os.EX_USAGE, os.EX_CONFIG + 1))
"""Those of <sysexits.h>."""
