"""Asks the service for its version, with our login, and whether it serves endpoints of ours.

`registration` asks before it registers; so does `mep check`, which thereby sees whether the registration could work.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import globus_sdk
from packaging.version import InvalidVersion, Version

from mep.profile.config import ManagerConfig
from mep.registration.errors import RegistrationError, told
from mep.registration.login import check_login, remedy, service_url

COMPATIBLE_VERSION = "4.19.0"
"""The version of the public package, endpoint and SDK, that we are like: the service says which are too old for it."""


@dataclass(frozen=True)
class ServiceVersion:
    """version: of the service's API. date: its clock, as an HTTP header. least: the oldest versions of the public
    package that it serves, of the endpoint and of the SDK."""

    version: str
    date: str | None
    least: tuple[str, ...]


def ask_version(config: ManagerConfig, app: globus_sdk.GlobusApp) -> ServiceVersion:
    """What the service answers; nothing is registered.

    Raises:
        RegistrationError: no login, or the service cannot be reached, or refuses, or serves newer endpoints only.
    """
    check_login(app, config)
    with (
        told(remedy(app, config), url=service_url(config), what="to say its version"),
        globus_sdk.ComputeClientV2(app=app, base_url=service_url(config)) as client,
    ):
        answer = client.get_version(service="all")
    said = answer.data if isinstance(answer.data, dict) else {"api": answer.data}
    least = tuple(str(said[key]) for key in ("min_ep_version", "min_sdk_version") if key in said)
    for each in least:
        _check(each)
    return ServiceVersion(str(said.get("api")), answer.headers.get("Date"), least)


def _check(least: str) -> None:
    """Compares as the public package does, for which a version under development is neither old nor new.

    Raises:
        RegistrationError: we are older than that.
    """
    try:
        wanted, ours = Version(least), Version(COMPATIBLE_VERSION)
    except InvalidVersion:
        return  # whether the service takes us, the registration shows
    if ours < wanted and not (wanted.is_devrelease and wanted.release == ours.release):
        text = f"the service wants endpoints of version {least} or later, and this one is like {COMPATIBLE_VERSION}"
        raise RegistrationError(os.EX_DATAERR, f"{text}: install a newer mep")
