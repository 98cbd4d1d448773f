from __future__ import annotations

import json
from pathlib import Path

from mep.audit import AuditTrail


def test_audit_lines_are_json(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.log")
    trail.record("refused", "r1", stage="identity", reason="line\nbreak")
    trail.record("started", "r2", pid=7)
    trail.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["refused", "started"]
    assert lines[0]["reason"] == "line\nbreak"
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600
