"""An ordinary account of this host that listens where a service should be, for tests that have root's rights."""

from __future__ import annotations

import subprocess
import sys

_LISTEN = """
import os, socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
sock.close()
sock = socket.create_server((sys.argv[1], int(sys.argv[3])), family=sock.family)
print(sock.getsockname()[1], flush=True)
while True:
    peer, _ = sock.accept()
    peer.settimeout(5)
    print("came", flush=True)
    try:
        print("said", peer.recv(100), flush=True)
    except OSError as e:
        print("gone", e, flush=True)
"""


class Listener:
    """A process of this uid that listens, on a free port if none is named."""

    def __init__(self, address: str, uid: int, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LISTEN, address, str(uid), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def close(self) -> list[str]:
        """Ends it; a line for each that connected and each that said something."""
        self._process.kill()
        return self._process.communicate()[0].splitlines()

    def heard(self) -> list[str]:
        """Ends it; what was said to it."""
        return [line for line in self.close() if line.startswith("said") and line != "said b''"]
