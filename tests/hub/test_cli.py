"""`mep-hub new-client`: what it prints is what hub.yaml takes. Other commands are tried elsewhere."""

from __future__ import annotations

import hashlib
import os
import uuid

import pytest
import yaml

from hub import cli
from mep import __version__


def test_a_new_client_has_an_id_a_secret_and_its_hash(monkeypatch, capsys):
    made = []
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["mep-hub", "new-client"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        made.append(yaml.safe_load(capsys.readouterr().out))
    first, second = made
    assert uuid.UUID(first["client_id"])
    assert first["client_secret_sha256"] == hashlib.sha256(first["client_secret"].encode()).hexdigest()
    assert first["client_secret"] != second["client_secret"]
    assert len(first["client_secret"]) >= 32


def test_set_up_is_roots(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mep-hub", "setup"])
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == os.EX_NOPERM
    assert "run it as root" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["serve"], ["setup"], ["new-client"], ["forward"], ["forget"]])
def test_h_is_help(monkeypatch, capsys, words):
    monkeypatch.setattr("sys.argv", ["mep-hub", *words, "-h"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert "Usage: mep-hub" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["nosuch"], ["serve"], ["serve", "--nosuch"], ["forget", "a", "b"], ["--nosuch"]], ids=str
)
def test_wrong_usage_ends_with_64_as_in_mep(monkeypatch, capsys, words):
    monkeypatch.setattr("sys.argv", ["mep-hub", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == os.EX_USAGE
    assert "Usage: mep-hub" in capsys.readouterr().err


def test_the_version(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mep-hub", "--version"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, capsys.readouterr().out) == (0, f"mep-hub {__version__}\n")
