"""Does once more what the start has done: reads the profile, or the mapping, or registers the endpoint.

A program that the manager executes as root, for each time: it has seen no request, has nothing of the manager's memory,
and ends. So the manager itself loads no reader of files and no client of the service. What parses others' texts, and
what talks to the service, are children without rights here, too.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from mep.daemon.handed import ReadMapping, ReadProfile, Register, Tried
from mep.privileged.memory_file import fill
from mep.processes import (
    executed,
    helper,  # noqa: F401 - looks at this process, which it may as long as others may, too
)
from mep.processes.sealed_file import SealedFile
from mep.profile.errors import ConfigError, ConfigErrors
from mep.profile.mapping_documents import MappingDocuments
from mep.request.unwanted import EndpointUnwanted


def do(question: Any) -> object:
    """Answers one question of `handed`."""
    if isinstance(question, ReadProfile):
        return read_profile(question)
    if isinstance(question, ReadMapping):
        return read_mapping(question)
    assert isinstance(question, Register)
    register(question)
    return None


def read_profile(asked: ReadProfile) -> Tried:
    """The edited profile, with what it relies on in order, and tried.

    Raises:
        ConfigError: with everything that is wrong.
        HelperUnavailable: it cannot be tried.
    """
    from mep.daemon import known_names, trial
    from mep.privileged import session
    from mep.profile.profile import CONFIG
    from mep.reader import loader, outside

    profile = loader.load(asked.directory)
    outside.check(profile)
    if unknown := known_names.problems(profile.config.accounts):
        raise ConfigError(asked.directory / CONFIG, unknown)
    if profile.config.pam.enable and (problem := session.problem()):
        raise ConfigErrors([problem])
    findings = asyncio.run(trial.rehearse_as(profile, asked.render))
    if findings.problems:
        raise ConfigErrors(findings.problems)
    return Tried(profile, tuple(findings.notes))


def read_mapping(asked: ReadMapping) -> MappingDocuments:
    """The documents. Raises ConfigError."""
    from mep.reader import files

    return files.read_mapping(asked.path)


def register(asked: Register) -> None:
    """Registers the endpoint; its addresses are written into the first file.

    Raises:
        EndpointUnwanted: the service, or the profile's login, will not do.
        ConnectionError: it is to be tried again.
    """
    from mep.daemon.registering import Registrar
    from mep.profile.client_credentials import ClientCredentials
    from mep.registration.errors import RegistrationError

    given = None
    if asked.given:
        secret = SealedFile(executed.FILES + 1)  # the manager's open file, whose position must stay where it is
        given = ClientCredentials(*json.loads(secret.read()))
    registrar = Registrar(asked.profile, asked.worker, given, asked.folders.state, asked.folders.run)
    try:
        registration = asyncio.run(registrar.register())
    except RegistrationError as e:
        if not e.passes:
            raise EndpointUnwanted(e.exit_code, str(e)) from None
        raise ConnectionError(str(e)) from None
    except ConfigError as e:
        raise EndpointUnwanted(os.EX_CONFIG, str(e)) from None
    except OSError as e:
        raise ConnectionError(f"the service could not be asked: {e}") from None
    fill(executed.FILES, registration.addresses())


if __name__ == "__main__":
    executed.answer(do)
