"""Asks the service for its version, with our login: `mep check` sees whether the registration could work."""

from __future__ import annotations

from dataclasses import dataclass

import globus_sdk

from mep.profile.config import ManagerConfig
from mep.registration.errors import told
from mep.registration.login import check_login, remedy, service_url


@dataclass(frozen=True)
class ServiceVersion:
    """version: of the service's API. date: its clock, as an HTTP header."""

    version: str
    date: str | None


def ask_version(config: ManagerConfig, app: globus_sdk.GlobusApp) -> ServiceVersion:
    """What the service answers; nothing is registered.

    Raises:
        RegistrationError: no login, or the service cannot be reached, or refuses.
    """
    check_login(app, config)
    with (
        told(remedy(app, config), url=service_url(config)),
        globus_sdk.ComputeClientV2(app=app, base_url=service_url(config)) as client,
    ):
        answer = client.get_version()
    version = answer.data.get("api") if isinstance(answer.data, dict) else answer.data
    return ServiceVersion(str(version), answer.headers.get("Date"))
