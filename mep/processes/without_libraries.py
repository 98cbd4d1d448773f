"""Imported before all else, keeps libraries of C out of a process that it does not need: OpenSSL, bzip2 and xz.

In the manager, the mapper, and the render server.

asyncio imports `ssl` if it can, hashlib `_hashlib`, and shutil `bz2` and `lzma`: libssl, libcrypto, libbz2 and liblzma,
more than 5 MiB of code in a process that is root for months. Without them asyncio does without TLS, hashlib computes by
itself, and shutil unpacks no archives. These speak to sockets of this host; whoever speaks TLS is a program of its
own. Nothing changes in a process that has loaded asyncio before, as tests have.
"""

from __future__ import annotations

import sys

_MODULES = ("ssl", "_ssl", "_hashlib", "bz2", "_bz2", "lzma", "_lzma")

if "asyncio" not in sys.modules:
    for _name in _MODULES:
        sys.modules[_name] = None  # type: ignore[assignment] # so that an import of it is an ImportError
