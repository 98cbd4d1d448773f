"""Which profile a manager starts with: the edited one, or else the one that was accepted last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from mep import __version__
from mep.daemon import trial
from mep.privileged import session
from mep.profile import accepted as keeping
from mep.profile.accepted import Accepted
from mep.profile.errors import ConfigError, ConfigErrors
from mep.profile.profile import Profile
from mep.reader import accepted as kept
from mep.reader import loader, outside, registered

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The profile to run. refused: what is wrong with the edited one, when this is the one that was accepted last."""

    profile: Profile
    refused: str = ""


def choose(directory: Path, state: Path) -> Chosen:
    """The edited profile, if all that can be tried works; else, loudly, the one that was accepted last, if it does.

    Raises:
        ConfigError: neither can be used.
        HelperUnavailable: they cannot be tried.
    """
    accepted = None
    with contextlib.suppress(ConfigError):  # without it the edited profile must do
        accepted = kept.find(state, directory.name, registered.endpoint_id(directory))
    try:
        edited = loader.load(directory)
        return Chosen(_usable(edited, tried=accepted is not None and _is_tried(accepted, edited)))
    except ConfigError as e:
        if accepted is None:
            raise
        try:
            profile = _usable(kept.load(accepted, directory), tried=accepted.version == __version__)
        except ConfigError as other:
            raise ConfigErrors(
                [str(e), f"the profile accepted on {accepted.at} cannot be used either: {other}"]
            ) from None
        refused = f"edited profile refused, the one accepted on {accepted.at} is in force: {e}"
        return Chosen(profile, refused)


def _is_tried(accepted: Accepted, edited: Profile) -> bool:
    return accepted.version == __version__ and accepted.is_of(edited)


def _usable(profile: Profile, *, tried: bool) -> Profile:
    """The profile, with what it relies on in order. Raises ConfigError, HelperUnavailable."""
    outside.check(profile)
    if profile.config.pam.enable and (problem := session.problem()):
        raise ConfigErrors([problem])
    if not tried:
        findings = asyncio.run(trial.rehearse(profile))
        if findings.problems:
            raise ConfigErrors(findings.problems)
    return profile


def keep(state: Path, profile: Profile, endpoint_id: str) -> None:
    """Keeps the profile for the next start; says so when it cannot."""
    try:
        keeping.save(state, profile, endpoint_id)
    except (ConfigError, OSError) as e:
        log.error("the profile in force cannot be kept for the next start: %s", e)
