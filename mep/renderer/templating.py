"""From user options and the admin's template to a configuration.

`render_worker` calls `answer`, in a process without rights; `profile` asks what is wrong with a template itself.
Templates and schemas are the admin's and trusted; what they are filled with is not. So every value is checked first,
and `encode` turns every string, keys included, into JSON text: printed where a template prints a value, it is one YAML
scalar, whatever it holds.

Request:  a JSON object {"template", "templates", "schema", "options", "runtime", "identity", "config", "environment"}
Answer:   UTF-8: `config NUL text`, or `refused NUL stage NUL admin NUL user`, with stage `options` or `template`
"""

from __future__ import annotations

import importlib
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
import jinja2.constants
import jinja2.debug
import jinja2.sandbox
import jsonschema
import yaml
from jinja2 import nodes

MAX_CONFIG = 2**20
"""Characters of a rendered configuration."""
MAX_REASON = 2000
"""Characters of a text of a refusal."""
MAX_DEPTH = 64
"""Lists and objects within each other."""
MAX_VALUES = 100_000
"""Values in user_endpoint_config, and in user_runtime: lists, objects, and what they hold."""

_TOO_DEEP = (
    "options",
    "user_endpoint_config is nested too deeply, or the schema refers to itself without end",
    "Your user_endpoint_config is nested too deeply.",
)
_RESERVED = ("_GC", "parent_config", "mapped_identity", "user_runtime")
_NO_ASTRAL = re.compile("[^\U00010000-\U0010ffff]+")


class _Wrong(Exception):
    """The request ends here. Arguments: stage, text for the admin, text for the user."""


def warm_up() -> None:
    """Has everything loaded that `answer` may need, for a process that can open no file when it calls it."""
    for module in ("html", "logging", "pprint", "textwrap", "unicodedata", "encodings.unicode_escape"):
        importlib.import_module(module)  # what Jinja and Python import when it is used
    good = (
        "{% macro m(x) %}{{ x | tojson }}{% endmacro %}engine: {{ A ~ 'b\\n' | upper }}{% for i in [1.5] %}{% endfor %}"
    )
    for template in (
        good,
        "{% include 'no' %}",
        "{{ MISSING }}",
        "{{ 1 / 0 }}",
        "{% wrong",
        "a: b: c",
        "a: 2020-99-99",
    ):
        for schema in (None, {"properties": {"A": {"$ref": "#", "pattern": "^a"}}}, {"required": ["B"]}):
            request = {"template": "t", "templates": {"t": template}, "schema": schema, "options": {"A": "a"}}
            answer(json.dumps(request | {"runtime": {}, "identity": {}, "config": {}, "environment": {}}).encode())


def answer(request: bytes) -> bytes:
    """The answer to a request, both in the shape above. Raises MemoryError, and whatever a hostile request provokes."""
    try:
        fields: tuple[str, ...] = ("config", _render(json.loads(request)))
    except (_Wrong, RecursionError) as e:
        stage, admin, user = e.args if isinstance(e, _Wrong) else _TOO_DEEP
        fields = ("refused", stage, admin[:MAX_REASON], user[:MAX_REASON])
    return "\0".join(fields).encode("utf-8", "replace")


def environment(templates: Mapping[str, str]) -> jinja2.Environment:
    """An environment that knows `templates` by name, and the filter `shell_escape`."""
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, loader=jinja2.DictLoader(templates)
    )
    made.filters["shell_escape"] = _shell_escape
    made.policies["json.dumps_function"] = _dumps
    return made


class Encoded(str):
    """A string as JSON text, quotes included. Inside a printed list or object it is one YAML scalar as well."""

    __slots__ = ()

    def __repr__(self) -> str:  # Python's own escapes ' with a backslash, which ends a string in YAML
        return "'" + self.replace("'", "''") + "'"


class Key(Encoded):
    """A key of an object. As text it is JSON; compared and looked up, it is the plain key.

    So `{{ k }}`, `k ~ x`, `k | join` and every filter see the encoded form, and `d.key`, `d["key"]`, `d[k]`,
    `k == "key"` go by the plain one.
    """

    _plain: str  # the sandbox keeps templates away from names like this

    def __new__(cls, plain: str) -> Key:
        made = super().__new__(cls, _json(plain))
        made._plain = plain
        return made

    def __eq__(self, other: object) -> bool:
        return self._plain == (other._plain if isinstance(other, Key) else other)

    def __ne__(self, other: object) -> bool:  # str has one of its own, which would see the JSON text
        return not self == other

    def __hash__(self) -> int:
        return hash(self._plain)


def encode(value: Any) -> Any:
    """Strings as `Encoded`, keys as `Key`, null for None; other values as they are.

    `value` is what a JSON document gives, nested less deeply than Python's stack is high.
    """
    if isinstance(value, dict):
        return {Key(key): encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, str):
        return Encoded(_json(value))
    return "null" if value is None else value


def problem(templates: Mapping[str, str], name: str) -> str | None:
    """What is wrong with template `name` before anything is filled in; None when nothing is."""
    made = environment(templates)
    try:
        made.compile(templates[name])
    except jinja2.TemplateSyntaxError as e:
        return f"line {e.lineno}: {e.message}"
    except (RecursionError, MemoryError):
        return "is nested too deeply"
    except ValueError as e:  # digits without end
        return f"cannot be read: {e}"
    for node in made.parse(templates[name]).find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        wanted: nodes.Expr = getattr(node, "template")  # noqa: B009 - all four have it, their common type has not
        named = isinstance(wanted, nodes.Const) and isinstance(wanted.value, str)
        if named and wanted.as_const() not in templates and not getattr(node, "ignore_missing", False):
            return f"line {node.lineno}: {wanted.as_const()!r} is no *.j2 file of the same folder"
    return None


def _json(text: str) -> str:
    """JSON that YAML reads as the same text: no pairs of surrogates, and DEL, which YAML forbids, as an escape."""
    body = _NO_ASTRAL.sub(lambda run: json.dumps(run[0])[1:-1], text)
    return '"' + body.replace("\x7f", "\\u007f") + '"'


def _dumps(value: Any, **options: Any) -> str:
    """What the filter `tojson` calls: a key becomes JSON once, not twice."""
    return json.dumps(_with_plain_keys(value), **options)


def _with_plain_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key._plain if isinstance(key, Key) else key: _with_plain_keys(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_keys(item) for item in value]
    return value._plain if isinstance(value, Key) else value


def _shell_escape(value: Any) -> Any:
    """Jinja filter: an encoded string as one word for a shell. Other values pass unchanged."""
    decoded = json.loads(value) if isinstance(value, str) else value
    return Encoded(_json(shlex.quote(decoded))) if isinstance(decoded, str) else value


def _render(request: Mapping[str, Any]) -> str:
    options = request["options"]
    _check_values("user_endpoint_config", options)
    _check_values("user_runtime", request["runtime"])
    _check_options(options, request["schema"])
    reserved = {
        "parent_config": request["config"],
        "mapped_identity": request["identity"],
        "user_runtime": encode(request["runtime"]),
        "env": request["environment"],
    }
    variables = {key: encode(value) for key, value in options.items()} | reserved | {"_GC": reserved}
    text = _fill_in(request["templates"], request["template"], variables)
    _check_config(text, request["template"])
    return text


_Place = tuple[Any, Any]
"""Where a value is: the place of the list or object that holds it, and the index or key. The first place has None."""


def _check_values(name: str, value: object) -> None:
    """Refuses what YAML, a shell or another program further on could take for something else, or choke on."""
    for count, (place, depth, item) in enumerate(_walk(name, value), 1):
        wrong = _text_problem(place[1]) if isinstance(place[1], str) else None
        if wrong is not None:
            raise _unusable(place[0], f"a key {wrong}")
        if count > MAX_VALUES:
            raise _unusable(place, f"more than {MAX_VALUES} values in all")
        if depth > MAX_DEPTH:
            raise _unusable(place, f"nested too deeply (more than {MAX_DEPTH} lists or objects within each other)")
        wrong = _value_problem(item)
        if wrong is not None:
            raise _unusable(place, wrong)


def _walk(name: str, value: object) -> Iterator[tuple[_Place, int, object]]:
    """Each value with its place and the number of lists and objects around it and of itself."""
    pending: list[tuple[_Place, int, object]] = [((None, name), 0, value)]
    while pending:
        place, around, item = pending.pop()
        depth = around + isinstance(item, dict | list)
        yield place, depth, item
        if isinstance(item, dict):
            pending += [((place, key), depth, inner) for key, inner in item.items()]
        elif isinstance(item, list):
            pending += [((place, index), depth, inner) for index, inner in enumerate(item)]


def _value_problem(value: object) -> str | None:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number that a configuration can have"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "an integer beyond 64 bits"
    return None


def _text_problem(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as e:
        return f"holds a lone surrogate (U+{ord(text[e.start]):04X}), which is no character"
    return None


def _unusable(place: _Place, problem: str) -> _Wrong:
    steps: list[str] = []
    owner, step = place
    while owner is not None:
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:40]}")
        owner, step = owner
    reason = f"{step}{''.join(reversed(steps))[:500]}: {problem}"
    return _Wrong("options", reason, f"Not accepted by this endpoint: {reason}.")


def _check_options(options: Mapping[str, Any], schema: Mapping[str, Any] | None) -> None:
    for name in _RESERVED:
        if name in options:
            reason = f"{name!r} is a reserved name and cannot be given in user_endpoint_config"
            raise _Wrong("options", reason, f"{reason}.")
    if schema is None:
        return
    validator = jsonschema.validators.validator_for(schema)(schema)
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(options))
    except (MemoryError, RecursionError):
        raise
    except Exception as e:  # noqa: BLE001 - a pattern or a reference in the schema that is none
        user = "This endpoint's schema cannot be applied to your user_endpoint_config; please tell its administrators."
        raise _Wrong("options", f"the schema cannot be applied: {type(e).__name__}: {e}", user) from None
    if error is not None:
        reason = f"user_endpoint_config: {error.json_path[:500]}: {error.message}"
        raise _Wrong("options", f"options break the schema: {reason}", f"Not accepted by this endpoint: {reason}")


def _fill_in(templates: Mapping[str, str], name: str, variables: Mapping[str, Any]) -> str:
    try:
        return environment(templates).get_template(name).render(variables)
    except jinja2.UndefinedError as e:
        user = f"An option is missing from user_endpoint_config: {e.message}."
        raise _Wrong("template", f"{name}: {e.message} (no such option was given)", user) from None
    except jinja2.TemplateSyntaxError as e:
        raise _broken(e.filename or name, f"line {e.lineno}: {e.message}") from None
    except MemoryError:
        raise
    except Exception as e:  # noqa: BLE001 - a template can raise anything
        raise _broken(name, f"{type(e).__name__}: {e}") from None


def _broken(name: str, reason: str) -> _Wrong:
    user = "This endpoint's template cannot be rendered with your user_endpoint_config; please tell its administrators."
    return _Wrong("template", f"{name}: {reason}", user)


def _check_config(text: str, name: str) -> None:
    """The UEP reads it again; here a broken template is noticed before anything has been started."""
    if len(text) > MAX_CONFIG:
        reason = f"renders to {len(text)} characters; the limit is {MAX_CONFIG}"
        raise _Wrong("options", f"{name}: {reason}", f"Your user_endpoint_config is the reason: the template {reason}.")
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as e:  # also dates and numbers that are none
        raise _broken(name, f"does not render to YAML: {' '.join(str(e).split())}") from None
    if not isinstance(config, dict) or "engine" not in config:
        raise _broken(name, "does not render to a configuration with an `engine`")
    if "high_assurance" in config:
        raise _broken(name, "`high_assurance` belongs in config.yaml, not in the template")
