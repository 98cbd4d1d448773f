"""The second file of a high-assurance endpoint has the public package's form; its own writer says what that is."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

from lab import peer
from mep.monitor.audit import AuditTrail
from mep.monitor.audit_file import AuditError
from mep.request.account import Account
from tests.conftest import need

UEP, ENDPOINT = "0c1d1c8e-8a52-4a8e-9b2e-1f6f0b8f4d10", "5f0f2d2e-5d3c-4b0c-9b0a-6f1d6a1f7a01"
TASK, FUNCTION = "8f0cdd63-6a4c-4d7b-8f10-7d2a4a5a2d8b", "f6a4b1a6-5d1f-4e47-9b76-0f1b0b4d9a55"
RECORDS = [
    f"fid={FUNCTION} tid={TASK} bid= RECEIVED",
    f"fid={FUNCTION} tid={TASK} bid= FAILED - Function not permitted on endpoint",
    f"fid={FUNCTION} tid={TASK} bid= EXEC_START",
    f"fid={FUNCTION} tid={TASK} bid=0 jid=1234[7].pbs RUNNING",
    f"fid= tid={TASK} bid=0 EXEC_END",
    "not what a user endpoint says",
]
PUBLIC_WRITER = """
import json, os, sys, tempfile
from globus_compute_endpoint.endpoint.core_endpoint import CoreEndpoint

manager = CoreEndpoint.__new__(CoreEndpoint)
manager._audit_buf_size = 4096
reading, writing = os.pipe2(os.O_DIRECT)
manager._audit_pipes = {reading: json.loads(sys.argv[1])}
with tempfile.TemporaryFile(buffering=0) as file:
    for record in json.loads(sys.argv[2]):
        os.write(writing, record.encode())
        manager._audit_log_write(reading, file)
    file.seek(0)
    print(file.read().decode(), end="")
"""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d ")


def untimed(lines: list[str]) -> list[str]:
    """The lines without their times, each of which has the public package's form."""
    assert all(_TIME.match(line) for line in lines), lines
    return [_TIME.sub("", line, count=1) for line in lines]


def written(folder: Path, alice: Account, records: list[str]) -> list[str]:
    """The lines that a manager of root's writes."""

    async def story() -> None:
        trail = AuditTrail(folder / "audit.log", required=True, second=(folder / "public.log", ENDPOINT))
        trail.start()
        lines = [trail.task("r1", "uep.1", alice, each.encode(), uep=UEP, pid=7) for each in records]
        await trail.confirm_tasks(lines)
        await trail.stop()
        trail.close()

    asyncio.run(story())
    return (folder / "public.log").read_text().splitlines()


def test_it_is_what_the_public_package_writes(root: None, tmp_path: Path, alice: Account) -> None:
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    who = json.dumps({"uid": alice.uid, "pid": 7, "endpoint_id": UEP})
    python = peer.program().parent / "python"
    done = subprocess.run(
        [python, "-c", PUBLIC_WRITER, who, json.dumps(RECORDS)], capture_output=True, text=True, check=True
    )
    begin, *records, end = untimed(written(tmp_path, alice, RECORDS))
    assert records == untimed(done.stdout.splitlines())
    session = re.compile(rf"uid=0 pid=\d+ eid={ENDPOINT} (Begin CEP session =====|End CEP session -----)")
    assert session.fullmatch(begin) and session.fullmatch(end)
    events = [json.loads(line)["event"] for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert events == ["task"] * len(RECORDS), "in the trail they are, too"


def test_no_record_becomes_two_lines_or_another_users(root: None, tmp_path: Path, alice: Account) -> None:
    evil = f"fid= tid={TASK} bid= FAILED - x\n2026-01-01T00:00:00.000000+00:00 uid=0 uep=x {RECORDS[0]}\r\0\x1b[2J"
    _, record, _ = written(tmp_path, alice, [evil])
    assert record.isprintable()
    assert untimed([record])[0].startswith(f"uid={alice.uid} pid=7 uep={UEP} ")


def test_a_second_file_that_cannot_be_written_is_no_trail(root: None, tmp_path: Path) -> None:
    (tmp_path / "public.log").mkdir()
    with pytest.raises(AuditError, match=r"public\.log"):
        AuditTrail(tmp_path / "audit.log", required=True, second=(tmp_path / "public.log", ENDPOINT))
