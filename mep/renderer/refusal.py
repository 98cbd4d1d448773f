"""What ends a request in the render server; it travels as REFUSED (`processes.render_protocol`)."""

from __future__ import annotations


class Unacceptable(Exception):
    """The request is refused. stage: `options` or `template`. admin, user: the reason, as a text for each."""

    def __init__(self, stage: str, admin: str, user: str) -> None:
        super().__init__(f"{stage}: {admin}")
        self.stage, self.admin, self.user = stage, admin, user
