"""What is legal in a profile but hardly meant: values that nothing expands, options that no template reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mep.profile.profile import CONFIG, ENVIRONMENT, OWN_VARIABLES, SCHEMA, Profile
from mep.renderer import template
from mep.renderer.faults import misfit
from mep.renderer.taken import names_read, remote_references, taken

_UNEXPANDED = re.compile(r"\$\{?[A-Za-z_]\w*\}?|\$\([^)]*\)|`[^`]*`|\{\{.*?\}\}|^~[\w-]*(?=/|$)|(?<=:)~[\w-]*(?=/|$)")


_OPEN = {"allowed_functions": "all functions may run", "authentication_policy": "the service asks for no policy"}
"""Keys that keep something out, and what is so without them."""


def slips(profile: Profile) -> Iterator[tuple[str, str]]:
    """Pairs of what was looked at, and what is odd about it."""
    yield from ((ENVIRONMENT, text) for text in _environment(profile))
    in_template = f"{profile.template_name}: "
    yield from ((profile.template_name, text.removeprefix(in_template)) for text in _options(profile))
    yield from ((SCHEMA, text) for text in _schema(profile))
    for key, open_to in _OPEN.items():
        if getattr(profile.config, key) is None and re.search(rf"^{key}\s*:", profile.config_text, re.MULTILINE):
            yield CONFIG, f"{key}: has no value, so {open_to}; write one, or leave the key out"
    if profile.config.allowed_functions == ():
        yield CONFIG, "allowed_functions: the list is empty, so no function may run; leave the key out for all"


def _environment(profile: Profile) -> Iterator[str]:
    for name, value in profile.environment.items():
        if name in OWN_VARIABLES:
            yield f"{name}: not used: user endpoints have it from their account; leave it out"
        elif found := _UNEXPANDED.search(value):
            yield f"{name}: nothing expands {found[0]!r}: user endpoints get it as it stands; write the value itself"
        elif value in ("None", "True", "False"):
            was = {"None": "no value", "True": "true", "False": "false"}[value]
            yield f"{name}: {was} in YAML, which user endpoints get as {value!r}; write what is meant in quotes"
        elif name == "PATH" and (odd := [each for each in value.split(":") if not Path(each).is_dir()]):
            yield f"PATH: no such folder here: {', '.join(map(repr, odd))}"


def _options(profile: Profile) -> Iterator[str]:
    """What template and schema say of each other."""
    stated = (profile.schema or {}).get("properties")
    properties = stated if isinstance(stated, dict) else {}
    read, certain = names_read(profile.templates, profile.template_name)
    for name in properties:
        if certain and name not in read:
            yield f"the schema has an option {name!r}, which no template reads"
    takes = taken(profile.templates, profile.template_name, profile.schema)
    for name in sorted(read) if properties else ():
        if not takes.is_stated(name):
            refused = (profile.schema or {}).get("additionalProperties") is False
            effect = "so nobody can give it" if refused else "so it may have any value"
            yield f"the template reads an option {name!r} that is not in the schema, {effect}; add it to `properties`"
    for name, value, where in template.defaults(profile.templates):
        if name in properties and (takes_instead := misfit(properties[name], value)):
            yield f"{where}: default({value!r}) of {name!r} breaks the schema: it takes {takes_instead}"
    for each in template.bare_texts(profile.templates):
        if each.option in read and not _is_narrow(properties.get(each.option)):
            yield (
                f"{each.where}: `{each.how}` takes the quotes of {each.option!r} away, so that a line break in it can "
                "become a line of its own, such as one more `#SBATCH`; leave the quotes there, or give the option a "
                "`pattern` or an `enum` in the schema"
            )


def _schema(profile: Profile) -> Iterator[str]:
    for reference in remote_references(profile.schema):
        yield f"$ref {reference!r} is elsewhere, and nothing is fetched: no option can be checked; copy it into $defs"


def _is_narrow(schema: object) -> bool:
    """Whether a schema says which characters a value has."""
    if not isinstance(schema, dict):
        return False
    return bool({"pattern", "enum", "const"} & schema.keys()) or schema.get("type") in ("integer", "number", "boolean")
