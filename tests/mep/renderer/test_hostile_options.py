"""Options made to do harm, against a real render server. Meanwhile another account is always served."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import os
import pwd
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.waiting import aiountil
from mep.accounts import look_up
from mep.monitor.stages import renderer
from mep.monitor.stages.name_service import of_exactly_that_name
from mep.monitor.stages.renderer import Renderer
from mep.processes import helper, render_protocol
from mep.profile.profile import Profile
from mep.reader import loader
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import MAX_OPTIONS, StartEndpoint

pytestmark = pytest.mark.usefixtures("root")

ENGINE = "engine: {type: ThreadPoolEngine}\n"
LOOP = "{% for i in range(N) %}{% for j in range(N) %}{% for k in range(N) %}{% endfor %}{% endfor %}{% endfor %}"
BACKTRACKS = '{"properties": {"S": {"pattern": "^(a+)+$"}}}'
ENDLESS = {"N": 99_999}
MARK = "a-secret-of-alice"


def as_json(value: dict[str, Any]) -> str:
    """Also of what is too deep for whoever writes JSON: one list in the other."""
    try:
        return json.dumps(value)
    except RecursionError:
        return f'{{"A": {"[" * 10_000}1{"]" * 10_000}}}'


class Site:
    """One server and the accounts that ask it. `alice` gets up to no good, `bob` does not."""

    def __init__(self, server: Renderer, directory: Path, command: StartEndpoint, identity: MappedIdentity) -> None:
        self.server = server
        self._good = loader.load(directory)
        self._directory = directory
        self._command = command
        self._identity = identity

    def profile(self, template: str, schema: str | None = None) -> Profile:
        (self._directory / "user_config_template.yaml.j2").write_text(template)
        (self._directory / "user_config_schema.json").write_text(schema or "{}")
        return loader.load(self._directory)

    async def ask(self, profile: Profile, options: dict[str, Any], uid: int = 54321, **runtime: Any) -> str:
        return await self.ask_as(
            Account(f"user{uid}", uid, uid, "", "/", "/bin/sh", (uid,)), profile, options, **runtime
        )

    async def ask_as(self, account: Account, profile: Profile, options: dict[str, Any], **runtime: Any) -> str:
        texts = {"user_options": as_json(options), "user_runtime": as_json(runtime)}
        command = dataclasses.replace(self._command, **texts)
        return (await self.server.render(profile, command, self._identity, account)).read()

    async def render(self, template: str, options: dict[str, Any], schema: str | None = None, **runtime: Any) -> Any:
        """What alice's rendered YAML says."""
        return yaml.safe_load(await self.ask(self.profile(ENGINE + template, schema), options, **runtime))

    async def refusal(
        self, template: str, options: dict[str, Any], schema: str | None = None, **runtime: Any
    ) -> Refusal:
        """Why alice is refused; while that takes its time, bob is served."""
        alice = asyncio.create_task(self.render(template, options, schema, **runtime))
        await self.serves_bob()
        with pytest.raises(Refused) as caught:
            await alice
        await self.serves_bob()
        return caught.value.refusal

    async def serves_bob(self) -> None:
        assert "max_workers: 7" in await self.ask(self._good, {"WORKERS": 7}, uid=54322)

    @contextlib.asynccontextmanager
    async def busy(self, uid: int = 54321) -> AsyncIterator[tuple[int, asyncio.Task[str]]]:
        """The process id of a child that is held up by an endless loop, and the request."""
        before = self.children()
        task = asyncio.create_task(self.ask(self.profile(ENGINE + LOOP), {**ENDLESS, "MARK": MARK}, uid=uid))
        pid = await appears(lambda: self.children() - before)
        await appears(lambda: cpu_time(pid) > 0.3)  # it is in the loop by now
        try:
            yield pid, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def server_pid(self) -> int:
        assert self.server._helper.current is not None
        return self.server._helper.current.process.pid

    def children(self) -> set[int]:
        pid = self.server_pid()
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def appears(look: Callable[[], Any]) -> Any:
    """What `look` gives as soon as it gives something; of a set, one member."""
    found = await aiountil(look, "what should appear")
    return next(iter(found)) if isinstance(found, set) else found


def prefer(pid: int) -> None:
    """On a busy machine, too, its children get the processor time that they may have before their time is over."""
    os.setpriority(os.PRIO_PROCESS, pid, -15)
    group = Path(f"/proc/{pid}/autogroup")  # of its session: priorities count within that only
    if group.exists() and os.getsid(pid) == pid:
        group.write_text("-15")


def limits(pid: int) -> dict[str, tuple[str, str]]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines}


def cpu_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> bytes:
    """All of a process's own, writable memory."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as f:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            low, high = (int(part, 16) for part in span.split("-"))
            if mode.startswith("rw"):
                f.seek(low)
                found.append(f.read(high - low))
    return b"".join(found)


@pytest.fixture
def run(profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity) -> Callable[..., None]:
    """Runs a coroutine function with a Site; afterwards no process of it may be left."""

    def call(test: Callable[[Site], Awaitable[None]]) -> None:
        async def work() -> None:
            site = Site(
                Renderer(of_exactly_that_name("nobody", look_up.account("nobody"))),
                profile_directory,
                command,
                identity_of_alice,
            )
            await site.server.start()
            prefer(site.server_pid())
            try:
                await test(site)
            finally:
                left = {site.server_pid(), *site.children()} if not site.server._helper.current.lost else set()  # type: ignore[union-attr]
                await site.server.stop()
                await appears(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))

        asyncio.run(work())

    return call


@pytest.fixture
def patient(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Render servers whose children have less processor time, and all the time that a busy machine takes to give it."""
    program = folder / "patient.py"
    program.write_text(
        "from mep.processes import render_protocol\n"
        "render_protocol.CPU, render_protocol.WALL = 3, 600.0\n"
        "from mep.renderer import server\n"
        "server.main()\n"
    )
    monkeypatch.setattr(helper, "_ARGUMENTS", ("-I", str(program)))
    monkeypatch.setattr(renderer, "ANSWER_LIMIT", 600.0)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "options", "schema", "named"),
    [
        (LOOP, ENDLESS, None, "5 s of processor time"),
        ("a: {{ S }}", {"S": "a" * 40 + "!"}, BACKTRACKS, "5 s of processor time"),
        ("a: {{ 'x' * N }}", {"N": 10**9}, None, "512 MiB of memory"),
        ("a: {{ 'x' | center(N) }}", {"N": 10**9}, None, "512 MiB of memory"),
        ("a: {{ '%*d' % (N, 1) }}", {"N": 10**9}, None, "512 MiB of memory"),
        ("a: {{ [1] * N }}", {"N": 10**9}, None, "512 MiB of memory"),
        ("a: {{ N ** N ** N }}", {"N": 9**9}, None, "reason"),
        ("a: {{ 'x' * N }}", {"N": 2**20}, None, "the limit is 1048576"),
    ],
)
def test_the_limit_that_was_reached_is_named(
    patient: None, run: Any, template: str, options: dict[str, Any], schema: str | None, named: str
) -> None:
    async def test(site: Site) -> None:
        refused = await site.refusal(template, options, schema)
        assert refused.stage == "options"
        assert named in refused.reason_for_user
        assert "Your user_endpoint_config is the reason" in refused.reason_for_user

    run(test)


def test_the_limits_are_these() -> None:
    """As the messages say, whatever a test has made of them."""
    assert (render_protocol.CPU, render_protocol.WALL, render_protocol.MEMORY) == (5, 10.0, 512 * 2**20)
    assert (render_protocol.PARALLEL, MAX_OPTIONS, renderer.ANSWER_LIMIT) == (4, 2**20, 30.0)


def test_a_child_that_does_nothing_is_ended_when_its_time_is_over(run: Any) -> None:
    async def test(site: Site) -> None:
        async with site.busy() as (pid, task):
            os.kill(pid, signal.SIGSTOP)  # takes no processor time now
            await site.serves_bob()
            with pytest.raises(Refused, match="took more than 10 s"):
                await task

    run(test)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("x" * 10_000_000, "too large"),
        (nested(10_000), "nested too deeply"),
        (nested(65), "nested too deeply"),
        ([0] * 200_000, "more than 100000 values"),
        ([{"b": "x\0y"}], "user_endpoint_config.A[0].b: holds a NUL"),
        ([{"b\0": 1}], "user_endpoint_config.A[0]: a key holds a NUL"),
        ("\ud800", "user_endpoint_config.A: holds a lone surrogate (U+D800)"),
        ({"\udfff": 1}, "user_endpoint_config.A: a key holds a lone surrogate (U+DFFF)"),
        (math.nan, "user_endpoint_config.A: nan"),
        ([-math.inf], "user_endpoint_config.A[0]: -inf"),
        (2**64, "user_endpoint_config.A: an integer beyond 64 bits"),
        ([-(2**63) - 1], "an integer beyond 64 bits"),
        (10**4000, "an integer beyond 64 bits"),
    ],
    ids=range(13),
)
def test_values_that_no_configuration_has_are_refused(run: Any, value: Any, named: str) -> None:
    async def test(site: Site) -> None:
        refused = await site.refusal("a: 1", {"A": value})
        assert refused.stage == "options"
        assert named in refused.reason_for_user
        refused = await site.refusal("a: 1", {}, A=value)  # user_runtime is as much the client's
        assert named.replace("user_endpoint_config", "user_runtime") in refused.reason_for_user

    run(test)


def test_values_up_to_the_limits_are_rendered(run: Any) -> None:
    async def test(site: Site) -> None:
        options = {"A": nested(60), "B": [0] * 90_000, "C": 2**64 - 1, "D": -(2**63), "E": 1.5, "F": True}
        assert (await site.render("c: {{ C }}\nd: {{ D }}", options)).items() >= {"c": 2**64 - 1, "d": -(2**63)}.items()

    run(test)


def test_user_text_in_a_refusal_is_cut_and_printable(run: Any) -> None:
    async def test(site: Site) -> None:
        schema = '{"additionalProperties": {"type": "integer"}}'
        refused = await site.refusal("a: 1", {"\x1b[2J\n" + "k" * 9000: "\x1b]0;x\x07\u202e" + "v" * 9000}, schema)
        for text in (refused.reason_for_user, refused.reason_for_admin):
            assert text.isprintable()
            assert len(text) < 4000

    run(test)


# --- what gets into the configuration ---------------------------------------------------------------------------------

NASTY = [
    "x\nengine: {type: evil}",
    "x', injected: 1, y: '",
    'x", injected: 1, y: "',
    "x: y # z",
    "}}{% raw %}{{ 7 * 7 }}",
    "*a &b !!python/object:os.system |>",
    "\u2028\u2029\x85\x7f\x1b\ufeff",
    "\U0001f600 \u00e9 \\ \\n \\ud83d",
    "---\n...\n",
    "<<",
    "null",
]


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("a: {{ V }}", lambda t: t),
        ("a: {x: {{ V }}, y: [{{ V }}]}", lambda t: {"x": t, "y": [t]}),
        ("a: {{ V ~ '' }}", lambda t: t),
        ("a: {{ V | string }}", lambda t: t),
        ("a: [{{ L | join(', ') }}]", lambda t: [t, t]),
        ("a: [{{ ', '.join(L) }}]", lambda t: [t, t]),
        ("a: {{ '%s' % V }}", lambda t: t),
        ("a: {{ '{}'.format(V) }}", lambda t: t),
        ("a: {{ '%s' | format(V) }}", lambda t: t),
        ("a:\n{% for k, v in D.items() %}  {{ k }}: {{ v }}\n{% endfor %}", lambda t: {t: t}),
        ("a: { {% for k in D %}{{ k }}: {{ D[k] }}{% endfor %} }", lambda t: {t: t}),
        ("a: [{{ D | join(', ') }}, {{ ', '.join(D) }}]", lambda t: [t, t]),
        (
            "a: [{% for k in D %}{{ k ~ '' }}, {{ '' + k }}, {{ k + '' }}, {{ k | string }}{% endfor %}]",
            lambda t: [t] * 4,
        ),
        (
            "a: [{% for k in D %}{{ '%s' % k }}, {{ '{}'.format(k) }}, {{ '%s' | format(k) }}{% endfor %}]",
            lambda t: [t] * 3,
        ),
        ("a: [{% for k in D %}{{ '@'.replace('@', k) }}, {{ '@' | replace('@', k) }}{% endfor %}]", lambda t: [t] * 2),
        ("a: [{{ D.keys() | map('string') | join(', ') }}, {{ D | list | first }}]", lambda t: [t] * 2),
        ("a: [{% for k, v in D | dictsort %}{{ k }}, {{ v }}{% endfor %}]", lambda t: [t] * 2),
        ("a: [{% for p in D | items %}{{ p[0] }}, {{ p | last }}{% endfor %}]", lambda t: [t] * 2),
    ],
)
def test_a_string_stays_one_string_wherever_it_is_printed(run: Any, template: str, wanted: Any, text: str) -> None:
    async def test(site: Site) -> None:
        rendered = await site.render(template, {"V": text, "L": [text, text], "D": {text: text}})
        assert rendered == {"engine": {"type": "ThreadPoolEngine"}, "a": wanted(text)}

    run(test)


@pytest.mark.parametrize(
    "text", [*NASTY, "Eve\nendpoint_setup: rm -rf ~", "/home/eve\nendpoint_setup: x", "/a: b", "-"]
)
@pytest.mark.parametrize("field", ["gecos", "shell", "dir"])
def test_what_an_account_says_of_itself_stays_one_string(run: Any, field: str, text: str) -> None:
    """As the names of `local` go on: whoever may change one of them with chfn, chsh or at a directory."""

    async def test(site: Site) -> None:
        told = {"gecos": "", "home": "/home/eve", "shell": "/bin/sh"}
        told["home" if field == "dir" else field] = text
        eve = Account("eve", 54321, 54321, groups=(54321,), **told)
        places = [f"mapped_identity.local.{field}", f"_GC.mapped_identity.local.{field}"]
        places += {"gecos": [], "shell": ["_GC.env.SHELL"], "dir": ["_GC.env.HOME", "_GC.env.CWD"]}[field]
        for place in places:
            printed = f"{ENGINE}a: {{{{ {place} }}}}\nb: [{{{{ {place} ~ '' }}}}]\n"
            rendered = yaml.safe_load(await site.ask_as(eve, site.profile(printed), {}))
            assert rendered == {"engine": {"type": "ThreadPoolEngine"}, "a": text, "b": [text]}

    run(test)


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("a: {{ mapped_identity.local.dir }}/x", "/home/al.ice-1/x"),
        ("a: {{ mapped_identity.local.dir | shell_escape }}", "/home/al.ice-1"),
        ("a: echo {{ _GC.mapped_identity.local.shell }} {{ mapped_identity.local.uname }}", "echo /bin/sh alice"),
        ("a: {{ mapped_identity.local.gecos }}", "Alice Liddell, Oxford: 1"),
        ("a: {{ mapped_identity.local.gecos | shell_escape }}", "'Alice Liddell, Oxford: 1'"),
        ("a: {{ mapped_identity.local.groups }}", [54321, 100]),
        ("a: {{ mapped_identity.local.uid + 1 }}", 54322),
    ],
)
def test_templates_use_an_account_as_they_did(run: Any, template: str, wanted: Any) -> None:
    async def test(site: Site) -> None:
        home, groups = "/home/al.ice-1", (54321, 100)
        alice = Account("alice", 54321, 54321, "Alice Liddell, Oxford: 1", home, "/bin/sh", groups)
        assert yaml.safe_load(await site.ask_as(alice, site.profile(ENGINE + template), {}))["a"] == wanted

    run(test)


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("a: {{ L }}", lambda t: [f'"{t}"']),
        ("a: {{ L | string }}", lambda t: [f'"{t}"']),
        ("a: {{ D }}", lambda t: {f'"{t}"': f'"{t}"'}),
        ("a: {{ D | tojson }}", lambda t: {t: f'"{t}"'}),
        ("a: {{ L | map('shell_escape') | list }}", None),
    ],
)
def test_a_printed_list_or_object_keeps_its_shape(run: Any, template: str, wanted: Any, text: str) -> None:
    """The strings in it have their JSON quotes twice, as in the public package: only the shape counts."""

    async def test(site: Site) -> None:
        rendered = await site.render(template, {"L": [text], "D": {text: text}})
        assert rendered.keys() == {"engine", "a"}
        assert len(rendered["a"]) == 1
        if text.isascii() and text.isprintable() and "\\" not in text and '"' not in text and wanted is not None:
            assert rendered["a"] == wanted(text)

    run(test)


def test_keys_are_looked_up_and_compared_as_they_are(run: Any) -> None:
    template = (
        "a: {{ D.key }}\nb: {{ D['key'] }}\nc: {{ D.get('key') }}\nd: {{ 'key' in D }}\n"
        "e: [{% for k in D if k == 'key' and k != 'x' and k in ['key'] and 'key' == k %}"
        "{{ D[k] }}, {{ T[k] }}{% endfor %}]\n"
        "f: {{ (D | dictsort)[0][0] == 'key' }}\n"
    )

    async def test(site: Site) -> None:
        rendered = await site.render(template, {"D": {"key": "v"}, "T": {"key": 2}})
        assert {**rendered, "engine": 0} == {
            "engine": 0,
            **dict.fromkeys("abc", "v"),
            "d": True,
            "e": ["v", 2],
            "f": True,
        }

    run(test)


@pytest.mark.parametrize(
    "template",
    [
        "a: {{ S.__class__.__mro__ }}",
        "a: {{ S['__class__'] }}",
        "a: {{ S | attr('__class__') }}",
        "a: {{ ''[S2] }}",
        "a: {{ D[S2] }}",
        "a: {{ '{0.__class__.__mro__}'.format(S) }}",
        "a: {{ '{0.__class__}' | format(S) }}{{ S.format.__globals__ }}",
        "a: {{ S.format_map({'x': S}).__class__ }}",
        "a: {{ self.__init__.__globals__ }}",
        "a: {{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "a: {% for k in D %}{{ k._plain }}{% endfor %}",
        "a: {% for k in D %}{{ k.__class__.__base__ }}{% endfor %}",
        "a: {{ namespace.__init__.__globals__ }}",
        "a: {{ (1).__class__.__base__.__subclasses__() }}",
    ],
)
def test_the_sandbox_holds(run: Any, template: str) -> None:
    async def test(site: Site) -> None:
        refused = await site.refusal(template, {"S": "{0.__class__}", "S2": "__class__", "D": {"k": "v"}})
        assert refused.stage == "template"

    run(test)


def test_what_a_template_changes_is_its_own_requests(run: Any) -> None:
    template = (
        "{% set _ = D.update({S: 'x'}) %}{% set _ = _GC.env.update({'SITE': S}) %}"
        "{% set _ = _GC.parent_config.update({'display_name': S}) %}{% set _ = L.append(S) %}"
        "a: {{ D[S] }}\nb: {{ L }}\nc: [{{ _GC.env.SITE }}, {{ parent_config.display_name }}]"
    )
    plain = "a: [{{ _GC.env.SITE }}, {{ parent_config.display_name }}]"

    async def test(site: Site) -> None:
        text = "s: {{ 1 }}"
        changed = await site.render(template, {"D": {"k": "v"}, "L": [1], "S": text})
        assert changed == {**yaml.safe_load(ENGINE), "a": "x", "b": [1, as_json(text)], "c": [text, text]}  # type: ignore[arg-type]
        assert (await site.render(plain, {}))["a"] == ["here", "Prod"]

    run(test)


def test_a_format_string_from_a_user_reaches_no_attribute(run: Any) -> None:
    async def test(site: Site) -> None:
        refused = await site.refusal("a: {{ S.format(mapped_identity) }}", {"S": "{0.__class__.__mro__}"})
        assert "SecurityError" in refused.reason_for_admin

    run(test)


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_child_has_its_limits_and_no_descriptor_but_one(run: Any) -> None:
    async def test(site: Site) -> None:
        async with site.busy() as (pid, _):
            held = [os.readlink(f"/proc/{pid}/fd/{descriptor}") for descriptor in os.listdir(f"/proc/{pid}/fd")]
            assert sorted(held) == ["/memfd:answer (deleted)", *["/memfd:mep (deleted)"] * 4]
            in_force = limits(pid)
            memory_limit = str(render_protocol.MEMORY)
            assert in_force["Max cpu time"] == ("5", "6")
            assert in_force["Max address space"] == (memory_limit, memory_limit)
            assert in_force["Max file size"] == (str(4 * render_protocol.MAX_CONFIG),) * 2
            for name in ("Max processes", "Max core file size", "Max open files"):
                assert in_force[name] == ("0", "0"), name

    run(test)


def test_neither_server_nor_child_may_be_looked_into_by_their_account(patient: None, run: Any) -> None:
    """What belongs to root in /proc is closed to the process's own account: neither memory nor ptrace. And neither can
    talk to a network: the kernel asks a filter at each of its calls."""

    async def test(site: Site) -> None:
        async with site.busy() as (pid, _):
            for process in (pid, site.server_pid()):
                status = Path(f"/proc/{process}/status").read_text()
                assert f"Uid:\t{pwd.getpwnam('nobody').pw_uid}\t" in status
                assert Path(f"/proc/{process}/environ").stat().st_uid == 0
                assert "Seccomp:\t2\n" in status

    run(test)


def test_each_request_has_a_process_of_its_own_that_ends_with_it(patient: None, run: Any) -> None:
    async def test(site: Site) -> None:
        server = site.server_pid()
        async with site.busy() as (first, task):
            async with site.busy(uid=54323) as (second, _):
                assert site.children() == {first, second}
            os.kill(first, signal.SIGKILL)
            with pytest.raises(Refused, match="signal 9"):
                await task
            await site.serves_bob()
        await appears(lambda: first not in site.children())
        assert site.server_pid() == server

    run(test)


def test_nothing_of_a_request_is_in_the_server_or_in_another_child(patient: None, run: Any) -> None:
    async def test(site: Site) -> None:
        async with site.busy() as (alice, _):
            assert MARK.encode() in memory(alice)  # it can be found where it is
            task = asyncio.create_task(site.ask(site.profile(ENGINE + LOOP), {**ENDLESS, "MARK": "another"}, uid=54323))
            other = await appears(lambda: site.children() - {alice})
            await appears(lambda: b"another" in memory(other) and cpu_time(other) > 0.3)
            assert MARK.encode() not in memory(other)
            assert MARK.encode() not in memory(site.server_pid())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(test)


def test_children_end_with_the_server_and_their_requests_are_tried_again(patient: None, run: Any) -> None:
    async def test(site: Site) -> None:
        server = site.server_pid()
        async with site.busy() as (first, one), site.busy(uid=54323) as (second, two):
            os.kill(server, signal.SIGKILL)
            await appears(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (first, second)))
            await appears(lambda: site.server_pid() != server)
            prefer(site.server_pid())
            await site.serves_bob()
            for task in (one, two):  # on the new server, where they run into their limit
                with pytest.raises(Refused, match="5 s of processor time"):
                    await task

    run(test)


def test_requests_that_lose_two_servers_are_refused(patient: None, run: Any) -> None:
    async def test(site: Site) -> None:
        async with site.busy() as (_, task):
            first = site.server_pid()
            os.kill(first, signal.SIGKILL)
            await appears(lambda: site.server_pid() != first and site.children())
            os.kill(site.server_pid(), signal.SIGKILL)
            with pytest.raises(Refused, match="so did the one after it"):
                await task
        await site.serves_bob()

    run(test)


def test_a_silent_server_is_replaced(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "ANSWER_LIMIT", 1.0)

    async def test(site: Site) -> None:
        server = site.server_pid()
        os.kill(server, signal.SIGSTOP)
        await site.serves_bob()
        assert site.server_pid() != server
        await appears(lambda: not Path(f"/proc/{server}").exists())

    run(test)


def test_an_account_has_one_request_under_way_and_leaves_places_to_others(patient: None, run: Any) -> None:
    async def test(site: Site) -> None:
        async with site.busy() as (pid, _):
            busy = site.profile(ENGINE + LOOP)
            more = [asyncio.create_task(site.ask(busy, ENDLESS)) for _ in range(8)]
            for _ in range(20):
                await site.serves_bob()
                await appears(lambda: site.children() <= {pid})  # Bob's may take a moment to be gone
            for task in more:
                task.cancel()
            await asyncio.gather(*more, return_exceptions=True)

    run(test)


def test_at_most_a_few_children_run_at_once_and_the_others_are_served_in_turn(patient: None, run: Any) -> None:
    async def test(site: Site) -> None:
        busy = site.profile(ENGINE + LOOP)
        tasks = [asyncio.create_task(site.ask(busy, ENDLESS, uid=60000 + n)) for n in range(render_protocol.PARALLEL)]
        await appears(lambda: len(site.children()) == render_protocol.PARALLEL)
        waits = asyncio.create_task(site.serves_bob())
        await appears(lambda: max(map(cpu_time, site.children())) > 0.5)
        assert len(site.children()) == render_protocol.PARALLEL
        assert not waits.done()
        os.kill(min(site.children()), signal.SIGKILL)
        await waits
        for pid in site.children():
            os.kill(pid, signal.SIGKILL)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, Refused)

    run(test)


# --- answers of a child that has been taken over ----------------------------------------------------------------------

SEALS_IT = "os.write(answer, b'engine: {}'); fcntl.fcntl(answer, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)"


@pytest.mark.parametrize(
    ("does", "named"),
    [
        ("os._exit(0)", ""),
        ("os._exit(4)", "failed"),
        ("os.write(answer, b'root\\0a\\0b'); os._exit(4)", "failed"),
        ("os.write(answer, b'options\\0a'); os._exit(4)", "failed"),
        ("os.write(answer, b'x' * 2**20); os._exit(4)", "exit code 4"),
        ("os.write(answer, b'options\\0a\\0\\x1b[2J' + b'x' * 9000); os._exit(4)", "\\x1b[2J"),
        ("os.write(answer, b'engine: half of'); os.kill(os.getpid(), 11)", "signal 11"),
        ("os.write(answer, b'engine: {}'); os._exit(1)", "exit code 1"),
        (f"{SEALS_IT}; os._exit(0)", "exit code 0"),
        ("[os.write(answer, b'x' * 2**20) for _ in range(9)]", "exit code 1"),
        ("os.lseek(answer, 2**40, 0); os.write(answer, b'x')", "exit code 1"),
        ("os.ftruncate(answer, 2**40); os._exit(0)", "exit code 1"),
        ("os.close(answer); os._exit(0)", ""),
        ("os.dup(answer)", "exit code 1"),
        ("os.write(5 if answer != 5 else 6, b'x')", "exit code 1"),
    ],
)
def test_a_child_that_was_taken_over_spoils_its_own_request_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Any, does: str, named: str
) -> None:
    """It has what every child has, and does with it what it likes."""
    program = folder / "taken.py"
    program.write_text(
        "import fcntl, os\n"
        "from mep.renderer import answer as honest, server\n"
        "answers = honest.answer\n"
        "def taken(files):\n"
        "    if b'EVIL' in files[1]:\n"
        "        held = {d: f'/proc/self/fd/{d}' for d in range(99) if os.path.lexists(f'/proc/self/fd/{d}')}\n"
        "        (answer,) = [d for d, path in held.items() if 'answer' in os.readlink(path)]\n"
        f"        {does}\n"
        "    return answers(files)\n"
        "honest.answer = taken\n"
        "server.main()\n"
    )
    monkeypatch.setattr(helper, "_ARGUMENTS", ("-I", str(program)))

    async def test(site: Site) -> None:
        server = site.server_pid()
        if named:
            refused = await site.refusal("a: 1", {"EVIL": 1})
            assert refused.stage == "options"
            assert named in refused.reason_for_user
            assert len(refused.reason_for_user) < 4000
        else:  # a configuration that is none: the user endpoint of whoever asked for it says so
            assert await site.ask(site.profile(f"{ENGINE}a: 1"), {"EVIL": 1}) == ""
        await site.serves_bob()
        assert site.server_pid() == server

    run(test)
