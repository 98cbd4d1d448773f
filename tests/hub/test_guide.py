"""docs/hub.md holds what the hub is: its example is loaded, and its ports and programs are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

from hub import config
from hub.amqp import setup
from hub.cli import broker_setup
from hub.submission import TASK_BYTES

GUIDE = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()


def test_the_example_of_hub_yaml_is_one(tmp_path):
    (example,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    example = re.sub(r"2bb80d53\.\.\.", "'" + "ab" * 32 + "'", example).replace(
        " # or client_secret: the secret itself", ""
    )
    for name, text in (("hub.yaml", example), ("broker.url", "amqp://hub:pw@127.0.0.1:5672/mep\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    loaded = config.load(tmp_path / "hub.yaml")
    assert (loaded.host, loaded.port, loaded.questions) == ("localhost", 5000, config.QUESTIONS_PORT)
    assert loaded.broker.url_for("a", "b") == "amqps://a:b@amqp.example.org:5671/mep"


def test_rabbitmq_asks_where_the_hub_answers():
    asked = re.findall(r"^auth_http\.\w+_path +=? ?= http://127\.0\.0\.1:(\d+)/broker/(\w+)$", GUIDE, re.MULTILINE)
    assert {int(port) for port, _ in asked} == {config.QUESTIONS_PORT}
    assert {question for _, question in asked} == {"user", "vhost", "resource", "topic"}


def test_the_commands_are_there():
    (options,) = re.findall(r"^mep-hub broker-setup (.*)$", GUIDE, re.MULTILINE)
    asked = {word[2:].replace("-", "_") for word in options.split() if word.startswith("--")}
    assert asked <= set(broker_setup.__annotations__)
    assert f"/{setup.VHOST}" in GUIDE
    assert f"{TASK_BYTES // 2**20} MiB of code" in GUIDE
