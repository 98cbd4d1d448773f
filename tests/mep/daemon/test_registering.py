"""A registration is a process of its own: what it loads stays there, and with client credentials it has no rights."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mep.daemon import helper_account, registering
from mep.daemon.registering import MOST, Registrar
from mep.processes import forked
from mep.processes.forked import ChildLost
from mep.profile.client_credentials import ClientCredentials
from mep.profile.config import ManagerConfig
from mep.profile.profile import Profile
from mep.registration.errors import RegistrationError
from tests.mep.commands import MANAGER, UEP, URL, target
from tests.mep.service import Service

CREDENTIALS = ClientCredentials(UEP, "the secret")
ANSWER = {
    "endpoint_id": MANAGER,
    "command_queue_info": {"connection_url": URL, "exchange": "commands", "queue": "q"},
    "heartbeat_queue_info": target("heartbeats"),
}


def registrar(profile: Profile, folder: Path) -> Registrar:
    account = helper_account.find(ManagerConfig()).worker
    return Registrar(profile, account, CREDENTIALS, folder / "state", folder / "run")


def ask(work: Callable[[], bytes]) -> bytes:
    return asyncio.run(forked.ask(work, helper_account.find(ManagerConfig()).worker, 30, MOST))


def test_what_the_service_says_is_read_and_remembered(
    service: Service, profile: Profile, tmp_path: Path, root: None
) -> None:
    service.answer = ANSWER
    registration = asyncio.run(registrar(profile, tmp_path).register())
    assert (registration.endpoint_id, registration.commands.queue) == (MANAGER, "q")
    assert json.loads((profile.directory / "endpoint.json").read_text())["endpoint_id"] == MANAGER
    ((_, _, document),) = service.requests
    assert document["metadata"]["local_user"] == "root", "not whom it runs as"
    again = asyncio.run(registrar(profile, tmp_path).register())
    assert again == registration
    assert service.requests[-1][:2] == ("PUT", f"/v3/endpoints/{MANAGER}")


def test_while_the_endpoint_is_locked_it_is_waited_for(
    service: Service, profile: Profile, tmp_path: Path, root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registering, "PAUSE", 0.01)
    service.status, service.answer = 423, {"code": "RESOURCE_LOCKED", "reason": "because"}
    told: list[str] = []

    def waits(why: str) -> None:
        told.append(why)
        if len(told) == 3:
            service.status, service.answer = 200, ANSWER

    registration = asyncio.run(registrar(profile, tmp_path).register_once_unlocked(waits))
    assert registration.endpoint_id == MANAGER
    assert len(told) == 3
    for why in told:
        assert re.search(r"\(HTTP 423\): .*because.*; the endpoint is locked", why)


def test_whoever_waits_for_a_locked_endpoint_hears_what_else_is_said(
    service: Service, profile: Profile, tmp_path: Path, root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registering, "PAUSE", 0.01)
    service.status, service.answer = 423, {}

    def waits(why: str) -> None:
        service.status = 409

    with pytest.raises(RegistrationError, match="another instance"):
        asyncio.run(registrar(profile, tmp_path).register_once_unlocked(waits))


def test_a_refusal_keeps_its_text_and_code(service: Service, profile: Profile, tmp_path: Path, root: None) -> None:
    service.status, service.answer = 403, {"code": "NO", "reason": "because"}
    with pytest.raises(RegistrationError, match=r"because.*the endpoint belongs to another identity") as caught:
        asyncio.run(registrar(profile, tmp_path).register())
    assert caught.value.exit_code == os.EX_NOPERM
    assert not caught.value.passes


@pytest.mark.parametrize(
    "said",
    [b"", b"[]", b"{", b"5", b'{"error": "x"}', b'{"exit_code": [], "error": ""}', b"[" * 5000],
)
def test_a_process_that_makes_no_sense(said: bytes) -> None:
    with pytest.raises(RegistrationError, match="makes no sense") as caught:
        registering._opened(said)
    assert caught.value.exit_code == os.EX_SOFTWARE


def test_a_text_of_the_process_steers_no_terminal() -> None:
    said = json.dumps({"exit_code": 1, "error": "a\x1b[2J\nb"}).encode()
    with pytest.raises(RegistrationError) as caught:
        registering._opened(said)
    assert (caught.value.exit_code, str(caught.value)) == (os.EX_SOFTWARE, "a\\x1b[2J\\nb")


def test_it_has_no_rights(root: None, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)

    def look() -> bytes:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        try:
            secret.read_text()
        except PermissionError:
            can_read = False
        else:
            can_read = True
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        return json.dumps([os.getresuid(), os.getgroups(), lines["CapBnd"], lines["NoNewPrivs"], can_read]).encode()

    account = helper_account.find(ManagerConfig()).worker
    assert json.loads(ask(look)) == [[account.uid] * 3, [account.gid], "0" * 16, "1", False]


def test_nobody_of_its_account_can_look_into_it(root: None) -> None:
    """Its memory has the client's secret. It is forked and not executed, so it can be traced at no moment."""
    account = helper_account.find(ManagerConfig()).worker

    def attack(pid: int) -> bytes:
        try:
            Path(f"/proc/{pid}/mem").open("rb").close()
        except PermissionError:
            return b"no"
        return b"yes"

    def victim() -> bytes:
        reading, writing = os.pipe()
        me = os.getpid()
        if os.fork() == 0:
            os.write(writing, attack(me))
            os._exit(0)
        os.wait()
        return os.read(reading, 8)

    assert os.getuid() != account.uid
    assert ask(victim) == b"no"


def test_it_dies_and_says_nothing() -> None:
    async def both() -> None:
        with pytest.raises(ChildLost):
            await forked.ask(lambda: os._exit(3), None, 30, MOST)
        assert await forked.ask(lambda: b"x" * 200_000, None, 30, MOST) == b"x" * MOST

    asyncio.run(both())
