"""The hub as the client of a provider: only what a provider has signed, for us and for this attempt, is believed."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from hub.login import attempt
from hub.login.attempt import Attempt
from hub.login.provider import ANSWER_BYTES, LoggedIn, NotProven, Provider, ProviderDown
from lab.ports import free_ports
from tests.hub.login.lying import CLIENT_ID, OTHER_KEY, LyingProvider

DAY = 86400


@pytest.fixture
def lying() -> Iterator[LyingProvider]:
    provider = LyingProvider()
    yield provider
    provider.close()


@pytest.fixture
def begun(lying: LyingProvider) -> Attempt:
    """An attempt, for which the provider has made its answer."""
    begun = attempt.begin("/page/")
    lying.claims["nonce"] = begun.nonce
    return begun


def come_back(lying: LyingProvider, begun: Attempt, **more: str) -> LoggedIn:
    """Asks with what a browser brings back; None leaves it out."""
    answer = {"state": begun.state, "code": "abc", "iss": lying.issuer, **more}
    provider = Provider(lying.config())
    return asyncio.run(provider.logged_in(begun, {key: value for key, value in answer.items() if value is not None}))


def test_a_browser_is_sent_with_state_nonce_and_challenge(lying, begun):
    url = asyncio.run(Provider(lying.config()).login_url(begun, again=False))
    asked = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    assert url.startswith(f"{lying.issuer}/auth?")
    assert asked == {
        "client_id": CLIENT_ID,
        "response_type": "code",
        "scope": "openid profile email",
        "redirect_uri": "http://localhost:5000/login/return",
        "state": begun.state,
        "nonce": begun.nonce,
        "code_challenge": attempt.s256(begun.verifier),
        "code_challenge_method": "S256",
        "max_age": str(30 * DAY),
    }
    assert len({begun.state, begun.nonce, begun.verifier, begun.secret}) == 4
    assert "prompt=login" in asyncio.run(Provider(lying.config()).login_url(begun, again=True))


def test_who_comes_back_is_who_the_provider_says(lying, begun):
    lying.claims["auth_time"] -= 60
    logged_in = come_back(lying, begun)
    assert logged_in.claims["sub"] == "alice-1"
    assert logged_in.claims["preferred_username"] == "alice"
    assert logged_in.authenticated_at == lying.claims["auth_time"]
    (token,) = [(form, headers) for path, form, headers in lying.asked if path == "/token"]
    assert token[0]["code_verifier"] == begun.verifier
    assert token[0]["redirect_uri"] == "http://localhost:5000/login/return"
    assert base64.b64decode(token[1]["Authorization"].removeprefix("Basic ")) == b"mep-hub:s3cr%3At"


def test_the_secret_goes_into_the_form_where_the_provider_wants_it_there(lying, begun):
    lying.discovery["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    come_back(lying, begun)
    (form,) = [form for path, form, _ in lying.asked if path == "/token"]
    assert (form["client_id"], form["client_secret"]) == (CLIENT_ID, "s3cr:t")


def test_a_key_without_a_name_is_taken_when_it_is_the_only_one(lying, begun):
    lying.headers = {}
    assert come_back(lying, begun).claims["sub"] == "alice-1"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"state": "other"}, "state"),
        ({"state": None}, "state"),
        ({"iss": "http://evil.example"}, "another provider"),
        ({"iss": None}, "another provider"),
        ({"error": "access_denied"}, "access_denied"),
        ({"code": None}, "no code"),
    ],
)
def test_an_answer_that_is_not_to_this_attempt_is_refused_before_anything_is_asked(lying, begun, more, text):
    with pytest.raises(NotProven, match=text):
        come_back(lying, begun, **more)
    assert not [path for path, _, _ in lying.asked if path == "/token"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"nonce": "other"}, "another attempt"),
        ({"nonce": None}, "nonce"),
        ({"iss": "http://evil.example"}, "issuer"),
        ({"aud": "other"}, "udience"),
        ({"aud": [CLIENT_ID, "other"]}, "another client"),
        ({"azp": "other"}, "another client"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": time.time() + DAY}, "iat"),
        ({"sub": ""}, "who it is"),
        ({"sub": "x" * 256}, "who it is"),
        ({"auth_time": int(time.time()) - 31 * DAY}, "too old"),
        ({"auth_time": int(time.time()) + DAY}, "future"),
    ],
)
def test_an_id_token_that_is_not_for_us_now_is_refused(lying, begun, change, text):
    for key, value in change.items():
        lying.claims[key] = value
        if value is None:
            del lying.claims[key]
    with pytest.raises(NotProven, match=text):
        come_back(lying, begun)


def test_an_id_token_that_somebody_else_has_signed_is_refused(lying, begun):
    lying.key = OTHER_KEY
    with pytest.raises(NotProven, match="ignature"):
        come_back(lying, begun)


def test_an_id_token_of_a_key_that_the_provider_does_not_have_is_refused(lying, begun):
    lying.key, lying.headers = OTHER_KEY, {"kid": "two"}
    with pytest.raises(NotProven, match="two"):
        come_back(lying, begun)


@pytest.mark.parametrize(("algorithm", "key"), [("none", None), ("HS256", "s3cr:t" * 8)])
def test_an_id_token_without_a_real_signature_is_refused(lying, begun, algorithm, key):
    lying.algorithm, lying.key = algorithm, key
    with pytest.raises(NotProven, match="not valid"):
        come_back(lying, begun)


def test_userinfo_about_somebody_else_is_refused(lying, begun):
    lying.userinfo["sub"] = "bob-1"
    with pytest.raises(NotProven, match="somebody else"):
        come_back(lying, begun)


def test_what_is_signed_wins_over_userinfo(lying, begun):
    lying.claims["preferred_username"] = "alice"
    lying.userinfo["preferred_username"] = "root"
    assert come_back(lying, begun).claims["preferred_username"] == "alice"


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://sso.example.org"},
        {"token_endpoint": "http://sso.example.org/token"},
        {"token_endpoint": None},
        {"jwks_uri": "ftp://127.0.0.1/jwks"},
        {"userinfo_endpoint": "http://10.0.0.1/"},
    ],
)
def test_a_provider_that_names_other_places_is_not_asked(lying, begun, change):
    lying.discovery |= change
    with pytest.raises(ProviderDown):
        come_back(lying, begun)
    assert [path for path, _, _ in lying.asked] == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("status", [302, 307, 404, 500, 503])
def test_a_provider_that_does_not_answer_is_down_and_is_not_followed(lying, begun, status):
    lying.status = status
    with pytest.raises(ProviderDown, match=f"HTTP {status}"):
        come_back(lying, begun)


@pytest.mark.parametrize("path", ["/token", "/jwks", "/userinfo"])
def test_it_is_asked_where_it_said_and_nowhere_else(lying, begun, path):
    lying.statuses[path] = 307
    with pytest.raises(ProviderDown, match="HTTP 307"):
        come_back(lying, begun)
    assert not [asked for asked, _, _ in lying.asked if asked == "/elsewhere"]


@pytest.mark.parametrize("keys", [[], {"keys": []}, {"keys": [{"kty": "RSA"}]}, {"keys": "x" * (ANSWER_BYTES + 1)}, {}])
def test_keys_that_are_none_prove_nothing(lying, begun, keys):
    lying.keys = keys
    with pytest.raises((NotProven, ProviderDown)):
        come_back(lying, begun)


def test_keys_are_asked_for_once(lying, begun):
    async def work() -> None:
        provider = Provider(lying.config())
        for _ in range(3):
            await provider.logged_in(begun, {"state": begun.state, "code": "abc", "iss": lying.issuer})

    asyncio.run(work())
    assert [path for path, _, _ in lying.asked].count("/jwks") == 1


def test_a_provider_that_is_gone_is_down_and_believed_again_when_it_is_back():
    async def work() -> None:
        begun = attempt.begin("/")
        lying = LyingProvider()
        provider = Provider(lying.config(issuer=f"http://127.0.0.1:{free_ports(1)[0]}"))
        with pytest.raises(ProviderDown, match="refused"):
            await provider.login_url(begun, again=False)
        provider = Provider(lying.config())
        lying.status = 503
        with pytest.raises(ProviderDown):
            await provider.login_url(begun, again=False)
        lying.status = 200
        assert (await provider.login_url(begun, again=False)).startswith(lying.issuer)
        lying.close()

    asyncio.run(work())


def test_a_code_that_the_provider_refuses_proves_nothing(lying, begun):
    provider = Provider(lying.config())

    async def work() -> None:
        await provider.login_url(begun, again=False)
        lying.status = 400
        await provider.logged_in(begun, {"state": begun.state, "code": "abc", "iss": lying.issuer})

    with pytest.raises(NotProven, match="HTTP 400"):
        asyncio.run(work())


def test_the_secret_is_in_no_text(lying):
    assert "s3cr" not in repr(lying.config())
