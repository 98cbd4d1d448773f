"""The Jinja environment of templates: one for those who render (`render_worker`) and those who check (`profile`).

Templates are the admin's and trusted; what they are filled with is not.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.sandbox
from jinja2 import nodes


def environment(templates: Mapping[str, str]) -> jinja2.Environment:
    """An environment that knows `templates` by name, and the filter `shell_escape`."""
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, loader=jinja2.DictLoader(templates)
    )
    made.filters["shell_escape"] = _shell_escape
    return made


def encode(value: Any) -> Any:
    """Strings as JSON, quotes included, and null for None: whatever they hold, they stay one YAML scalar."""
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, str):
        return json.dumps(value)
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


def _shell_escape(value: Any) -> Any:
    """Jinja filter: an encoded string as one word for a shell. Other values pass unchanged."""
    decoded = json.loads(value) if isinstance(value, str) else value
    return json.dumps(shlex.quote(decoded)) if isinstance(decoded, str) else value
