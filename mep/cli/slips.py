"""What is legal in a profile but hardly meant: values that nothing expands, options that no template reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mep.profile.profile import ENVIRONMENT, OWN_VARIABLES, Profile
from mep.renderer.template import variables

_UNEXPANDED = re.compile(r"\$\{?[A-Za-z_]\w*\}?|\$\([^)]*\)|`[^`]*`|\{\{.*?\}\}|^~[\w-]*(?=/|$)|(?<=:)~[\w-]*(?=/|$)")


def slips(profile: Profile) -> Iterator[tuple[str, str]]:
    """Pairs of what was looked at, and what is odd about it."""
    yield from ((ENVIRONMENT, text) for text in _environment(profile))
    yield from ((profile.template_name, text) for text in _unused_options(profile))
    if profile.config.allowed_functions == ():
        yield "config.yaml", "allowed_functions: the list is empty, so no function may run; leave the key out for all"


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


def _unused_options(profile: Profile) -> Iterator[str]:
    named = (profile.schema or {}).get("properties")
    used = variables(profile.templates)
    for name in named if isinstance(named, dict) else ():
        if used is not None and name not in used:
            yield f"the schema has an option {name!r}, which no template reads"
