"""Every option of the public package's engines, and every part of Parsl that it can name, found out by asking it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from lab import peer
from tests.conftest import need
from uep import config
from uep.config import ConfigError
from uep.engines.base import Engine, EngineContext
from uep.engines.htex.scaling import strategy_of
from uep.engines.registry import make_engine

# Parsl's functions that look for addresses leave their sockets to the garbage collector.
pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]

ENGINES = ("ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine", "GlobusMPIEngine")
PROVIDER = {"type": "LocalProvider", "launcher": {"type": "SimpleLauncher"}}
EXAMPLES: Mapping[str, Any] = {
    "address": {"type": "address_by_interface", "ifname": "lo"},
    "container_type": "apptainer",
    "container_uri": None,  # tried with container_type
    "initargs": None,
    "interchange_launch_cmd": None,  # theirs and ours start their own, whatever it says
    "job_status_kwargs": {"strategy": "none", "max_idletime": 60, "strategy_period": 1},
    "launcher": {"type": "SimpleLauncher"},
    "max_tasks_per_child": 2,
    "max_workers": 2,
    "strategy": "htex_auto_scale",
}
"""Values for options of which annotations and defaults do not say enough."""
FOR_PYTHON_ONLY = {"executor", "initializer", "initargs", "mp_context", "storage_access", "manager_selector"} | {
    "remote_monitoring_radio"
}
WITH: Mapping[str, Mapping[str, Any]] = {"container_type": {"container_uri": "image.sif"}}
"""What an option needs besides."""


@lru_cache
def public() -> Any:
    """What the public package says it takes."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    script = Path(__file__).parent / "peer_options.py"
    command = [peer.program().parent / "python", "-I", script]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def build(mapping: Mapping[str, Any], directory: Path) -> Any:
    """The engine's executor, not started; the pools are their own."""
    engine = make_engine(mapping, EngineContext("11111111-2222-3333-4444-555555555555", directory))
    return made(engine) if hasattr(engine, "_make_executor") else engine


def made(engine: Engine) -> Any:
    strategy_of(engine._options)
    return engine._make_executor()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ENGINES)
def test_every_option_of_the_public_engines(name: str, tmp_path: Path) -> None:
    options = public()["engines"][name]
    assert len(options) >= 7
    mapping: dict[str, Any] = {"type": name}
    if "provider" in options:
        mapping["provider"] = PROVIDER
    for option, found in options.items():
        if option in FOR_PYTHON_ONLY:
            with pytest.raises(ConfigError, match=rf"{name}\.{option}: (?!.*unknown)"):
                build({**mapping, option: "text"}, tmp_path)
        else:
            value = EXAMPLES.get(option, found)
            assert value is not None or option in EXAMPLES, option
            build({**mapping, **WITH.get(option, {}), option: value}, tmp_path)
    assert set(FOR_PYTHON_ONLY) & set(options) <= {option for option, found in options.items() if found in (None, [])}


def test_every_provider_with_every_option(tmp_path: Path) -> None:
    providers = public()["providers"]
    assert len(providers) >= 11
    for name, options in providers.items():
        values = {key: EXAMPLES.get(key, value) for key, value in options.items()}
        mapping = {"type": "GlobusComputeEngine", "provider": {"type": name, **values}}
        if (fate := public()["fates"][name]) is None:
            assert type(build(mapping, tmp_path).provider).__name__ == name
        else:  # clouds need packages of their own, here as there
            with pytest.raises(ConfigError) as caught:
                build(mapping, tmp_path)
            assert str(caught.value) == f"{name}: {fate}"
    assert list(public()["fates"].values()).count(None) >= 7


def test_every_launcher_with_every_option(tmp_path: Path) -> None:
    launchers = public()["launchers"]
    assert len(launchers) >= 10
    for name, options in launchers.items():
        provider = {"type": "SlurmProvider", "launcher": {"type": name, **options}}
        executor = build({"type": "GlobusComputeEngine", "provider": provider}, tmp_path)
        assert type(executor.provider.launcher).__name__ == name


def test_every_way_to_find_an_address(tmp_path: Path) -> None:
    addresses = public()["addresses"]
    assert len(addresses) >= 5
    for name, options in addresses.items():
        values = {**options, **({"ifname": "lo"} if "ifname" in options else {})}
        try:
            executor = build({"type": "GlobusComputeEngine", "address": {"type": name, **values}}, tmp_path)
        except ConfigError as e:  # what it is worth depends on the machine's network
            assert str(e).startswith(f"{name}: ")
        else:
            assert executor.address
    with pytest.raises(ConfigError, match=r"address type 'eth0'.*known: address_by_hostname.*get_any_address"):
        build({"type": "GlobusComputeEngine", "address": {"type": "eth0"}}, tmp_path)


LOCAL = {"type": "LocalProvider"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_workers_per_node": "four"}, "max_workers_per_node: expected a whole number, got 'four'"),
        ({"max_workers_per_node": True}, "max_workers_per_node: expected a whole number, got True"),
        ({"encrypted": "yes"}, "encrypted: expected true or false, got 'yes'"),
        ({"cores_per_worker": "1"}, "cores_per_worker: expected a number, got '1'"),
        (
            {"available_accelerators": [0, 1]},
            r"available_accelerators: expected a whole number or a list, got \[0, 1\]",
        ),
        ({"worker_port_range": 54000}, "worker_port_range: expected a list, got 54000"),
        ({"worker_port_range": [54000]}, r"worker_port_range: expected a list, got \(54000,\)"),
        ({"manager_selector": "random"}, "manager_selector: expected ManagerSelector, got 'random'"),
        ({"mpi_launcher": "srun"}, "mpi_launcher: MPI needs GlobusMPIEngine"),
        ({"executor": {"type": "HighThroughputExecutor"}}, "options of the executor belong directly under engine"),
        ({"strategy": {"type": "FastStrategy"}}, "strategy: unknown type 'FastStrategy'.*known: SimpleStrategy"),
        (
            {"strategy": {"type": "SimpleStrategy", "max_idle": 3}},
            "unknown option 'max_idle', did you mean 'max_idletime'",
        ),
        (
            {"job_status_kwargs": {"max_idletime": "1m"}},
            "job_status_kwargs.max_idletime: expected a whole number or a n",
        ),
        ({"provider": {**LOCAL, "nodes_per_block": "two"}}, "LocalProvider.nodes_per_block: expected a whole number"),
        ({"provider": {**LOCAL, "max_blocks": 1.5}}, "LocalProvider.max_blocks: expected a whole number, got 1.5"),
        ({"provider": {**LOCAL, "parallelism": "all"}}, "LocalProvider.parallelism: expected a number, got 'all'"),
        (
            {"provider": {"type": "PBSProProvider", "walltime": "tomorrow"}},
            "walltime: expected a time, as 'HH:MM:SS' or 'D-HH:MM:SS', got 'tomorrow'",
        ),
        ({"provider": {"type": "SlurmProvider", "walltime": "UNLIMITED"}}, "walltime: expected a time"),
        ({"provider": {"type": "SlurmProvider", "walltime": "00:00:30"}}, "less than a minute"),
        ({"worker_patience": 0}, "worker_patience: expected a number of seconds, got 0"),
        ({"submit_patience": "long"}, "submit_patience: expected a whole number or a number, got 'long'"),
        (
            {"provider": {"type": "PBSProProvider", "walltime": 30}},
            "walltime: expected text, got 30; write it in quotes",
        ),
        ({"provider": {"type": "SlurmProvider", "exclusive": "no"}}, "SlurmProvider.exclusive: expected true or false"),
        ({"provider": {"type": "SlurmProvider", "account": 7}}, "SlurmProvider.account: expected text, got 7"),
        ({"provider": {"type": "AWSProvider"}}, "AWSProvider: needs image_id and key_name"),
        ({"provider": {**LOCAL, "launcher": {"type": "WrappedLauncher"}}}, "WrappedLauncher: needs prepend"),
        (
            {"provider": {**LOCAL, "launcher": {"type": "SrunLauncher", "overrides": 3}}},
            "overrides: expected text, got 3",
        ),
        ({"provider": {**LOCAL, "launcher": "SrunLauncher"}}, "launcher: expected a mapping with a 'type'"),
    ],
)
def test_wrong_values_say_what_is_expected(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        build({"type": "GlobusComputeEngine", **options}, tmp_path)


def test_an_engine_of_earlier_years() -> None:
    with pytest.raises(ConfigError, match=r"'HighThroughputEngine'.*was replaced by GlobusComputeEngine"):
        make_engine({"type": "HighThroughputEngine"}, EngineContext("x", Path()))


def test_mpi_needs_a_launcher_that_leaves_the_nodes_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GlobusMPIEngine: .*SimpleLauncher"):
        build({"type": "GlobusMPIEngine", "provider": {"type": "LocalProvider"}}, tmp_path)
    with pytest.raises(ConfigError, match="mpi_launcher set to:mpirun"):
        build({"type": "GlobusMPIEngine", "mpi_launcher": "mpirun", "provider": PROVIDER}, tmp_path)


def test_values_that_yaml_has_no_word_for(tmp_path: Path) -> None:
    """A time is read as a number in base 60, and there are no tuples."""
    text = "engine: {type: GlobusComputeEngine, worker_port_range: [50000, 50010], provider: {type: %s, walltime: %s}}"
    for provider, written, meant in (
        ("PBSProProvider", "1:00:00", "01:00:00"),
        ("SlurmProvider", "10:30:05", "10:30:05"),
        ("SlurmProvider", "2-00:00:00", "48:00:00"),
        ("SlurmProvider", "1-12", "36:00:00"),
        ("SlurmProvider", "1-12:30", "36:30:00"),
        ("SlurmProvider", "'90'", "01:30:00"),
        ("SlurmProvider", "'90:30'", "01:30:30"),
        ("LSFProvider", "'2:30'", "02:30:00"),
        ("PBSProProvider", "'3600'", "01:00:00"),
        ("GridEngineProvider", "1-00:00:00", "24:00:00"),
        ("SlurmProvider", "00:30:00", "00:30:00"),
    ):
        executor = build(config.parse(text % (provider, written)).engine, tmp_path)
        assert executor.provider.walltime == meant
        assert executor.worker_port_range == (50000, 50010)


SITES = {
    "a GPU machine with PBS, older words": """
engine:
  type: GlobusComputeEngine
  address: {type: address_by_interface, ifname: lo}
  strategy: {type: SimpleStrategy, max_idletime: 45}
  available_accelerators: 4
  cpu_affinity: "list:0-7:8-15:16-23:24-31"
  max_workers_per_node: 4
  max_retries_on_system_failure: 2
  provider:
    type: PBSProProvider
    account: physics
    queue: debug
    cpus_per_node: 64
    select_options: ngpus=4
    scheduler_options: "#PBS -l filesystems=home"
    walltime: 1:00:00
    launcher: {type: MpiExecLauncher, bind_cmd: --cpu-bind, overrides: --ppn 1}
""",
    "Slurm with srun": """
amqp_port: 443
engine:
  type: GlobusComputeEngine
  label: Cluster@Site
  worker_debug: false
  address: {type: address_by_interface, ifname: lo}
  provider:
    type: SlurmProvider
    partition: cpu
    account: abc123
    mem_per_node: 128
    cmd_timeout: 120
    nodes_per_block: 2
    init_blocks: 0
    walltime: 00:10:00
    scheduler_options: "#SBATCH --constraint=gpu"
    launcher: {type: SrunLauncher, overrides: -c 128}
""",
    "Slurm with containers": """
engine:
  type: GlobusComputeEngine
  container_type: apptainer
  container_uri: /images/worker.sif
  container_cmd_options: -H /home/$USER
  provider: {type: SlurmProvider, partition: cpu, launcher: {type: SrunLauncher}}
""",
    "MPI on Slurm": """
engine:
  type: GlobusMPIEngine
  mpi_launcher: srun
  max_workers_per_block: 2
  provider: {type: SlurmProvider, partition: cpu, nodes_per_block: 4, launcher: {type: SimpleLauncher}}
""",
    "a pool of machines without a shared file system": """
engine:
  type: GlobusComputeEngine
  worker_logdir_root: /tmp/logs
  working_dir: /tmp/tasks
  encrypted: false
  provider: {type: CondorProvider, scheduler_options: "+ProjectName = x", init_blocks: 1, max_blocks: 1}
""",
    "LSF": "engine: {type: GlobusComputeEngine, provider: {type: LSFProvider, launcher: {type: JsrunLauncher}}}",
    "Cray": "engine: {type: GlobusComputeEngine, provider: {type: TorqueProvider, launcher: {type: AprunLauncher}}}",
    "GridEngine": "engine: {type: GlobusComputeEngine, provider: {type: GridEngineProvider, queue: long}}",
}


@pytest.mark.parametrize("text", SITES.values(), ids=SITES)
def test_configurations_as_sites_have_them(text: str, tmp_path: Path) -> None:
    wanted = config.parse(text).engine
    executor = build(wanted, tmp_path)
    assert type(executor.provider).__name__ == wanted["provider"]["type"]
    assert executor.launch_cmd.count("{") == executor.launch_cmd.count("}") > 10


def test_a_strategy_of_earlier_years_keeps_its_meaning(tmp_path: Path) -> None:
    engine = make_engine(
        config.parse(SITES["a GPU machine with PBS, older words"]).engine, EngineContext("x", tmp_path)
    )
    strategy = strategy_of(engine._options)
    assert strategy == {"strategy": "simple", "max_idletime": 45, "strategy_period": 5.0}
