"""The lab's browser at the lab's provider of logins: both are real, and know each other only by what they are sent."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from lab.browser import Browser
from lab.ports import free_ports
from lab.provider import CLIENT_ID, OidcProvider, modules
from tests.conftest import need

pytestmark = pytest.mark.system


def test_a_person_logs_in_and_is_sent_back_with_a_code(tmp_path: Path, browser: Browser) -> None:
    need(modules().is_dir(), "needs a provider of logins (lab/setup browser)")
    back = f"http://localhost:{free_ports(1)[0]}/back"  # nobody listens: the address is what matters
    asked = {
        "client_id": CLIENT_ID,
        "response_type": "code",
        "scope": "openid email",
        "redirect_uri": back,
        "state": "abc",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    with OidcProvider(tmp_path / "provider", [back], {"alice": {"email": "alice@example.org"}}) as provider:
        browser.open(f"{provider.issuer}/auth?{urlencode(asked)}")
        browser.fill("Enter any login", "alice")
        browser.fill("and password", "any")
        browser.follow("Sign-in")
    answer = parse_qs(urlsplit(browser.url).query)
    assert browser.url.startswith(f"{back}?")
    assert answer["state"] == ["abc"]
    assert answer["iss"] == [provider.issuer]
    assert answer["code"]
