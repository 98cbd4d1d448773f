"""Certificate and key for other hosts: what would not work is refused before anything is changed."""

from __future__ import annotations

import os
import pwd
import stat

import pytest

from hub import config as hub_yaml
from hub.setup import tls
from hub.setup.host import NEW_CONFIG
from hub.setup.rabbitmq import Node
from hub.setup.steps import Found, SetupFailed
from hub.setup.tls import Given
from lab.certificates import Authority
from tests.conftest import need

NAME = "hub.example.org"
CLIENT = "5d7bb7b2-3e36-4e3b-9e50-9a6bcb0c9d4b"


@pytest.fixture
def given(tmp_path):
    Authority("a site's CA").issue(NAME).write(tmp_path / "pem")
    return Given(NAME, tmp_path / "pem", tmp_path / "pem")


def test_what_other_hosts_would_refuse_is_refused_here(given, tmp_path):
    tls.check(given)
    with pytest.raises(SetupFailed, match="No such file"):
        tls.check(Given(NAME, tmp_path / "none", given.key))
    with pytest.raises(SetupFailed, match=r"would refuse it: Hostname mismatch.*elsewhere"):
        tls.check(Given("elsewhere.example.org", given.certificate, given.key))
    authority = Authority("another CA")
    authority.issue(NAME, valid_for=-1).write(tmp_path / "old")
    with pytest.raises(SetupFailed, match="would refuse it: certificate has expired"):
        tls.check(Given(NAME, tmp_path / "old", tmp_path / "old"))
    authority.issue(NAME).write(tmp_path / "other")
    (tmp_path / "key").write_text((tmp_path / "other").read_text().partition("-----END CERTIFICATE-----\n")[2])
    with pytest.raises(SetupFailed, match="not a certificate and its key"):
        tls.check(Given(NAME, given.certificate, tmp_path / "key"))


def put(folder, given, dry=False):
    return [step.found for step in tls.tell_hub(folder / "hub.yaml", given, os.geteuid(), os.getegid(), dry=dry)]


def test_hub_yaml_has_the_keys_for_other_hosts(given, tmp_path):
    path = tmp_path / "hub.yaml"
    path.write_text(NEW_CONFIG + "  # a comment\n")
    path.chmod(0o600)
    before = path.read_text()
    assert put(tmp_path, given, dry=True) == [Found.DUE] * 3
    assert path.read_text() == before
    assert put(tmp_path, given) == [Found.DUE] * 3
    assert put(tmp_path, given) == [Found.RIGHT] * 3
    assert "# a comment" in path.read_text()
    assert stat.S_IMODE((tmp_path / "mep-hub.key").stat().st_mode) == 0o600
    (tmp_path / "broker.url").write_text("amqp://hub:pw@127.0.0.1:5672/mep\n")
    (tmp_path / "broker.url").chmod(0o600)
    client = f"  - {{client_id: {CLIENT}, client_secret: s, identity: {{username: a, email: a,"
    more = f" name: a, id: {CLIENT}, identity_provider: {CLIENT}}}}}"
    path.write_text(path.read_text() + client + more)
    loaded = hub_yaml.load(path)
    assert loaded.tls is not None and loaded.tls.certificate == tmp_path / "mep-hub.pem"
    assert loaded.broker.url_for("a", "b") == f"amqps://a:b@{NAME}:5671/mep"
    path.write_text(path.read_text().replace("5671", "5672"))
    assert put(tmp_path, given) == [Found.RIGHT, Found.RIGHT, Found.EDITED]
    path.write_text("{broker: {url_file: x}, clients: []}")
    with pytest.raises(SetupFailed, match="add these by hand"):
        put(tmp_path, given)


def test_rabbitmq_can_read_them_and_nobody_else(root, given, folder):
    need("rabbitmq" in {entry.pw_name for entry in pwd.getpwall()}, "needs the package rabbitmq-server")
    home = folder / "rabbitmq"
    (home / "conf.d").mkdir(parents=True)
    node = Node(folder=home)
    assert {step.found for step in tls.configure(node, given)} == {Found.DUE}
    assert {step.found for step in tls.configure(node, given)} == {Found.RIGHT}
    info = (home / "mep-hub.key").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o640, pwd.getpwnam("rabbitmq").pw_gid)
    home.chmod(0o700)
    with pytest.raises(SetupFailed, match="RabbitMQ's account rabbitmq cannot read it"):
        list(tls.configure(node, given))


def test_the_name_is_proved_by_what_is_configured(given):
    """The lab's brokers use the same text; `tests/hub/test_forwarder.py` has results over it."""
    assert "ssl_options.verify = verify_none" in tls.configuration(given.certificate, given.key)
    assert tls.configuration(given.certificate, given.key).startswith("listeners.ssl.default = 5671\n")
