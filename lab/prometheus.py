"""A real Prometheus: Debian's, which scrapes one address every second and answers queries.

with Prometheus(folder, "127.0.0.1:9469") as prometheus:
    prometheus.query("mep_connected")
"""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from lab.ports import free_ports
from lab.process import Running, end
from lab.waiting import until

PROGRAM = "/usr/bin/prometheus"
PROMTOOL = "/usr/bin/promtool"


class Prometheus(Running):
    """target: HOST:PORT. rules: files with rules that it evaluates, too."""

    def __init__(self, folder: Path, target: str, rules: tuple[Path, ...] = ()) -> None:
        self._folder = folder
        self._target = target
        self._rules = rules
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        scraped = {"job_name": "mep", "static_configs": [{"targets": [self._target]}]}
        intervals = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        configuration = self._folder / "prometheus.yml"
        configuration.write_text(  # JSON is YAML
            json.dumps({"global": intervals, "rule_files": list(map(str, self._rules)), "scrape_configs": [scraped]})
        )
        command = [
            PROGRAM,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until(self._is_ready, "Prometheus, which says that it is ready")

    def stop(self) -> None:
        """Ends it."""
        end(self._process, "Prometheus", RuntimeError)
        self._process = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        found: list[dict[str, Any]] = self._ask(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")[
            "result"
        ]
        return found

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except OSError:
            return False
