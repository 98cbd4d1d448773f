"""The admin's template: whether it is one, and what it gives once it is filled in.

`reader.files` asks what is wrong with a template itself; everything else is done in a child of the render server.
Templates are the admin's and trusted; what they are filled with is not.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.constants
import jinja2.debug
import jinja2.meta
import jinja2.sandbox
import yaml
from jinja2 import nodes

from mep.processes.render_protocol import MAX_CONFIG
from mep.renderer.encoding import shell_escape, to_json
from mep.renderer.refusal import Unacceptable

_OTHERS = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)
"""What brings another template in."""


def syntax_problem(templates: Mapping[str, str], name: str) -> str | None:
    """What is wrong with template `name` before anything is filled in; None when nothing is."""
    made = _environment(templates)
    try:
        made.compile(templates[name])
    except jinja2.TemplateSyntaxError as e:
        return f"line {e.lineno}: {e.message}"
    except (RecursionError, MemoryError):
        return "is nested too deeply"
    except ValueError as e:  # digits without end
        return f"cannot be read: {e}"
    for node in made.parse(templates[name]).find_all(_OTHERS):
        wanted: nodes.Expr = getattr(node, "template")  # noqa: B009 - all four have it, their common type has not
        named = isinstance(wanted, nodes.Const) and isinstance(wanted.value, str)
        if named and plain_name(wanted.as_const()) not in templates and not getattr(node, "ignore_missing", False):
            return f"line {node.lineno}: {wanted.as_const()!r} is no file of the template's folder, or below it"
    return None


def included(templates: Mapping[str, str]) -> tuple[list[str], bool]:
    """The names of files that these templates extend, include or import, and whether some are only known later."""
    made, names, open_ended = _environment({}), dict[str, None](), False
    for text in templates.values():
        try:
            nodes_of_others = list(made.parse(text).find_all(_OTHERS))
        except (jinja2.TemplateSyntaxError, RecursionError, MemoryError, ValueError):
            continue  # told by `syntax_problem`
        for node in nodes_of_others:
            wanted: nodes.Expr = getattr(node, "template")  # noqa: B009 - all four have it, their common type has not
            constants = [wanted] if isinstance(wanted, nodes.Const) else list(wanted.find_all(nodes.Const))
            texts = [each.value for each in constants if isinstance(each.value, str)]
            names.update((name, None) for text in texts if (name := plain_name(text)))
            open_ended |= not isinstance(wanted, (nodes.Const, nodes.List, nodes.Tuple))
    return list(names), open_ended


def plain_name(name: str) -> str | None:
    """The name of a file below the template's folder, as Jinja takes it: `./a//b` is `a/b`; None when it leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if not parts or ".." in parts or "\0" in name else "/".join(parts)


def variables(templates: Mapping[str, str]) -> set[str] | None:
    """The names that these templates read and do not set themselves; None when that cannot be told."""
    made = _environment(templates)
    try:
        return set().union(*(jinja2.meta.find_undeclared_variables(made.parse(text)) for text in templates.values()))
    except (jinja2.TemplateError, RecursionError, ValueError):
        return None


def prepare(templates: Mapping[str, str]) -> None:
    """Compiles them ahead of `fill_in`, which will say what is wrong with one."""
    made = _environment(templates)
    for name in templates:
        with contextlib.suppress(Exception):
            made.get_template(name)


def fill_in(templates: Mapping[str, str], name: str, variables: Mapping[str, Any]) -> str:
    """The text of template `name` with these variables."""
    try:
        return _environment(templates).get_template(name).render(variables)
    except jinja2.UndefinedError as e:
        user = f"An option is missing from user_endpoint_config: {e.message}."
        raise Unacceptable("template", f"{name}: {e.message} (no such option was given)", user) from None
    except jinja2.TemplateSyntaxError as e:
        raise _broken(e.filename or name, f"line {e.lineno}: {e.message}") from None
    except MemoryError:
        raise
    except Exception as e:  # noqa: BLE001 - a template can raise anything
        raise _broken(name, f"{type(e).__name__}: {e}") from None


def _broken(name: str, reason: str) -> Unacceptable:
    user = "This endpoint's template cannot be rendered with your user_endpoint_config; please tell its administrators."
    return Unacceptable("template", f"{name}: {reason}", user)


def check_config(text: str, name: str) -> None:
    """The UEP reads it again; here a broken template is noticed before anything has been started."""
    if len(text) > MAX_CONFIG:
        reason = f"renders to {len(text)} characters; the limit is {MAX_CONFIG}"
        raise Unacceptable(
            "options", f"{name}: {reason}", f"Your user_endpoint_config is the reason: the template {reason}."
        )
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as e:  # also dates and numbers that are none
        raise _broken(name, f"does not render to YAML: {' '.join(str(e).split())}") from None
    if not isinstance(config, dict) or "engine" not in config:
        raise _broken(name, "does not render to a configuration with an `engine`")
    if "high_assurance" in config:
        raise _broken(name, "`high_assurance` belongs in config.yaml, not in the template")


def _environment(templates: Mapping[str, str]) -> jinja2.Environment:
    """An environment that knows `templates` by name, reads no file, and has the filter `shell_escape`. It keeps what it
    has compiled."""
    return _environment_of(tuple(templates.items()))


@functools.lru_cache(maxsize=1)
def _environment_of(texts: tuple[tuple[str, str], ...]) -> jinja2.Environment:
    templates = dict(texts)
    # What `append` and `update` change is this process's, which handles one request and ends.
    made = jinja2.sandbox.SandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(lambda name: templates.get(plain_name(name) or "")),
    )
    made.filters["shell_escape"] = shell_escape
    made.policies["json.dumps_function"] = to_json
    return made
