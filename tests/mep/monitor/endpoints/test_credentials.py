from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from mep.monitor.endpoints.credentials import CredentialFile


def test_credentials_are_refreshed_in_place(tmp_path: Path) -> None:
    file = CredentialFile.create(tmp_path / "credentials", {"a": "x" * 1000})
    reader = file.open_for_reading()
    for creds in ({"a": "x" * 1000}, {"b": "y"}):
        file.refresh(creds)
        sealed = os.pread(reader, 10_000, 0)
        assert json.loads(Fernet(file.key).decrypt(sealed)) == {"amqp_creds": creds}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(reader, b"x")
    os.close(reader)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.key not in repr(file)
