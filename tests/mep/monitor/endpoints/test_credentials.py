from __future__ import annotations

import contextlib
import ctypes
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from mep.monitor.endpoints.credentials import TOKEN, CredentialFile, new_key
from mep.worker import sealing
from tests.mep.credentials import plain, seal


def test_credentials_are_refreshed_in_place(tmp_path: Path) -> None:
    file = CredentialFile.create(tmp_path / "credentials", seal(plain({"a": "x" * 1000})))
    reader = file.open_for_reading()
    for creds in ({"a": "x" * 1000}, {"b": "y"}):
        file.refresh(seal(plain(creds), file.key))
        sealed = os.pread(reader, 10_000, 0)
        assert json.loads(Fernet(file.key).decrypt(sealed)) == {"amqp_creds": creds}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(reader, b"x")
    os.close(reader)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.key not in repr(file)


def test_its_keys_and_tokens_are_those_of_the_public_package(tmp_path: Path) -> None:
    key = new_key()
    assert len(Fernet.generate_key()) == len(key)
    assert new_key() != key
    for text in (b"", b"x" * 100_000):
        assert TOKEN.fullmatch(Fernet(key).encrypt(text))
    assert not TOKEN.fullmatch(b'"}')


def with_a_full_file_system(folder: Path, action: Callable[[Path], None]) -> int:
    """The exit code of a child that calls `action` with a file system of 64 KiB: 0 when nothing was raised."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 2
    with contextlib.suppress(BaseException):
        libc = ctypes.CDLL(None, use_errno=True)
        private = libc.unshare(0x00020000) == 0 and libc.mount(b"none", b"/", None, 0x44000, None) == 0
        mounted = private and libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=64k") == 0
        code = 77
        if mounted:
            code = 3
            action(folder)
            code = 0
    os._exit(code)


def test_on_a_full_file_system_the_old_ones_stay(tmp_path: Path, root: None) -> None:
    def fill_and_refresh(folder: Path) -> None:
        file = CredentialFile.create(folder / "credentials", seal(plain({"a": "x"})))
        reader = file.open_for_reading()
        with contextlib.suppress(OSError), (folder / "other").open("wb", buffering=0) as other:
            while True:
                other.write(bytes(4096))
        with pytest.raises(OSError, match="No space"):
            file.refresh(seal(plain({"a": "x" * 20_000}), file.key))
        assert sealing.read(os.pread(reader, 100_000, 0), file.key) == {"a": "x"}
        file.refresh(seal(plain({"a": "y"}), file.key))  # which fits
        assert sealing.read(os.pread(reader, 100_000, 0), file.key) == {"a": "y"}

    code = with_a_full_file_system(tmp_path, fill_and_refresh)
    if code == 77:
        pytest.skip("this kernel lets nobody mount")
    assert code == 0
