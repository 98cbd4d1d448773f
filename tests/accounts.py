"""Names of local accounts that several test files use: each worker of a parallel run has its own.

An account of one file only needs no such name, because a file runs in one worker.
"""

from __future__ import annotations

import os

PREFIX = f"meptest{os.environ.get('PYTEST_XDIST_WORKER', '').removeprefix('gw')}_"
ALICE, BOB = f"{PREFIX}alice", f"{PREFIX}bob"
