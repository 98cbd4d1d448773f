"""The admin's template: whether it is one, and what it gives once it is filled in.

`reader.files` asks what is wrong with a template itself; everything else is done in a child of the render server.
Templates are the admin's and trusted; what they are filled with is not.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import jinja2.constants
import jinja2.debug
import jinja2.defaults
import jinja2.meta
import jinja2.sandbox
import yaml
from jinja2 import nodes

from mep.processes.render_protocol import MAX_CONFIG
from mep.renderer.encoding import shell_escape, to_json
from mep.renderer.refusal import Unacceptable

_BESIDE = "template:"
"""Stands before a template's name where Python has the name of a file."""
_STRIPS = ("replace", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix")
"""Methods of text that take something away."""
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
            named = wanted.items if isinstance(wanted, (nodes.List, nodes.Tuple)) else [wanted]
            open_ended |= not all(isinstance(each, nodes.Const) for each in named)
    return list(names), open_ended


def plain_name(name: str) -> str | None:
    """The name of a file below the template's folder, as Jinja takes it: `./a//b` is `a/b`; None when it leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if not parts or ".." in parts or "\0" in name else "/".join(parts)


def variables(templates: Mapping[str, str]) -> tuple[set[str], bool]:
    """The names that these templates read and do not set themselves, and whether all of the templates could be read."""
    made, names, whole = _environment(templates), set[str](), True
    for text in templates.values():
        try:
            parsed = made.parse(text)
            names |= jinja2.meta.find_undeclared_variables(parsed) | _globals_as_values(parsed)
        except (jinja2.TemplateError, RecursionError, ValueError):
            whole = False
    return names, whole


def _globals_as_values(parsed: nodes.Template) -> set[str]:
    """The names of Jinja's own functions, such as `namespace`, that are read and not called: options of that name."""
    called = {id(call.node) for call in parsed.find_all(nodes.Call)}
    read = {each.name for each in parsed.find_all(nodes.Name) if each.ctx == "load" and id(each) not in called}
    return read.intersection(jinja2.defaults.DEFAULT_NAMESPACE)


@dataclass(frozen=True)
class BareText:
    """An option in a template whose JSON quotes are taken away. how: what takes them, as it is written."""

    option: str
    how: str
    where: str


def bare_texts(templates: Mapping[str, str]) -> Iterator[BareText]:
    """The options that these templates print without quotes, so that what is in them may end the value they are in."""
    for name, node in _nodes(templates, (nodes.Filter, nodes.Call, nodes.Getitem)):
        inner, how = _takes_quotes(node)
        if how and (option := _option(inner)):
            yield BareText(option, how, f"{name}: line {node.lineno}")


def defaults(templates: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    """The option, the value and the place of each `OPTION | default(VALUE)`."""
    for name, node in _nodes(templates, (nodes.Filter,)):
        match node:
            case nodes.Filter(name="default" | "d", node=nodes.Name() as option, args=[nodes.Const() as value, *_]):
                yield option.name, value.value, f"{name}: line {node.lineno}"


def _nodes(templates: Mapping[str, str], kinds: tuple[type[nodes.Expr], ...]) -> Iterator[tuple[str, nodes.Expr]]:
    for name, text in templates.items():
        with contextlib.suppress(jinja2.TemplateSyntaxError, RecursionError, MemoryError, ValueError):
            for node in _environment(templates).parse(text).find_all(kinds):
                yield name, node


def _takes_quotes(node: nodes.Expr) -> tuple[nodes.Expr | None, str]:
    """What an expression takes the quotes of, and by what; an empty text: it takes none."""
    match node:
        case nodes.Filter(name="replace" | "trim" as how, args=arguments) if _quote_in(arguments):
            return node.node, how
        case nodes.Call(node=nodes.Getattr(attr=how) as of, args=arguments) if how in _STRIPS and _quote_in(arguments):
            return of.node, f".{how}()"
        case nodes.Getitem(arg=nodes.Slice(start=nodes.Const())):
            return node.node, "[...]"
    return None, ""


def _quote_in(arguments: Sequence[nodes.Expr]) -> bool:
    return bool(arguments) and isinstance(arguments[0], nodes.Const) and '"' in str(arguments[0].value)


def _option(node: nodes.Expr | None) -> str | None:
    """The name at the beginning of `name | filter | filter`, `name.key`, `name.method()`."""
    while node is not None and not isinstance(node, nodes.Name):
        node = getattr(node, "node", None)
    return None if node is None else node.name


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
        where = _where(e) or name
        raise Unacceptable("template", f"{where}: {e.message} (no such option was given)", user) from None
    except jinja2.TemplateSyntaxError as e:
        raise _broken(e.filename or name, f"line {e.lineno}: {e.message}") from None
    except MemoryError:
        raise
    except Exception as e:  # noqa: BLE001 - a template can raise anything
        raise _broken(_where(e) or name, f"{type(e).__name__}: {e}") from None


def _where(error: BaseException) -> str | None:
    """The file and the line of a template in which an error was raised; Jinja puts them into the traceback."""
    places = [
        f"{frame.f_code.co_filename.removeprefix(_BESIDE)}: line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(_BESIDE)
    ]
    return places[-1] if places else None


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


def with_high_assurance(text: str, name: str) -> str:
    """The configuration with the key that tells a user endpoint, also the public package's, to tell of its tasks.

    Raises:
        Unacceptable: the key cannot stand in front of this text.
    """
    assured = f"high_assurance: true\n{text}"
    try:
        if yaml.safe_load(assured) == {"high_assurance": True, **yaml.safe_load(text)}:
            return assured
    except yaml.YAMLError:
        pass
    raise _broken(
        name, "`high_assurance: true` cannot be put in front: render keys and values, without braces or `---`"
    )


def _environment(templates: Mapping[str, str]) -> jinja2.Environment:
    """An environment that knows `templates` by name, reads no file, and has the filter `shell_escape`. It keeps what it
    has compiled."""
    return _environment_of(tuple(templates.items()))


@functools.lru_cache(maxsize=1)
def _environment_of(texts: tuple[tuple[str, str], ...]) -> jinja2.Environment:
    templates = dict(texts)

    def load(name: str) -> tuple[str, str, None] | None:
        plain = plain_name(name) or ""
        return (templates[plain], f"{_BESIDE}{plain}", None) if plain in templates else None

    # What `append` and `update` change is this process's, which handles one request and ends.
    made = jinja2.sandbox.SandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(load),
    )
    made.filters["shell_escape"] = shell_escape
    made.policies["json.dumps_function"] = to_json
    return made
