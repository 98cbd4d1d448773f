"""What people use on top of the SDK, and older SDKs, unmodified: on an endpoint of one's own and on a multi-user one.

Both have the default profile. Each client is in an environment of its own, with an SDK of another version.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import clients, peer
from lab.accounts import LocalAccount
from lab.client import output_of, run_script
from lab.hub import HubProcess
from lab.manager import MEP, ManagerProcess
from lab.own_manager import OwnManager
from lab.ports import free_ports
from tests.conftest import need

pytestmark = pytest.mark.system

ACCOUNT = "mepreal_alice"
SDKS = {"groundhog": "3.16.1", "psik": "4.0.0", "academy": "4.10.2", "peer": "4.19.0"}
"""The version of the SDK in each environment."""

TOUR = """
import json, sys, time
import globus_compute_sdk
from globus_compute_sdk import Client, Executor, ShellFunction
from globus_compute_sdk.errors import TaskExecutionFailed, TaskPending

def total(numbers):
    return sum(numbers)

def fail():
    raise ValueError("on purpose")

endpoint = sys.argv[1]
with Executor(endpoint_id=endpoint) as ex:
    futures = [ex.submit(total, [1, n]) for n in range(3)]
    shell = ex.submit(ShellFunction("id -un; echo {word} >&2"), word="aside").result(timeout=90)
    error = ex.submit(fail).exception(timeout=90)
    assert isinstance(error, TaskExecutionFailed), repr(error)
    submitted = [future.result(timeout=90) for future in futures]

def result_of(task):
    while True:
        try:
            return client.get_result(task)
        except TaskPending:
            time.sleep(0.2)

client = Client()
function = client.register_function(total)
ran = result_of(client.run([5, 6], endpoint_id=endpoint, function_id=function))
batch = client.create_batch()
for n in range(2):
    batch.add(function, ([n, n],))
tasks = client.batch_run(endpoint, batch)["tasks"][function]
said = {
    "version": globus_compute_sdk.__version__,
    "submitted": submitted,
    "shell": [shell.returncode, shell.stdout, shell.stderr],
    "told": "ValueError: on purpose" in str(error),
    "ran": ran,
    "batch": [result_of(task) for task in tasks],
}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    need(clients.FOLDER.is_dir(), "needs other clients: lab/setup clients")
    with LocalAccount(ACCOUNT) as account:
        yield account


@pytest.fixture(scope="module")
def variables(folder: Path, account: LocalAccount) -> dict[str, str]:
    """Those of all tasks: Parsl's programs, uv, which has no network, and where groundhog-hpc keeps environments."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "uv").symlink_to(clients.program("groundhog", "uv"))
    return {
        "PATH": f"{programs}:/usr/bin:/bin:{Path(MEP).parent}",
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(clients.WHEELS),
        "GROUNDHOG_CACHE_DIR": str(account.home),
    }


@pytest.fixture(scope="module", params=["own", "multi-user"])
def site(
    request: pytest.FixtureRequest, folder: Path, hub: HubProcess, account: LocalAccount, variables: dict[str, str]
) -> Iterator[ManagerProcess]:
    """An endpoint with the default profile, for alice."""
    if request.param == "own":
        with OwnManager(account, hub, "alice", name="mine", also=variables) as own:
            yield own
        return
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    shared = ManagerProcess(folder / "real", hub, "admin", mapping=mapping, name="real", config={"public": True})
    shared.configure()
    (shared.profile / "user_environment.yaml").write_text(yaml.safe_dump(variables))
    shared.start()
    try:
        yield shared
    finally:
        shared.stop()


@pytest.mark.parametrize(("environment", "version"), SDKS.items())
def test_a_tour_of_each_sdk(hub: HubProcess, site: ManagerProcess, environment: str, version: str) -> None:
    python = peer.program().with_name("python") if environment == "peer" else clients.python(environment)
    need(python.exists(), f"needs {python}: lab/setup peer clients")
    *_, said = output_of(hub, "alice", TOUR, site.endpoint_id, python=python).splitlines()  # 4.10.2 prints answers, too
    assert json.loads(said) == {
        "version": version,
        "submitted": [1, 2, 3],
        "shell": [0, f"{ACCOUNT}\n", "aside\n"],
        "told": True,
        "ran": 11,
        "batch": [0, 2],
    }


# A workflow of a site's own, as a task.
PARSL = """
import json, sys
from globus_compute_sdk import Executor

def workflow(first, kind):
    import importlib, os
    importlib.import_module(first)
    import parsl
    from parsl import bash_app, python_app
    from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor

    @python_app
    def double(n):
        return 2 * n

    @bash_app
    def write(n, stdout):
        return f"echo {n}"

    said = os.path.join(os.getcwd(), "said")
    pool = {"address": "127.0.0.1", "max_workers_per_node": 1}
    executor = ThreadPoolExecutor() if kind == "threads" else HighThroughputExecutor(**pool)
    with parsl.load(parsl.Config(executors=[executor], run_dir=os.path.join(os.getcwd(), "runinfo"))):
        write(double(double(3)), stdout=said).result()
    with open(said) as file:
        return file.read()

with Executor(endpoint_id=sys.argv[1]) as ex:
    print(json.dumps(ex.submit(workflow, *sys.argv[2:]).result(timeout=90)))
"""


@pytest.mark.parametrize(("first", "kind"), [("parsl.app.python", "threads"), ("parsl.app.bash", "processes")])
def test_a_workflow_of_parsl_is_a_task(hub: HubProcess, site: ManagerProcess, first: str, kind: str) -> None:
    """`first` is imported first. tests/uep/workers/test_user_modules.py has all of these, in each engine."""
    assert run_script(hub, "alice", PARSL, site.endpoint_id, first, kind) == ["12\n"]


HOG = """\
# /// script
# requires-python = ">=3.10"
# dependencies = []
#
# [tool.uv]
# python-preference = "only-system"
#
# [tool.hog.site]
# endpoint = "{endpoint}"
# worker_init = "export FROM_HEADER=1"
# ///

import groundhog_hpc as hog


@hog.function(endpoint="site")
def where(word):
    import getpass, os, sys

    return [word, getpass.getuser(), os.environ["FROM_HEADER"], "groundhog-envs" in sys.prefix]


@hog.harness()
def main():
    import json, pathlib

    first = where.remote("first")
    others = [where.submit("second"), where.submit("third")]
    pathlib.Path("said").write_text(json.dumps([first, *(other.result() for other in others)]))
"""


def test_a_function_of_groundhog(hub: HubProcess, site: ManagerProcess, tmp_path: Path) -> None:
    """It brings its options, and makes the environment for it as a task."""
    script = tmp_path / "groundhog.py"
    script.write_text(HOG.format(endpoint=site.endpoint_id))
    done = subprocess.run(
        [clients.program("groundhog", "hog"), "run", script],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8", **hub.client_environment("alice")},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "said").read_text())
    assert said == [[word, ACCOUNT, "1", True] for word in ("first", "second", "third")]


ACADEMY = """
import asyncio, json, sys
from academy.agent import Agent, action
from academy.exchange.cloud.client import spawn_http_exchange
from academy.manager import Manager
from globus_compute_sdk import Executor

class Counter(Agent):
    def __init__(self):
        super().__init__()
        self.count = 0

    @action
    async def add(self, n):
        import getpass
        self.count += n
        return self.count, getpass.getuser()

async def main():
    endpoint, port, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    with (
        spawn_http_exchange("127.0.0.1", port) as factory,
        Executor(endpoint_id=endpoint, user_endpoint_config=options) as executor,
    ):
        async with await Manager.from_exchange_factory(factory=factory, executors=executor) as manager:
            agent = await manager.launch(Counter)
            for n in (1, 2):
                said = await agent.add(n)
            await manager.shutdown(agent, blocking=True)
            print(json.dumps(said))

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_an_agent_of_academy(hub: HubProcess, site: ManagerProcess, tmp_path: Path) -> None:
    """It lives in a task, has a state, and talks to its owner meanwhile."""
    script = tmp_path / "agents.py"  # a file: the exchange is a process that reads it again
    script.write_text(ACADEMY)
    (port,) = free_ports(1)
    options = {"worker_init": f"export PYTHONPATH={clients.packages('academy')}"}
    python = clients.python("academy")
    (said,) = run_script(hub, "alice", script, site.endpoint_id, str(port), json.dumps(options), python=python)
    assert said == [3, ACCOUNT]


SERVICES = """
import json, os, sys, time
import globus_sdk
from globus_compute_sdk import Client
from globus_compute_sdk.serialize import ComputeSerializer
from globus_sdk import scopes

names = "GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"
client_id, client_secret = (os.environ[name] for name in names)
compute = Client()
wanted = [scopes.TransferScopes.all, scopes.GroupsScopes.view_my_groups_and_memberships, scopes.FlowsScopes.run_manage]
known = [scopes.TransferScopes, scopes.GroupsScopes, scopes.FlowsScopes, scopes.ComputeScopes]
config = globus_sdk.GlobusAppConfig(token_storage="memory")
app = globus_sdk.ClientApp("tool", client_id=client_id, client_secret=client_secret, config=config)
app.add_scope_requirements(
    {each.resource_server: [scope] for each, scope in zip(known, [*wanted, scopes.ComputeScopes.all])}
)
tokens = [app.get_authorizer(each.resource_server).get_authorization_header() for each in known]

old = globus_sdk.ComputeClientV2(app=app, base_url=sys.argv[2])
serializer = ComputeSerializer()
packed = serializer.pack_buffers([serializer.serialize([-7]), serializer.serialize({})])
task = [compute.register_function(abs), sys.argv[1], packed]
(submitted,) = old.submit({"tasks": [task]})["results"]
while (told := old.get_task(submitted["task_uuid"]))["status"] not in ("success", "failed"):
    time.sleep(0.2)
print(json.dumps([len(set(tokens)), serializer.deserialize(told["result"])]))
"""


def test_one_login_for_several_services_and_a_submission_of_old(hub: HubProcess, site: ManagerProcess) -> None:
    """As tools have it that also transfer files; and as clients before SDK 2.3 and flows submit."""
    assert run_script(hub, "alice", SERVICES, site.endpoint_id, hub.url) == [[4, 7]]
