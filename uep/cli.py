"""Runs the program `mep-uep NAME`. The manager execs it as the mapped user; nobody calls it by hand.

The program finds on descriptor 0 the hand-over (`uep.handover`), on 1 and 2 the endpoint's log, which `uep.log_file`
bounds, on 3 the credential file, and its files where `_places` says. It ends with

    0   stopped cleanly: idle, or told to by SIGTERM, SIGINT, SIGQUIT or SIGHUP
    64  called with wrong arguments
    69  the broker could not be reached for long at start, or an earlier endpoint does not leave the directory
    70  something unexpected, a broken engine, or an audit record that cannot be written
    78  hand-over or configuration cannot be used; the service has been told why, as far as that is possible

Imports are late and few: check-in comes first.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from uep import log_file

if TYPE_CHECKING:
    from uep.config import EndpointConfig
    from uep.handover import HandOver

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def main() -> NoReturn:
    """Runs the endpoint and ends the process, whatever threads of tasks are still there."""
    code = os.EX_SOFTWARE
    try:
        code = _main(sys.argv[1:])
    except Exception:
        import logging

        logging.getLogger("uep").critical("unexpected error", exc_info=True)
    finally:
        _flush()
        # A task that never ends must not keep its endpoint alive: no joining of threads.
        os._exit(code)


def _flush() -> None:
    """Flushes the log. One that takes no more (a full disk) must not stand for why the endpoint ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    log_file.flush()


def _main(args: list[str]) -> int:
    if args in (["--check"], ["--check", "--scripts"]):  # asked by the manager, `mep check` and `explain`
        from uep import check

        return check.main(scripts="--scripts" in args)
    if len(args) != 1 or not _SAFE_NAME.fullmatch(args[0]):
        print("usage: mep-uep NAME (started by the manager, with its hand-over on standard input)", file=sys.stderr)
        return os.EX_USAGE
    log_file.bound(args[0])
    import logging

    from uep import handover

    _log_to_stderr()
    try:
        handed = handover.decode(handover.take_input())
    except handover.HandOverError as e:
        logging.getLogger("uep").critical("hand-over cannot be used: %s", e)
        return os.EX_CONFIG
    return _run(args[0], handed)


def _run(name: str, handed: HandOver) -> int:
    import asyncio
    import logging

    from uep import config, endpoint
    from uep.broker import start_failure
    from uep.engines.base import EngineContext
    from uep.engines.registry import make_engine
    from uep.report_pipe import ReportPipe

    log = logging.getLogger("uep")
    try:
        settings = config.parse(handed.config)
        directory, log_path = _places(settings, name)
        _apply(settings, directory, log_path, name)
        place = EngineContext(handed.endpoint_id, directory, settings.high_assurance)
        engine = make_engine(settings.engine, place, settings.python)
    except config.ConfigError as e:
        log.critical("configuration cannot be used: %s", e)
        ReportPipe(handed.report_fd).failed(str(e))
        asyncio.run(start_failure.publish_start_failure(handed, handed.to_user(str(e))))
        return os.EX_CONFIG
    log.info("endpoint %s (%s), %s, process %d", name, handed.endpoint_id, engine.name, os.getpid())
    return asyncio.run(endpoint.Endpoint(name, handed, settings, engine).run())


def _places(settings: EndpointConfig, name: str) -> tuple[Path, Path | None]:
    """The endpoint's directory, and its log unless that is where the manager has opened it.

    By the configuration, the public package's variables, or `~/.globus_compute/NAME`; `$NAME` and `~` are expanded.
    """

    def expanded(text: str) -> Path:
        return Path(os.path.expandvars(text)).expanduser().absolute()

    usual = expanded(f"~/.globus_compute/{name}")
    base = os.environ.get("GLOBUS_COMPUTE_USER_DIR")
    named = settings.endpoint_dir or os.environ.get("GLOBUS_COMPUTE_ENDPOINT_DIR")
    directory = expanded(named) if named else (Path(base).absolute() / name if base else usual)
    log = settings.endpoint_log or os.environ.get("GLOBUS_COMPUTE_LOG_PATH")
    if log:
        return directory, expanded(log)
    return directory, None if directory == usual else directory / "endpoint.log"


def _apply(settings: EndpointConfig, directory: Path, log_path: Path | None, name: str) -> None:
    """Applies what the configuration says about this process: directory, log, level."""
    import logging

    from uep.config import ConfigError

    log = logging.getLogger("uep")
    os.environ["GLOBUS_COMPUTE_ENDPOINT_DIR"] = str(directory)  # tasks find it there, as at the public endpoint
    os.environ["GLOBUS_COMPUTE_LOG_PATH"] = str(log_path or directory / "endpoint.log")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log_path is not None:
            _redirect(log_path)
            log_file.bound(name, settings.log)
        else:
            log_file.bound_to(settings.log)
    except OSError as e:
        from uep.preparation import unusable_directory

        log.critical("%s: %s", e.filename, e.strerror)
        raise ConfigError(unusable_directory(e)) from None
    if settings.debug:
        logging.getLogger().setLevel(logging.DEBUG)
        log.debug("configuration:\n  | %s", settings.raw.replace("\n", "\n  | "))
    if settings.without_effect:
        log.info("keys of the configuration without effect here: %s", ", ".join(settings.without_effect))


def _redirect(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _log_to_stderr() -> None:
    import logging

    from wire.redaction import Redactor

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Redactor())
    form = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # What tasks print shares the log: whole lines, at once.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
