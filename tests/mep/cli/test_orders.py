"""What the commands of orders say before a manager is asked, and of whom."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from mep.cli import orders
from mep.daemon.failed import Failed


@pytest.mark.parametrize("given", ["root", "", "a b", "1000", "../etc"])
def test_who_can_have_no_user_endpoint_is_not_banned(given: str) -> None:
    with pytest.raises(Failed, match="can have no user endpoint; say an account") as caught:
        orders.ban("prod", given)
    assert caught.value.exit_code == os.EX_USAGE


def test_a_drain_says_why() -> None:
    with pytest.raises(Failed, match="--reason: say why"):
        orders.drain("prod")


@pytest.mark.parametrize(("given", "unknown"), [("nobody", False), ("NoBodyKnows", True), ("a@example.org", False)])
def test_an_account_is_looked_up_as_it_was_written(
    given: str, unknown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(orders, "_order", lambda *_, **__: SimpleNamespace(done={}))
    orders.ban("prod", given)
    said = capsys.readouterr().out
    assert f"{given.lower()} is banned from endpoint prod." in said
    assert (f"note: this system knows no account {given} now." in said) is unknown
