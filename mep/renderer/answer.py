"""From a request to its answer, in a child of the render server: checks the options, fills in the template.

`server` calls `warm_up` once, `prepare` for each profile, and `answer` in each child; `processes.render_protocol` has
the files that they are given.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mep.processes.render_protocol import MAX_REASON
from mep.renderer import options, template
from mep.renderer.encoding import encode, encode_account, encode_environment
from mep.renderer.refusal import Unacceptable
from mep.renderer.taken import names_read

_TOO_DEEP = Unacceptable(
    "options",
    "user_endpoint_config is nested too deeply, or the schema refers to itself without end",
    "Your user_endpoint_config is nested too deeply.",
)


def warm_up() -> None:
    """Has everything loaded that `answer` may need, for a process that can open no file when it calls it."""
    for module in ("html", "logging", "pprint", "textwrap", "unicodedata", "encodings.unicode_escape"):
        importlib.import_module(module)  # what Jinja and Python import when it is used
    good = (
        "{% macro m(x) %}{{ x | tojson }}{% endmacro %}engine: {{ A ~ 'b\\n' | upper }}{% for i in [1.5] %}{% endfor %}"
    )
    for text in (
        good,
        "{% include 'no' %}",
        "{{ MISSING }}",
        "{{ 1 / 0 }}",
        "{% wrong",
        "a: b: c",
        "a: 2020-99-99",
    ):
        for schema in (None, {"properties": {"A": {"$ref": "#", "pattern": "^a"}}}, {"required": ["B"]}):
            profile = {"template": "t", "templates": {"t": text}, "schema": schema, "config": {}}
            answer([json.dumps(profile).encode(), b'{"A": "a"}', b"{}", b'{"mapped_identity": {}, "env": {}}'])


def prepare(profile: bytes) -> None:
    """Does what the requests of a profile have in common. profile: its file."""
    said = json.loads(profile)
    names_read(said["templates"], said["template"])  # first: it lets go of what is compiled
    template.prepare(said["templates"])


def answer(files: Sequence[bytes]) -> tuple[bool, bytes]:
    """Whether a request is granted, and the configuration, or the refusal. Raises MemoryError, and whatever a hostile
    request provokes."""
    try:
        profile, given, runtime, request = map(json.loads, files)
        return True, _render(profile, given, runtime, request).encode("utf-8", "replace")
    except (Unacceptable, RecursionError) as e:
        refusal = e if isinstance(e, Unacceptable) else _TOO_DEEP
        fields = (refusal.stage, refusal.admin[:MAX_REASON], refusal.user[:MAX_REASON])
        return False, "\0".join(fields).encode("utf-8", "replace")


def _render(profile: Mapping[str, Any], given: Any, runtime: Any, request: Mapping[str, Any]) -> str:
    options.check_values("user_endpoint_config", given)
    options.check_values("user_runtime", runtime)
    given, told = options.check_options(given, profile)
    if profile.get("words_only"):
        options.check_plain(given, profile["schema"])
        runtime = options.plain_only(runtime)
    identity = request["mapped_identity"]
    account = identity.get("local", {})
    reserved = {
        "parent_config": profile["config"],
        "mapped_identity": {**identity, "local": encode_account(account)},
        "user_runtime": encode(runtime),
    }
    variables = {key: encode(value) for key, value in given.items()} | reserved
    variables["_GC"] = {**reserved, "env": encode_environment(request["env"], account)}
    try:
        text = template.fill_in(profile["templates"], profile["template"], variables)
    except Unacceptable as e:
        raise Unacceptable(e.stage, e.admin, f"{e.user} {told}".rstrip()) from None
    template.check_config(text, profile["template"])
    if profile["config"].get("high_assurance"):
        text = template.with_high_assurance(text, profile["template"])
    return f"{text}\0{told[:MAX_REASON]}" if told else text
