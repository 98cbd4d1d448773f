"""The one line that says how the manager is doing: for `systemctl status`, for `mep status`, and in a file."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mep.monitor.notify import notify


class Status:
    """The line that `systemctl status` and `mep status` show, made of parts; told whenever one of them changes."""

    def __init__(self, endpoint_id: str, file: Path) -> None:
        """`file` has the line for as long as the manager runs."""
        self._endpoint_id = endpoint_id
        self._file = file
        self._parts: dict[str, str] = {
            "connection": "connecting",
            "instances": "",
            "user_endpoints": "0 user endpoints",
            "profile": "",
            "mapping": "",
            "containment": "",
            "orders": "",
        }

    def remove(self) -> None:
        """Deletes the file: there is nothing to tell any more."""
        self._file.unlink(missing_ok=True)

    def connection(self, text: str) -> None:
        """Whether commands can come: "connected", or why not."""
        self._set("connection", text)

    def instances(self, text: str) -> None:
        """Whether this endpoint runs somewhere else, too."""
        self._set("instances", text)

    def user_endpoints(self, count: int) -> None:
        """How many run."""
        self._set("user_endpoints", "1 user endpoint" if count == 1 else f"{count} user endpoints")

    def profile(self, text: str) -> None:
        """What is wrong with, or missing for, the profile as it was last edited; nothing when it is in force."""
        self._set("profile", text)

    def mapping(self, text: str) -> None:
        """The same of the identity mapping, which is read again by itself."""
        self._set("mapping", text)

    def containment(self, text: str) -> None:
        """Which limits of the profile are not in force."""
        self._set("containment", text)

    def orders(self, text: str) -> None:
        """Which orders of admins are in force."""
        self._set("orders", text)

    def parts(self) -> dict[str, str]:
        """The parts that say something."""
        return {name: text for name, text in self._parts.items() if text}

    def line(self) -> str:
        """All of them."""
        return f"endpoint {self._endpoint_id}: {'; '.join(filter(None, self._parts.values()))}"

    def _set(self, part: str, text: str) -> None:
        if self._parts[part] == text:
            return
        self._parts[part] = text
        line = self.line()
        notify(STATUS=line)
        with contextlib.suppress(OSError):
            self._file.write_text(f"{line}\n", encoding="utf-8", errors="backslashreplace")
