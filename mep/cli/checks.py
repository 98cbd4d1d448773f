"""`mep check`: everything that could fail later, tried now with the functions that the manager itself calls.

A line each; what depends on something broken is left out. Nothing is changed, and nobody is told anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import getpass
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from mep.cli import boot, home_probe, public_profile, slips
from mep.daemon import known_names, trial
from mep.monitor import run_lock
from mep.monitor.containment.containment import Containment, available
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.stages import orders_file
from mep.privileged import become, kernel, session
from mep.processes import forked
from mep.processes.helper import HelperUnavailable
from mep.profile import command_trust, functions, own_code, places, trust
from mep.profile.accepted import file as accepted_file
from mep.profile.errors import ConfigError
from mep.profile.paths import Paths
from mep.profile.profile import ENVIRONMENT, REGISTERED, Profile
from mep.reader import accepted, client_credentials, loader, outside, registered
from mep.registration.errors import RegistrationError
from mep.registration.login import login_app
from mep.registration.version import ask_version
from mep.worker.commands import MAX_SKEW
from mep.worker.instances import REMEDY
from mep.worker.probe import probe
from wire.errors import BrokerError, QueueGone, Unreachable, Unwanted
from wire.network_errors import describe
from wire.queues import PORTS, QueueInfoError, Source, place, read_source

TIMEOUT = 10.0
"""Seconds to connect to the broker."""
LITTLE_ROOM = 64 << 20
FEW_NAMES = 1000
"""Bytes, and new files, for which a file system should have room: audit trail and log take some for each request."""
OK, NOTE, FAIL = "ok", "note", "FAIL"


@dataclass(frozen=True)
class Line:
    """What was looked at and how it is. exit_code: one of os.EX_*, what `mep start` would end with."""

    verdict: str
    what: str
    text: str
    exit_code: int = os.EX_OK


def lines(directory: Path, paths: Paths, *, files_only: bool = False) -> Iterator[Line]:
    """Checks the profile in `directory`: its files, and unless `files_only` also what is outside of them."""
    profile, findings = loader.examine(directory)
    for finding in findings:
        if finding.problem is None:
            yield Line(OK, str(finding.path), f"belongs to {trust.WHO}, readable, valid")
        else:
            yield _failed(str(finding.path), finding.problem.removeprefix(f"{finding.path}: "))
    yield from _commands([(sys.executable,)] if profile is None else [(sys.executable,), profile.config.uep_command])
    yield from _accepted(directory, paths, profile)
    if profile is None:
        return
    for hint in profile.mapping.hints:
        yield Line(NOTE, f"mapping, {hint.where}", f"{hint.text}; {hint.suggestion}")
    for what, slip in slips.slips(profile):
        yield Line(NOTE, what, slip)
    for each in public_profile.remains(directory, profile.config, paths):
        if each.in_the_way:
            yield _failed(each.what, each.text, os.EX_TEMPFAIL)
        else:
            yield Line(NOTE, each.what, each.text)
    yield from _functions(profile)
    yield from _outside(profile)
    if kernel.is_root():
        yield _pam(profile)
    yield from _rehearsal(profile)
    if not files_only:
        folders = _folders(profile, paths, directory)
        yield folders
        yield from _room(profile, paths, directory)
        yield from _containment(profile)
        if kernel.is_root():
            yield _login_uid(profile)
        yield from _service(profile, paths)
        if folders.verdict == OK:  # else somebody else may have said where the broker is
            yield _broker(profile, paths)
        if (line := port_of(profile, profile.templates[profile.template_name])) is not None:
            yield line


def _accepted(directory: Path, paths: Paths, profile: Profile | None) -> Iterator[Line]:
    """Which profile a manager runs with, and would start with, when it is not the one in the folder."""
    try:
        known = registered.endpoint_id(directory)
        kept = accepted.find(paths.state, directory.name, known)
        other = accepted.other_endpoint(paths.state, directory.name, known)
    except ConfigError as e:
        yield Line(NOTE, "accepted profile", str(e))
        return
    if other is not None:
        text = f"this profile last ran as endpoint {other}, not as {known}; its users know the former: restore the id"
        yield _failed(str(directory / REGISTERED), text)
    if kept is not None and (profile is None or not kept.is_of(profile)):
        text = f"not these files, but the profile accepted on {kept.at} (mep {kept.version}); `mep reload` takes them"
        yield Line(NOTE, "in force", text)


def _failed(what: str, text: str, exit_code: int = os.EX_CONFIG) -> Line:
    return Line(FAIL, what, text, exit_code)


def _commands(commands: list[tuple[str, ...]]) -> Iterator[Line]:
    for command in commands:
        problem, what = outside.command_problem(command), f"program {command[0]}"
        fine = Line(
            OK, what, "only root can change it, and ordinary users can execute it" if kernel.is_root() else "can be run"
        )
        yield fine if problem is None else _failed(what, problem)
        for argument in command_trust.unfollowed(command):
            text = f"{command_trust.unfollowed_text(argument)}; {command_trust.UNFOLLOWED_REMEDY}"
            yield Line(NOTE, what, text)


def _written(profile: Profile, paths: Paths, directory: Path) -> list[Path]:
    """The files that a manager writes, wherever they lie."""
    run, kept = paths.run / profile.name, paths.kept(profile.name)
    trails = [each for each in (profile.config.audit_log_path, profile.config.public_audit_log_path) if each]
    accepted_profile = accepted_file(paths.state, profile.name)
    orders = orders_file.path(paths.orders(profile.name))
    files = [paths.log_file(directory), run / "manager.pid", accepted_profile, kept / "ENDPOINT.json", orders]
    return [*files, *trails]


def _functions(profile: Profile) -> Iterator[Line]:
    """Which functions may run, when not all may, and whether with whatever code the service has of them."""
    allowed = profile.config.allowed_functions
    if not allowed:
        return
    pins = functions.pins(allowed)
    if not pins:
        text = f"{len(allowed)} may run, with whatever code the service has of them; `mep functions pin` pins the code"
        yield Line(NOTE, "functions", text)
        return
    listed = ", ".join(f"{each} ({digest[:12]}...)" for each, digest in pins.items())
    yield Line(OK, "functions", f"{len(pins)} may run, pinned by the SHA-256 of their code: {listed}")


def _folders(profile: Profile, paths: Paths, directory: Path) -> Line:
    try:
        places.check_profile(paths, directory)
    except ConfigError as e:
        return _failed("logs and state", str(e))
    files = _written(profile, paths, directory)
    for file in files:
        nearest = _nearest(file)
        if not os.access(nearest, os.W_OK | os.X_OK):
            return _failed("logs and state", f"{file} cannot be written: {nearest} is not writable")
        try:
            home_probe.write_something(nearest)
        except OSError as e:
            return _failed("logs and state", f"{file} cannot be written: {nearest}: {e.strerror}")
    return Line(OK, "logs and state", f"can be written, by nobody but {trust.WHO}: {', '.join(map(str, files))}")


def _room(profile: Profile, paths: Paths, directory: Path) -> Iterator[Line]:
    """A line for each file system that is nearly full; one that is full is told by `_folders`."""
    by_device: dict[int, list[Path]] = {}
    for file in _written(profile, paths, directory):
        by_device.setdefault(_nearest(file).stat().st_dev, []).append(file)
    for files in by_device.values():
        found = os.statvfs(_nearest(files[0]))
        bytes_left = found.f_bavail * found.f_frsize
        few_names = found.f_files > 0 and found.f_favail < FEW_NAMES  # some file systems do not count them
        if bytes_left < LITTLE_ROOM or few_names:
            left = f"{found.f_favail} files" if few_names else f"{bytes_left >> 20} MiB"
            text = f"there is room for {left} only, where these lie: {', '.join(map(str, files))}; make room"
            yield Line(NOTE, "logs and state", text)


def _nearest(file: Path) -> Path:
    """The folder of a file, or what there is of the way to it."""
    return next(folder for folder in file.parents if folder.exists())


def _outside(profile: Profile) -> Iterator[Line]:
    """What reload and start look at, too."""
    for what, problem in (
        ("our own code", outside.code_problem() if kernel.is_root() else None),
        ("environment", "; ".join(own_code.variable_problems(os.environ) if kernel.is_root() else ()) or None),
        ("without root", "; ".join(outside.needs_root(profile.config)) or None),
        ("audit trail", outside.audit_problem(profile.config.audit_log_path)),
        ("audit trail", outside.audit_problem(profile.config.public_audit_log_path, "public_audit_log_path")),
        ("client credentials", outside.credentials_problem(profile.config.client_credentials_path)),
        ("accounts", "; ".join(known_names.problems(profile.config.accounts)) or None),
    ):
        if problem is not None:
            yield _failed(what, problem)
    if not kernel.is_root():
        yield Line(
            OK, "accounts", f"tasks of whoever registers this endpoint run as {getpass.getuser()}, and no others"
        )
        return
    for note in known_names.notes(profile.config.accounts):
        yield Line(NOTE, "accounts", note)
    for problem in own_code.variable_problems(profile.environment):
        text = f"{problem}; whoever can change that runs as every user"
        yield Line(NOTE, ENVIRONMENT, text)


def _pam(profile: Profile) -> Line:
    service = profile.config.pam.service_name
    if not profile.config.pam.enable:
        return Line(OK, "PAM", "off: user endpoints have no session, and can gain no rights by set-uid programs")
    if problem := outside.pam_problem(service) or session.problem():
        return _failed("PAM", problem)
    return Line(OK, "PAM", f"service {service!r} is there; accounts go through its account and session rules")


def _containment(profile: Profile) -> Iterator[Line]:
    if available() and (problem := boot.name_problem(profile.name)):
        yield _failed("containment", problem)
        return
    containment = Containment(profile.name)

    async def probe() -> str:
        try:
            return await containment.probe(profile.config.resources)
        finally:
            containment.close()

    try:
        yield Line(OK, "containment", asyncio.run(probe()))
    except ContainmentError as e:
        yield Line(NOTE, "containment", f"limits are not all in force: {e}")
    if told := containment.note():
        yield Line(NOTE, "containment", told)


def _login_uid(profile: Profile) -> Line:
    """Found out from here: a manager that systemd starts has none yet, and can always set it."""
    what = "login uid"
    problem = asyncio.run(forked.run(become.login_uid_problem))
    if problem is None:
        return Line(OK, what, "is that of the account, in the kernel's audit")
    text = f"tasks have not that of their account, where the manager is started as this command was: {problem}"
    if not profile.config.high_assurance:
        return Line(NOTE, what, text)
    return Line(NOTE, what, f"{text}; with high_assurance nothing starts then; started by systemd it can be set")


def _rehearsal(profile: Profile) -> Iterator[Line]:
    """What a start and a reload try, too."""
    what = "template, rendered"
    try:
        findings = asyncio.run(trial.rehearse(profile))
    except HelperUnavailable as e:
        yield _failed(what, str(e), e.exit_code)
        return
    for note in findings.notes:
        yield Line(NOTE, what, note)
    for problem in findings.problems:
        yield _failed(what, problem)
    if not findings.problems:
        yield Line(OK, what, "renders with the defaults and examples of the schema; user endpoints take that")


def _service(profile: Profile, paths: Paths) -> Iterator[Line]:
    try:
        places.check_state(paths)
        credentials = client_credentials.find(profile.config.client_credentials_path)
        with login_app(paths.state, profile.config, credentials) as app:
            answer = ask_version(profile.config, app)
    except ConfigError as e:
        yield _failed("login", str(e))
        return
    except RegistrationError as e:
        yield _failed("service", str(e), e.exit_code)
        return
    yield Line(OK, "service", f"answers, with our login (API {answer.version})")
    yield _clock(answer.date)


def _clock(date: str | None) -> Line:
    if date is None:
        return Line(NOTE, "clock", "the service does not tell its time")
    skew = round(time.time() - email.utils.parsedate_to_datetime(date).timestamp())
    if abs(skew) > MAX_SKEW:
        return _failed("clock", f"{skew} s off the service's; start commands would be refused; is NTP running?")
    return Line(OK, "clock", f"{abs(skew)} s off the service's")


def _broker(profile: Profile, paths: Paths) -> Line:
    """With the login of the manager that registered last: what is refused to it now will be refused again."""
    address = registered.broker_address(profile.directory)
    if address is None:
        return Line(NOTE, "broker", "not tried: address, login and queue are known only after the first start")
    port, run_directory = profile.config.amqp_port, paths.run / profile.name
    try:
        commands = read_source(registered.connection(run_directory), "the manager's login", port)
    except QueueInfoError:
        return _reach(address, port)
    try:
        instances = asyncio.run(probe(commands))
    except Unreachable as e:
        return _failed("broker", f"{e}{_try_other_port(commands.connection_url)}", os.EX_TEMPFAIL)
    except Unwanted as e:
        return _unwanted(e, run_directory)
    except BrokerError as e:
        return _failed("broker", f"{e}; try again", os.EX_TEMPFAIL)
    if others := instances - (run_lock.holder(run_directory) is not None):
        text = f"{others} take commands of this endpoint, and are not the manager of this profile on this host"
        return _failed("broker", f"{text}: {REMEDY}", os.EX_TEMPFAIL)
    return Line(OK, "broker", f"{place(commands.connection_url)}: takes our login, and has our queue")


def _unwanted(error: Unwanted, run_directory: Path) -> Line:
    """The service gives a new queue and password to each manager that registers, so only one that runs needs these."""
    gone = isinstance(error, QueueGone)
    text = f"the queue of our start commands is gone, or not for us any more: {error}" if gone else str(error)
    if run_lock.holder(run_directory) is None:
        return Line(NOTE, "broker", f"{text}; the next start asks the service for new ones")
    told = "the running manager asks the service for new ones within a minute"
    remedy = "if this stays, look at `mep status` and restart it"
    return _failed("broker", f"{text}; {told}; {remedy}", os.EX_UNAVAILABLE if gone else os.EX_NOPERM)


def port_of(profile: Profile, text: str) -> Line | None:
    """Whether the broker can be reached at the port to which a template, or what one became, sends user endpoints.

    None: at the manager's own, or where the broker is is not known yet.
    """
    found = re.search(r"^amqp_port\s*:\s*(\d{1,5})\s*(?:#.*)?$", text, re.MULTILINE)
    address = registered.broker_address(profile.directory)
    if found is None or int(found[1]) == profile.config.amqp_port or address is None:
        return None
    line = _reach(address, int(found[1]))
    remedy = f"leave `amqp_port` out of {profile.template_name}: config.yaml's is for both"
    return replace(line, what="broker, for user endpoints", text=f"{line.text.partition('; login')[0]}; {remedy}")


def _reach(address: str, amqp_port: int | None) -> Line:
    """As far as one comes without a login."""
    url = Source(address, "").at_port(amqp_port).connection_url
    parts, where = urlsplit(url), place(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or PORTS[parts.scheme]), TIMEOUT) as connection:
            if parts.scheme == "amqps":
                ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname).close()
    except (OSError, ValueError) as e:  # a host that is no name is a ValueError
        why = describe(e) if isinstance(e, OSError) else str(e)
        return _failed("broker", f"cannot connect to {where}: {why}{_try_other_port(url)}", os.EX_TEMPFAIL)
    text = f"{where} can be reached; login and queue not tried: they are known once a manager has been started"
    return Line(NOTE, "broker", text)


def _try_other_port(url: str) -> str:
    """What to set, when only the other of the ports that the service has for its broker takes connections."""
    parts = urlsplit(url)
    for other in (5671, 443):
        if other != parts.port:
            with contextlib.suppress(OSError, ValueError), socket.create_connection((parts.hostname, other), TIMEOUT):
                return f" Port {other} can be reached: set `amqp_port: {other}` in config.yaml"
    return ""
