"""The render server, as the real process that it is. Hostile options: test_hostile_options.py."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.waiting import aiountil
from mep.accounts import look_up
from mep.monitor.stages.name_service import of_exactly_that_name
from mep.monitor.stages.renderer import Renderer
from mep.processes import helper
from mep.reader import loader
from mep.renderer import options as plain_options
from mep.renderer.refusal import Unacceptable
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

pytestmark = pytest.mark.usefixtures("root")

Render = Callable[..., str]
COMPILES_IN_THE_SERVER_ONLY = """
import os
import jinja2
from mep.renderer import server

compiles, ours = jinja2.Environment.compile, os.getpid()
jinja2.Environment.compile = lambda *given, **named: compiles(*given, **named) if os.getpid() == ours else 1 / 0
server.main()
"""


@pytest.fixture
def render(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> Render:
    """Renders once with a fresh server; `template` and `schema` replace the profile's."""

    def once(options: dict[str, Any], template: str | None = None, schema: str | None = None, **files: str) -> str:
        if template is not None:
            (profile_directory / "user_config_template.yaml.j2").write_text(template)
        if schema is not None:
            (profile_directory / "user_config_schema.json").write_text(schema)
        for name, text in files.items():
            (profile_directory / f"{name}.j2").write_text(text)

        async def work() -> str:
            renderer = Renderer(of_exactly_that_name("nobody", look_up.account("nobody")))
            try:
                request = dataclasses.replace(command, user_options=json.dumps(options))
                return (await renderer.render(loader.load(profile_directory), request, identity_of_alice, alice)).read()
            finally:
                await renderer.stop()

        return asyncio.run(work())

    return once


def refusal(render: Render, *arguments: Any, **named: Any) -> Refusal:
    with pytest.raises(Refused) as caught:
        render(*arguments, **named)
    return caught.value.refusal


def test_options_reach_the_template(render: Render) -> None:
    assert "max_workers: 3" in render({"WORKERS": 3})


ENGINE = "engine: {type: ThreadPoolEngine}\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a: {{ NAME }}", 'a: "x\\ny: z"'),
        ("a: {{ NONE }}", "a: null"),
        ("a: {{ LIST }}", "a: ['\"p\"', 1]"),
        ("a: {{ CMD | shell_escape }}", "a: \"'rm -rf /; echo'\""),
        ("a: {{ _GC.mapped_identity.local.uname }}", "a: alice"),
        ("a: {{ mapped_identity.local.uid }}", "a: 54321"),
        ("a: {{ _GC.env.SITE }}", "a: here"),
        ("a: {{ _GC.env.HOME }}/x {{ _GC.env.USER }}", "a: /home/alice/x alice"),
        ("a: {{ env }}", 'a: "conda"'),
        ("a: [{{ _GC.parent_config.heartbeat_period }}]", "a: [30]"),
        ("a: {{ _GC.user_runtime.python.version }}", 'a: "3.11.2"'),
        ("a: {{ parent_config.display_name }}", "a: Prod"),
        ("{% include 'common.j2' %}", "a: shared"),
        ("a: {{ MISSING | default(7) }}", "a: 7"),
    ],
)
def test_the_variables_that_sites_use(render: Render, template: str, expected: str) -> None:
    options = {"NAME": "x\ny: z", "NONE": None, "LIST": ["p", 1], "CMD": "rm -rf /; echo", "env": "conda"}
    assert expected in render(options, template=f"{ENGINE}{template}\n", common="a: shared")


@pytest.mark.parametrize(
    ("options", "named", "stage", "admin", "user"),
    [
        ({"A": 1}, {"schema": '{"additionalProperties": false}'}, "options", "There is no option 'A'", "'A'"),
        ({"_GC": 1}, {}, "options", "reserved", "reserved"),
        ({}, {}, "template", "WORKERS", "WORKERS"),
        ({}, {"template": "{{ ''.__class__.__mro__ }}"}, "template", "SecurityError", "administrators"),
        ({}, {"template": "{{ 1 / 0 }}"}, "template", "ZeroDivisionError", "administrators"),
        ({"F": "/etc/shadow"}, {"template": "{% include F %}"}, "template", "TemplateNotFound", "administrators"),
        ({}, {"template": "a: b: c"}, "template", "YAML", "administrators"),
        ({}, {"template": "[]"}, "template", "engine", "administrators"),
        ({}, {"template": f"{ENGINE}high_assurance: true"}, "template", "high_assurance", "administrators"),
    ],
)
def test_what_cannot_be_rendered_is_refused_with_the_reason(
    render: Render, options: dict[str, Any], named: dict[str, Any], stage: str, admin: str, user: str
) -> None:
    refused = refusal(render, options, **named)
    assert refused.stage == stage
    assert admin in refused.reason_for_admin
    assert user in refused.reason_for_user


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("engine: {type: X}", "high_assurance: true\nengine: {type: X}"),
        ("# c\nengine:\n  type: X\n", "high_assurance: true\n# c\nengine:\n  type: X"),
        ("---\nengine: {type: X}", None),
        ("{engine: {type: X}}", None),
        (" engine: {type: X}", None),
    ],
)
def test_user_endpoints_with_high_assurance_are_told(
    render: Render, profile_directory: Path, template: str, rendered: str | None
) -> None:
    with (profile_directory / "config.yaml").open("a") as file:
        file.write("high_assurance: true\naudit_log_path: /var/log/mep-audit.log\n")
    if rendered is None:
        assert "cannot be put in front" in refusal(render, {}, template=template).reason_for_admin
    else:
        assert render({}, template=template) == rendered


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_large_options_are_rendered_up_to_a_limit(render: Render) -> None:
    assert "max_workers: 1" in render({"WORKERS": 1, "BIG": "x" * 1_000_000, "DEEP": nested(60)})
    assert "too large" in refusal(render, {"WORKERS": 1, "BIG": "x" * 1_100_000}).reason_for_user


@pytest.mark.parametrize("depth", [65, 500, 900])
def test_deep_options_end_in_a_refusal(render: Render, depth: int) -> None:
    assert "nested too deeply" in refusal(render, {"WORKERS": 1, "DEEP": nested(depth)}).reason_for_user


def test_every_filter_works_in_a_process_that_can_open_no_file(render: Render) -> None:
    """Some import a module when they are used; `warm_up` must have done that."""
    uses = [
        "{{ V | wordwrap(2) }}{{ V | pprint }}{{ V | tojson }}{{ V | urlize }}{{ V | striptags }}",
        "{{ {'a': V} | xmlattr }}{{ V | wordcount }}",
        "{{ V | escape }}{{ V | forceescape }}{{ V | urlencode }}{{ [1, 2] | random }}{{ V | title }}",
        "{{ lipsum() }}{{ [3, 1] | sort }}{{ 1.5 | round }}{{ 10 | filesizeformat }}{{ ('&lt;' | escape).unescape() }}",
        "{% for a in [{'k': 1}] | groupby('k') %}{{ a.list | sum('k') }}{% endfor %}{{ [1] | batch(2) | list }}",
    ]
    template = "".join(f"{{% set x %}}{use}{{% endset %}}" for use in uses)
    assert "a: 1" in render({"V": "a b"}, template=f"{template}{ENGINE}a: 1\n")


def test_a_template_is_compiled_once_for_all_requests(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mep-test-"))
    try:
        folder.chmod(0o755)
        (folder / "server.py").write_text(COMPILES_IN_THE_SERVER_ONLY)
        monkeypatch.setattr(helper, "_ARGUMENTS", ("-I", str(folder / "server.py")))
        included = "{% include 'more.j2' %}"
        assert "more: 1" in render({"WORKERS": 1}, template=f"{ENGINE}{included}\n", more="more: {{ WORKERS }}\n")
    finally:
        shutil.rmtree(folder)


def test_a_server_that_died_is_replaced(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> None:
    profile = loader.load(profile_directory)
    request = dataclasses.replace(command, user_options='{"WORKERS": 1}')

    async def work() -> tuple[int, int]:
        pool = Renderer(of_exactly_that_name("nobody", look_up.account("nobody")))
        await pool.start()
        assert pool._helper.current is not None
        first = pool._helper.current.process.pid
        assert Path(f"/proc/{first}").stat().st_uid == account_of_nobody()
        os.kill(first, signal.SIGKILL)
        server = pool._helper.current
        await aiountil(lambda: server.lost, "its end to be seen")
        assert "max_workers: 1" in (await pool.render(profile, request, identity_of_alice, alice)).read()
        second = pool._helper.current.process.pid
        await pool.stop()
        return first, second

    first, second = asyncio.run(work())
    assert first != second


def account_of_nobody() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_uid


@pytest.mark.parametrize("text", ["touch x", "a\nb", "$(x)", "/bin/x", "-x", "a=b", "x;y", "ä", "`x`", "x" * 129])
def test_where_functions_are_pinned_options_are_plain_words(text: str) -> None:
    good = {"PARTITION": "gpu-a100.large", "N": 1.5, "LIST": ["a@b", "", None, {"TIME": "01:00:00"}]}
    named = {"PARTITION": {"enum": ["gpu-a100.large"]}, "TIME": {"pattern": "^[0-9:]+$"}}
    listed = {"items": {"pattern": "^", "properties": named}}
    plain_options.check_plain(good, {"properties": {**named, "LIST": listed}})
    for given in ({"A": text}, {"A": [{"B": text}]}, {text: 1}, {"A": {text: 1}}):
        with pytest.raises(Unacceptable) as refused:
            plain_options.check_plain(given, None)
        assert "plain word" in refused.value.user
    runtime = {"python": {"version": "3.11.2", "compiler": text}, "tuple": [3, text]}
    assert plain_options.plain_only(runtime) == {"python": {"version": "3.11.2", "compiler": ""}, "tuple": [3, ""]}


DRAFT_4 = {"$schema": "http://json-schema.org/draft-04/schema#"}
"""Knows no `const`, and nothing beside `$ref`."""


@pytest.mark.parametrize(
    ("options", "schema"),
    [
        ({"requirements": "package"}, None),
        ({"requirements": "package"}, {"properties": {"requirements": {"type": "string"}}}),
        ({"LIST": [1, "package"]}, {"properties": {"LIST": {"items": {"type": "string"}}}}),
        ({"MAP": {"a": "package"}}, {"properties": {"MAP": {"properties": {"a": {}}}}}),
        ({"MAP": {"package": 1}}, {"properties": {"MAP": {"properties": {"a": {}}}}}),
        ({"A": "package"}, {**DRAFT_4, "properties": {"A": {"const": "gpu"}}}),
        ({"A": "package"}, {**DRAFT_4, "properties": {"A": {"$ref": "#/x", "enum": ["gpu"]}}, "x": {}}),
        ({"A": ["package"]}, {"properties": {"A": {"prefixItems": [{}], "items": {"enum": ["gpu"]}}}}),
    ],
)
def test_where_functions_are_pinned_the_schema_names_each_text(
    options: dict[str, Any], schema: dict[str, Any] | None
) -> None:
    """A single word, too, can be a command, or the name of a package that is then installed."""
    with pytest.raises(Unacceptable, match="options") as refused:
        plain_options.check_plain(options, schema)
    assert "enum, const or pattern" in refused.value.user
