"""Tries a profile before it is in force: the template rendered, the user endpoint's own program asked about the result.

    await rehearse(profile, renderer, account) -> Findings(problems, notes)

The options are those that the schema names: its defaults alone, and with each of its examples and values of an `enum`.
Where the template needs an option that the schema gives no value for, one is made up, and what such a value causes is
a note only; a name that is not known is a problem with every value. Last, all options are given at once.

`mep check`, each start and each reload of a manager call this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mep.daemon import endpoint_check
from mep.monitor.stages import plan
from mep.processes.sealed_file import SealedFile
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.credentials import Credentials
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint

MOST = 48
"""Sets of options that are tried."""
MADE_UP = "made-up-by-mep-check"
_NOBODY = "00000000-0000-0000-0000-000000000000"
_RUNTIME = {
    "globus_compute_sdk_version": "4.0.0",
    "globus_sdk_version": "4.0.0",
    "python_version": "3.11.0 (main) [GCC 12.2.0]",
    "python": {
        "version": "3.11.0",
        "version_description": "3.11.0 (main) [GCC 12.2.0]",
        "version_tuple": [3, 11, 0],
        "version_info": [3, 11, 0, "final", 0],
        "implementation": "CPython",
        "compiler": "GCC 12.2.0",
    },
    "platform": {
        "architecture": ["64bit", "ELF"],
        "machine": "x86_64",
        "node": "client",
        "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
        "processor": "x86_64",
        "release": "6.1.0",
    },
}
"""As the client sends it."""
_MISSING = re.compile(r"'([A-Za-z_][A-Za-z0-9_]*)' is undefined")


class Renderer(Protocol):
    """`stages.renderer`."""

    async def render(
        self, profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account
    ) -> RenderedConfig:
        """Raises Refused."""


@dataclass
class Findings:
    """problems: with these the profile cannot work. notes: for people."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Trial:
    """One set of options, and those of them that nobody named a value for."""

    options: Mapping[str, Any]
    made_up: tuple[str, ...] = ()
    quiet: bool = False
    """Whether nobody needs these options, so that what made-up values cause is not worth a note."""

    def with_value(self, name: str, schema: Mapping[str, Any]) -> _Trial:
        choices = _choices(schema)
        made_up = self.made_up if choices else (*self.made_up, name)
        value = choices[0] if choices else _invented(schema)
        return _Trial({**self.options, name: value}, made_up, self.quiet)


async def rehearse(profile: Profile, renderer: Renderer, account: Account) -> Findings:
    """What is wrong with, or worth knowing of, what the profile starts. `account` is that of the helpers."""
    findings = Findings()
    rendered: list[tuple[_Trial, str]] = []
    for trial in _trials(profile.schema or {}):
        completed, outcome = await _rendered(profile, renderer, account, trial)
        if isinstance(outcome, str):
            rendered.append((completed, outcome))
        else:
            _note_refusal(findings, profile, completed, outcome)
    await _ask(findings, profile, account, rendered)
    findings.problems = list(dict.fromkeys(findings.problems))
    findings.notes = list(dict.fromkeys(findings.notes))
    return findings


async def _rendered(
    profile: Profile, renderer: Renderer, account: Account, trial: _Trial
) -> tuple[_Trial, str | Refusal]:
    """The configuration; options that the template cannot do without are added, one after the other."""
    identity = MappedIdentity(account.name, _NOBODY, "none; made up", [])
    for _ in range(MOST):
        try:
            config = await renderer.render(profile, _command(trial.options), identity, account)
        except Refused as e:
            missing = _MISSING.search(e.refusal.reason_for_admin) if e.refusal.stage == "template" else None
            if missing is None or missing[1] in trial.options:
                return trial, e.refusal
            trial = trial.with_value(missing[1], _properties(profile.schema or {}).get(missing[1], {}))
        else:
            return trial, config.read()
    return trial, Refusal("template", f"{profile.template_name}: needs more than {MOST} options", "")


async def _ask(findings: Findings, profile: Profile, account: Account, rendered: Sequence[tuple[_Trial, str]]) -> None:
    texts = list(dict.fromkeys(text for _, text in rendered))
    if not texts:
        return
    environment = plan.environment(profile, _command({}), account)
    try:
        verdicts = await endpoint_check.ask(profile.config.uep_command, environment, texts, account)
    except endpoint_check.NotAsked as e:
        findings.notes.append(str(e))
        return
    said = dict(zip(texts, verdicts, strict=True))
    told: set[str] = set()
    for trial, text in rendered:
        verdict = said[text]
        findings.notes += [f"{profile.template_name}: {note}" for note in verdict.notes]
        if verdict.problem is None or verdict.problem in told:
            continue
        told.add(verdict.problem)
        line = f"{place(profile, verdict.problem)}: {verdict.problem}{_with(trial)}"
        if not trial.made_up or ("unknown " in verdict.problem and MADE_UP not in verdict.problem):
            findings.problems.append(line)
        elif not trial.quiet:
            findings.notes.append(line)


def _note_refusal(findings: Findings, profile: Profile, trial: _Trial, refusal: Refusal) -> None:
    if trial.made_up and trial.quiet:
        return
    if trial.made_up:
        names = ", ".join(trial.made_up)
        remedy = f"give {names} `default` or `examples` in the schema, so that this can be tried"
        findings.notes.append(f"{refusal.reason_for_admin}{_with(trial)}; {remedy}")
    elif refusal.stage == "options":
        findings.notes.append(
            f"a default or an example of the schema is refused: {refusal.reason_for_admin}{_with(trial)}"
        )
    else:
        findings.problems.append(f"{refusal.reason_for_admin}{_with(trial)}")


def _trials(schema: Mapping[str, Any]) -> list[_Trial]:
    """The sets of options, each with what the schema requires."""
    properties = _properties(schema)
    usual = {name: each["default"] for name, each in properties.items() if "default" in each}
    if isinstance(schema.get("default"), dict):
        usual |= schema["default"]
    sets = [usual]
    whole = schema.get("examples")
    sets += [{**usual, **each} for each in (whole if isinstance(whole, list) else []) if isinstance(each, dict)]
    sets.append({**usual, **{name: _choices(each)[0] for name, each in properties.items() if _choices(each)}})
    sets += [{**usual, name: value} for name, each in properties.items() for value in _choices(each)]
    required = [name for name in schema.get("required") or [] if isinstance(name, str)]
    different = {json.dumps(each, sort_keys=True): each for each in sets}
    trials = [_with_all(_Trial(each), required, properties) for each in list(different.values())[:MOST]]
    return [*trials, _with_all(_Trial(usual, quiet=True), list(properties), properties)]


def _with_all(trial: _Trial, required: Sequence[str], properties: Mapping[str, Mapping[str, Any]]) -> _Trial:
    for name in required:
        if name not in trial.options:
            trial = trial.with_value(name, properties.get(name, {}))
    return trial


def _properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = schema.get("properties")
    named = found.items() if isinstance(found, dict) else ()
    return {name: each for name, each in named if isinstance(each, dict)}


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    """Values that the schema itself names for a property: its default first."""
    listed = [schema.get("examples"), schema.get("enum"), [False, True] if schema.get("type") == "boolean" else None]
    single = [schema[key] for key in ("default", "const") if key in schema]
    return [*single, *(value for each in listed if isinstance(each, list) for value in each)]


def _invented(schema: Mapping[str, Any]) -> Any:
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    return {"array": [], "object": {}, "null": None}.get(str(kind), MADE_UP)


def _with(trial: _Trial) -> str:
    return f" (with options {json.dumps(trial.options)[:300]})" if trial.options else ""


def place(profile: Profile, problem: str) -> str:
    """Where a problem of what was rendered comes from: the template, and the line that has its first word in quotes."""
    word = re.search("'([^']+)'", problem)
    for name, number, line in _lines(profile):
        if word is not None and re.search(rf"(?<![\w-]){re.escape(word[1])}(?![\w-])", line):
            return f"{name}: line {number}"
    return profile.template_name


def _lines(profile: Profile) -> Iterator[tuple[str, int, str]]:
    names = [profile.template_name, *(name for name in profile.templates if name != profile.template_name)]
    for name in names:
        for number, line in enumerate(profile.templates[name].splitlines(), 1):
            yield name, number, line


def _command(options: Mapping[str, Any]) -> StartEndpoint:
    return StartEndpoint(
        request_id="rehearsal",
        name="rehearsal",
        endpoint_id=_NOBODY,
        user_options=json.dumps(options),
        user_runtime=json.dumps(_RUNTIME),
        credentials=Credentials(SealedFile.of(b"{}")),
        requester=_NOBODY,
        requester_name="rehearsal",
        identity_set="[]",
    )
