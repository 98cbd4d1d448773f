"""What works without OpenSSL, bzip2 and xz: in interpreters of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WITHOUT = Path(__file__).parents[3] / "mep" / "processes" / "without_libraries.py"
WORKS = """
import runpy, sys

def libraries():
    with open("/proc/self/maps") as f:
        maps = f.read()
    return {name for name in ("libssl", "libcrypto", "libbz2", "liblzma") if name in maps}

before = libraries()  # a .pth of this Python may have brought some
runpy.run_path(sys.argv[1])
import asyncio, hashlib, hmac, json, logging.handlers, os, random, secrets, shutil, socket, tempfile, uuid

async def talk():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.sendall(b"x")
    theirs.close()
    said = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return said.decode()

digests = [hashlib.new(name, b"x").hexdigest() for name in ("sha256", "sha512", "sha1", "md5", "blake2b", "sha3_256")]
digests.append(hmac.new(b"k", b"x", "sha256").hexdigest())
assert hmac.compare_digest(secrets.token_bytes(4), b"") is False and random.random() < 1
ids = str(uuid.uuid5(uuid.NAMESPACE_DNS, "x"))
said = asyncio.run(talk())
more = sorted(libraries() - before)
print(json.dumps([digests, ids, said, more]))
"""
PLAIN = """
import hashlib, hmac, json, uuid
digests = [hashlib.new(name, b"x").hexdigest() for name in ("sha256", "sha512", "sha1", "md5", "blake2b", "sha3_256")]
digests.append(hmac.new(b"k", b"x", "sha256").hexdigest())
print(json.dumps([digests, str(uuid.uuid5(uuid.NAMESPACE_DNS, "x"))]))
"""
LATE = """
import asyncio, runpy, sys
runpy.run_path(sys.argv[1])
import ssl
print(1)
"""


def told(program: str) -> Any:
    arguments = [sys.executable, "-I", "-c", program, str(WITHOUT)]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def test_the_same_comes_out_without_them() -> None:
    digests, ids, said, more = told(WORKS)
    assert [digests, ids] == told(PLAIN)
    assert said == "x"
    assert more == []


def test_nothing_changes_where_asyncio_was_loaded_before() -> None:
    assert told(LATE) == 1
