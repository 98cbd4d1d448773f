"""Pages as HTML: well formed, nothing inline, labelled; what comes from strangers stays text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hub.page import schema, snippet, timeline
from hub.page.rendering import HEADERS, Pages
from hub.page.views import EndpointView, Options, OwnedUserEndpoint, Page, Start, TaskView, UserEndpointView, Visitor

NOW = 1_800_000_000.0
VOID = {"meta", "link", "input", "br"}
HOSTILE = "<script>alert(1)</script>'\"><img src=x onerror=alert(1)>\u202e\u2066\x1b[31m\x00\ud800{{ 7 * 7 }}"
TYPED = HOSTILE[: HOSTILE.index("\u202e")]
"""What a visitor can type, who gets it back as it was."""
LONG = "x" * 10_000

PAGES = Pages()
VISITOR = Visitor("alice@example.org", "token")
ENDPOINT = EndpointView("e1", "cluster", "The Cluster", "login1", True, NOW, True, True, True)
START = Start(NOW - 100, 2, NOW - 98, NOW - 90, None, None)
FAILED = Start(NOW - 300, 1, None, None, NOW - 290, "no such account")
USER_ENDPOINT = UserEndpointView(
    "u1", "e1", "The Cluster", True, NOW, "{}", True, NOW - 100, NOW, {"total_workers": 4}, 3, START
)
TASK = TaskView("t1", "double", "e1", "The Cluster", NOW - 10, None, "waiting-for-ep", "It waits.")
ONE = Page(0, None, None)
SCHEMA = {
    "properties": {
        "workers": {"type": "integer", "minimum": 1, "maximum": 64, "default": 4, "description": "how many"},
        "partition": {"enum": ["debug", "gpu"], "description": "where"},
        "image": {"type": "object", "additionalProperties": False, "properties": {"name": {"type": "string"}}},
        "nodes": {"type": "array", "items": {"type": "string"}},
        "odd": {"anyOf": []},
        "on": {"type": "boolean", "default": True},
        "word": {"type": "string", "maxLength": 9, "pattern": "^a"},
    }
}


def options_of(any_schema, typed=None):
    form = schema.form_of(any_schema)
    shown = Options(form, "d", schema.bounded_json(any_schema, 1000), "template: {{ x }}")
    if typed is None:
        return shown
    answer = schema.read(form, typed)
    made = snippet.python("e1", answer.options)
    return replace(shown, typed=typed, errors=answer.errors, python=made, json=snippet.as_json(answer.options))


class Reader(HTMLParser):
    """The elements of a page, the text in it, and whether all that is opened is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


def html(template, visitor=VISITOR, **shown):
    return PAGES.html(template, visitor, **{"now": NOW, **shown})


def every_page(text, *, long=""):
    """Each page with `text` wherever a stranger's text may be."""
    name = text + long
    endpoint = replace(ENDPOINT, name=name, display_name=name, hostname=name)
    start = replace(FAILED, error=f"{text}\n{name}\n" * 30)
    user_endpoint = replace(
        USER_ENDPOINT, endpoint=name, options=schema.bounded_json({text: name}, 4000), last_start=start
    )
    user_endpoint = replace(user_endpoint, report={"posix_username": name, "engine_type": text, "total_workers": name})
    task = replace(TASK, function=name, endpoint=name, why=name)
    failed = replace(task, state="failed", error=start.error, why="", ended_at=NOW)
    odd = {
        "properties": {
            name: {"type": "string", "title": name, "description": name, "default": name, "pattern": name},
            f"{text}2": {"enum": [name, text], "default": text},
            f"{text}3": {"$ref": name, "title": name},
            f"{text}4": {"type": "object", "title": name, "properties": {name: {}}, "additionalProperties": False},
            f"{text}5": {"type": "integer", "default": name},
        }
    }
    owned = OwnedUserEndpoint("u1", name, name, True, (start, START))
    drawn = [(owned, timeline.picture(owned.starts, NOW))]
    return {
        "endpoints": html("endpoints", endpoints=[endpoint], page=ONE),
        "endpoint": html(
            "endpoint", endpoint=endpoint, options=options_of(odd, {"f0": TYPED, "f1": "9", "rest": TYPED})
        ),
        "tasks": html("tasks", tasks=[task, failed], page=ONE, kept_days=14),
        "user endpoints": html("user_endpoints", user_endpoints=[user_endpoint], page=ONE),
        "starts": html("starts", endpoint=endpoint, user_endpoints=drawn, page=ONE),
        "sign in": html("sign_in", None, error=text, client_id=text, login=None),
        "error": html("error", title="Not found", text=name),
        "who": html("error", replace(VISITOR, username=name), title="t", text="t"),
    }


GOOD = {
    **every_page("cluster"),
    "form": html("endpoint", endpoint=ENDPOINT, options=options_of(SCHEMA)),
    "errors": html("endpoint", endpoint=ENDPOINT, options=options_of(SCHEMA, {"f0": "99", "f4": "{", "rest": "["})),
    "no schema": html("endpoint", endpoint=replace(ENDPOINT, online=False), options=options_of(None)),
    "nothing": html("tasks", tasks=[], page=Page(25, 0, 50), kept_days=14),
    "none": html("user_endpoints", user_endpoints=[], page=ONE),
    "empty": html("endpoints", endpoints=[], page=ONE),
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_inline_and_every_field_has_its_words(name):
    page = Reader(GOOD[name])
    for tag, attributes in page.elements:
        assert not any(key == "style" or key.startswith("on") for key in attributes), (tag, attributes)
        assert tag not in ("style", "iframe", "img", "base", "object")
    assert [script["src"].partition("?")[0] for script in page.all("script")] == ["/page/static/page.js"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {label["for"] for label in page.all("label")}
    for field in page.all("input", "select", "textarea"):
        assert field.get("type") == "hidden" or field["id"] in labelled
        assert all(each in ids for each in (field.get("aria-describedby") or "").split())
    assert len(page.all("h1")) == 1
    for form in page.all("form"):
        assert form["method"] == "post" and form["action"].startswith("/page/")


@pytest.mark.parametrize("name", GOOD)
def test_what_changes_something_needs_the_sessions_token(name):
    page = Reader(GOOD[name])
    tokens = [field for field in page.all("input") if field.get("name") == "csrf"]
    assert len(tokens) == len(page.all("form")) - (name == "sign in")
    assert {token["value"] for token in tokens} <= {"token"}


@pytest.mark.parametrize("name", every_page(""))
@pytest.mark.parametrize("long", ["", LONG], ids=["short", "long"])
def test_what_comes_from_strangers_stays_text(name, long):
    made = every_page(HOSTILE, long=long)[name]
    made.encode()
    page, good = Reader(made), Reader(every_page("cluster")[name])
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in good.elements]
    assert all(set(a) == set(b) for (_, a), (_, b) in zip(page.elements, good.elements, strict=True))
    assert not any(c in made for c in "\u202e\u2066\x1b")
    assert "49" not in page.text.replace("1490", "")
    assert len(made) < 60_000


def test_each_field_shows_what_it_takes():
    text = " ".join(Reader(GOOD["form"]).text.split())
    for said in (
        "workers how many A whole number, from 1 to 64. Default: 4",
        "partition not given debug gpu where",
        "nodes One entry on each line, each a text.",
        "odd As JSON.",
        "on not given (default: true) true false",
        "word At most 9 characters. Must fit the pattern ^a.",
        "Further options",
    ):
        assert said in text, said


def test_errors_are_at_their_fields():
    page = Reader(GOOD["errors"])
    wrong = [f["name"] for f in page.all("input", "textarea", "select") if f.get("aria-invalid")]
    assert wrong == ["f0", "f4", "rest"]
    assert "3 values do not fit" in page.text and "Expected 64 or less." in page.text


def test_what_was_typed_is_still_there():
    page = Reader(html("endpoint", endpoint=ENDPOINT, options=options_of(SCHEMA, {"f0": "8", "f1": "1", "f5": "true"})))
    assert [f["value"] for f in page.all("input") if f.get("name") == "f0"] == ["8"]
    assert [f["value"] for f in page.all("option") if "selected" in f] == ["1", "true"]
    assert '"partition": "gpu"' in page.text


def test_headers_let_nothing_in():
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert HEADERS["Cache-Control"] == "no-store"
    assert PAGES.static("page.css").headers["content-type"].startswith("text/css")
    assert PAGES.static("../routes.py") is None


READ_ON = {
    "ground": ("ink", "soft", "accent", "bad", "busy"),
    "raised": ("ink", "soft", "accent", "bad"),
    "accent": ("accent-ink",),
    "good-ground": ("good",),
    "bad-ground": ("bad",),
    "busy-ground": ("busy",),
    "idle-ground": ("soft",),
    "code": ("ink",),
}


def brightness(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(scheme):
    """By 4.5 to 1 at least, as WCAG 2 wants for level AA."""
    style = PAGES.static("page.css").body.decode()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style.split(":root {")[1 + scheme]))
    for ground, inks in READ_ON.items():
        for ink in inks:
            light, dark = sorted((brightness(colours[ground]), brightness(colours[ink])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_a_picture_has_a_line_for_each_start():
    drawn = timeline.picture((START, FAILED), NOW)
    assert [(bar.kind, bar.y) for bar in drawn.bars] == [
        ("waiting", 2.0),
        ("running", 2.0),
        ("waiting", 16.0),
        ("failed", 16.0),
    ]
    assert all(bar.x >= 0 and bar.x + bar.width <= timeline.WIDTH + 0.1 and bar.width >= 2 for bar in drawn.bars)
    assert "2 starts" in drawn.alternative and "1 of them failed" in drawn.alternative
    assert timeline.picture((), NOW) is None
