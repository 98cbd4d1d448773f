"""Templates and static files: read once, at the hub's start; answers that no other site can use, and no cache keeps."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import HTMLResponse, Response

from hub.page import words
from hub.page.schema import bounded_json
from hub.page.views import Visitor

_FOLDER = Path(__file__).parent
_TYPES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of each page. Nothing in a page is run or loaded that is not a file of ours."""
LONGEST_JSON = 20_000
"""Characters of a schema, or of a part of it, that are shown."""


class Pages:
    """Makes answers of the templates."""

    def __init__(self) -> None:
        self._static = {name: (_FOLDER / "static" / name).read_bytes() for name in _TYPES}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "plain": words.plain,
            "lines": words.lines,
            "ago": words.ago,
            "lasting": words.lasting,
            "stamp": words.stamp,
            "clock": words.clock,
            "short_id": words.short_id,
            "number": lambda value: f"{value:g}",
            "bounded": lambda value: bounded_json(value, LONGEST_JSON),
        }
        self._environment.globals |= {
            "style": self._address("page.css"),
            "script": self._address("page.js"),
        }
        for name in self._environment.list_templates():
            self._environment.get_template(name)  # now, not within a request

    def html(self, template: str, visitor: Visitor | None, **shown: Any) -> str:
        """Fills a template; pure, so that it may be done on another thread."""
        return self._environment.get_template(f"{template}.html").render(
            {"visitor": visitor, "now": time.time(), "here": "", **shown}
        )

    def answer(self, template: str, visitor: Visitor | None, status: int = 200, **shown: Any) -> Response:
        """Makes the answer of a filled template."""
        return page(self.html(template, visitor, **shown), status)

    def static(self, name: str) -> Response | None:
        """Returns a style or script; None when there is none of this name."""
        if name not in _TYPES:
            return None
        headers = {**HEADERS, "Cache-Control": "public, max-age=86400", "Content-Type": _TYPES[name]}
        return Response(self._static[name], headers=headers)

    def _address(self, name: str) -> str:
        return f"/page/static/{name}?{hashlib.sha256(self._static[name]).hexdigest()[:12]}"


def page(html: str, status: int = 200) -> Response:
    """Makes an answer of a page."""
    return HTMLResponse(html, status, HEADERS)
