"""docs/hub.md holds what the hub is: its example is loaded, and its ports and programs are the real ones."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from hub import commands, config, connections, guesses, registration, submission, sweeper
from hub.cli import cli
from hub.limits import Limits
from hub.routes import functions, tasks
from hub.setup import rabbitmq, tls
from hub.submission import TASK_BYTES

GUIDE = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()


def test_the_example_of_hub_yaml_is_one(tmp_path):
    (example,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    example = re.sub(r"2bb80d53\.\.\.", "'" + "ab" * 32 + "'", example).replace(
        " # or client_secret: the secret itself", ""
    )
    files = {"hub.yaml": example, "broker.url": "amqp://hub:pw@127.0.0.1:5672/mep\n", "login.secret": "s3cret\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    loaded = config.load(tmp_path / "hub.yaml")
    assert (loaded.host, loaded.port, loaded.questions) == ("localhost", 5000, config.QUESTIONS_PORT)
    assert loaded.tls == config.TlsConfig("0.0.0.0", 5443, tmp_path / "hub.pem", tmp_path / "hub.key")
    assert loaded.broker.url_for("a", "b") == "amqps://a:b@amqp.example.org:5671/mep"


def test_what_it_says_of_set_up_is_so():
    assert str(rabbitmq.Node().configuration) in GUIDE
    assert f"/{rabbitmq.VHOST}" in GUIDE
    assert all(str(path) in GUIDE for path in tls.newest(rabbitmq.Node())[:1])
    assert f"port {tls.PORT}" in GUIDE and f"port {tls.HUB_LISTEN.rpartition(':')[2]}" in GUIDE
    assert f"`max_message_size` is {rabbitmq.MOST_BYTES >> 20} MiB" in GUIDE
    assert f"at most {rabbitmq.MOST_CHANNELS} channels" in GUIDE
    assert f"{rabbitmq.MOST_CONNECTIONS:,} connections and {rabbitmq.MOST_QUEUES:,} queues" in GUIDE
    assert f"{TASK_BYTES // 2**20} MiB of code" in GUIDE


def test_the_bounds_are_the_codes():
    section = GUIDE.split("## Limits\n")[1].split("\n## ")[0]
    assert (submission.OPTIONS_BYTES, functions.DESCRIPTION_LENGTH, functions.META_BYTES) == (2**18, 2**16, 2**16)
    assert (registration.METADATA_BYTES, rabbitmq.MOST_RESULT_BYTES, rabbitmq.MOST_TASK_BYTES) == (2**20, 2**28, 2**31)
    for said in (
        f"{functions.NAME_LENGTH} characters; 64 KiB; 64 KiB",
        f"{registration.NAME_LENGTH} characters; 1 MiB; {registration.MOST_IDS} |",
        f"`batch_status` | {tasks.BATCH_LIMIT};",
        f"{guesses.MOST_OF_ONE_SOURCE} from one account of this host, or one other host; {guesses.MOST_OF_ALL} in all",
        f"{sweeper.MOST_TOKENS:,}; {commands.MOST_STARTS} |",
        f"{connections.MOST_OF_ONE_ACCOUNT}; {connections.MOST_OF_ONE_HOST} |",
        f"{connections.HEAD_TIME:g} s; {connections.BODY_TIME / 60:g} min; {connections.TAKE_TIME / 60:g} min",
    ):
        assert said in section
    assert all(f"  {each.name}: {each.default} " in f"{GUIDE} ".replace("\n", " \n") for each in fields(Limits))


def test_the_commands_are_there():
    named = set(re.findall(r"mep-hub ([a-z]+(?:-[a-z]+)*)(?=[` \n]|$)", GUIDE)) - {"mep-hub"}
    names = {command.name or command.callback.__name__.replace("_", "-") for command in cli.registered_commands}
    assert {"setup", "new-client", "serve"} <= named <= names
