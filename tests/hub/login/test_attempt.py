"""What a browser keeps of a login that has begun: no one else can make it, and it leads nowhere but to the hub."""

from __future__ import annotations

import base64

import pytest

from hub.login import attempt


def test_an_attempt_comes_back_from_its_cookie():
    begun = attempt.begin("/v2/oauth2/authorize?scope=a%20b&state=_default")
    again = attempt.of_cookie(begun.cookie())
    assert again == begun
    assert again.state == begun.state


def test_two_attempts_share_nothing():
    one, other = attempt.begin("/"), attempt.begin("/")
    assert not {one.state, one.nonce, one.verifier} & {other.state, other.nonce, other.verifier}


@pytest.mark.parametrize(
    "then",
    [
        *("https://evil.example/", "//evil.example/", "/\\evil.example", "page", "", "javascript:alert(1)"),
        *("/a\nb", "/ä", "/" + "x" * attempt.LONGEST),
    ],
)
def test_nobody_is_sent_elsewhere_after_a_login(then):
    assert attempt.begin(then).then == "/"
    forged = base64.urlsafe_b64encode(then.encode()).decode()
    if len(then) < 100:
        assert attempt.of_cookie(f"{'x' * 43}.{forged}") is None


@pytest.mark.parametrize("value", ["", ".", "x", "x" * 43 + ".%%%", "short.Lw"])
def test_what_is_no_cookie_of_ours_is_no_attempt(value):
    assert attempt.of_cookie(value) is None
