"""The site's OpenID Connect provider, as the hub asks it: authorization code with PKCE, and proof of what comes back.

PyJWT verifies signatures and claims; it comes with the public client's package anyway. Everything that waits for the
provider does so on threads of its own: one that is slow or gone costs nobody anything who is logged in.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import http.client
import json
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import jwt

from hub.login.attempt import Attempt
from hub.login.settings import LoginConfig, is_loopback
from wire.listeners import StrangerListens, check_url

log = logging.getLogger(__name__)

T = TypeVar("T")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those with a public key: with any other the hub's own secret, or nothing, would be a signature."""
ANSWER_BYTES = 2**20
TIMEOUT = 10.0
"""Seconds for one answer."""
PATIENCE = 25.0
"""Seconds for all that is asked at a login."""
LEEWAY = 60
"""Seconds by which clocks may differ."""
KEEP = 3600.0
"""Seconds for which it is not asked again where its parts are."""
_THREADS = 4
_PARTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class ProviderDown(Exception):
    """The provider does not answer, or not as one; the text says why, for the log."""


class NotProven(Exception):
    """What came back is no proof of who somebody is; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the provider says about itself."""

    authorization: str
    token: str
    userinfo: str | None
    keys: jwt.PyJWKClient
    secret_in_form: bool
    names_itself: bool
    read_at: float


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Who it is: all claims, of which `sub` is certain, and when they proved it (seconds since the epoch)."""

    claims: Mapping[str, Any]
    authenticated_at: int


class Provider:
    """Asks one provider."""

    def __init__(self, config: LoginConfig) -> None:
        self._config = config
        context = ssl.create_default_context(cafile=config.ca)
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context), _NoRedirect()]
        if is_loopback(urlsplit(config.issuer).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="provider")
        self._parts: _Parts | None = None

    async def login_url(self, attempt: Attempt, *, again: bool) -> str:
        """Makes the address at which a browser logs in. again: even who is logged in there.

        Raises:
            ProviderDown: it does not tell where that is.
        """
        parts = await self._off_loop(self._known_parts)
        asked = {
            "client_id": self._config.client_id,
            "response_type": "code",
            "scope": " ".join(self._config.scopes),
            "redirect_uri": self._config.return_url,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
            "max_age": str(int(self._config.max_age)),
            **({"prompt": "login"} if again else {}),
        }
        return f"{parts.authorization}{'&' if '?' in parts.authorization else '?'}{urlencode(asked)}"

    async def logged_in(self, attempt: Attempt, answer: Mapping[str, str]) -> LoggedIn:
        """Finds out who has come back with `answer`, the query of the address.

        Raises:
            NotProven: it does not belong to the attempt, or proves nothing.
            ProviderDown: it cannot be asked.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise NotProven("the answer's state is not that of this browser's attempt")
        return await self._off_loop(lambda: self._logged_in(attempt, answer))

    async def _off_loop(self, ask: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, ask), PATIENCE)
        except asyncio.TimeoutError:
            raise ProviderDown(f"no answer within {PATIENCE:g} s") from None

    def _logged_in(self, attempt: Attempt, answer: Mapping[str, str]) -> LoggedIn:
        parts = self._known_parts()
        named = answer.get("iss", self._config.issuer if not parts.names_itself else None)
        if named != self._config.issuer:
            raise NotProven("the answer is another provider's")
        if "error" in answer:
            raise NotProven(f"the provider says {answer['error'][:100]!r}")
        if not answer.get("code"):
            raise NotProven("the answer has no code")
        tokens = self._tokens(parts, answer["code"], attempt.verifier)
        claims = self._proven(parts, tokens.get("id_token"), attempt.nonce)
        now = int(time.time())
        at = claims.get("auth_time")
        authenticated_at = at if type(at) is int else now  # it has to say when, but some do not
        if not now - self._config.max_age - LEEWAY < authenticated_at < now + LEEWAY:
            raise NotProven("the login at the provider is too old, or in the future")
        if parts.userinfo is not None and isinstance(tokens.get("access_token"), str):
            more = self._json(parts.userinfo, headers={"Authorization": f"Bearer {tokens['access_token']}"})
            if more.get("sub") != claims["sub"]:
                raise NotProven("the provider's userinfo is about somebody else")
            claims = {**more, **claims}
        return LoggedIn(claims, authenticated_at)

    def _tokens(self, parts: _Parts, code: str, verifier: str) -> Mapping[str, Any]:
        client, secret = self._config.client_id, self._config.client_secret
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._config.return_url,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if parts.secret_in_form:
            asked |= {"client_id": client, "client_secret": secret}
        else:
            both = f"{quote(client, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
        return self._json(parts.token, urlencode(asked).encode(), headers)

    def _proven(self, parts: _Parts, id_token: object, nonce: str) -> dict[str, Any]:
        """Verifies an ID token; returns its claims."""
        if not isinstance(id_token, str):
            raise NotProven("the provider sent no ID token")
        try:
            claims: dict[str, Any] = jwt.decode(
                id_token,
                self._key(parts, id_token),
                algorithms=list(ALGORITHMS),
                audience=self._config.client_id,
                issuer=self._config.issuer,
                leeway=LEEWAY,
                options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]},
            )
        except jwt.PyJWTError as e:
            raise NotProven(f"the ID token is not valid: {e}") from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self._config.client_id) != self._config.client_id:
            raise NotProven("the ID token was made for another client")
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise NotProven("the ID token belongs to another attempt")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise NotProven("the ID token does not say who it is about")
        return claims

    def _key(self, parts: _Parts, id_token: str) -> jwt.PyJWK:
        if "kid" in jwt.get_unverified_header(id_token):
            return parts.keys.get_signing_key_from_jwt(id_token)
        keys = parts.keys.get_signing_keys()
        if len(keys) != 1:
            raise NotProven("the ID token does not say which of the provider's keys has signed it")
        return keys[0]

    def _known_parts(self) -> _Parts:
        known = self._parts
        if known is None or time.monotonic() - known.read_at > KEEP:
            known = self._parts = self._discovered()
        return known

    def _discovered(self) -> _Parts:
        issuer = self._config.issuer
        said = self._json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if said.get("issuer") != issuer:
            raise ProviderDown(f"it is not {issuer}, but says that it is {said.get('issuer')!r}")
        urls = [said.get(part) for part in (*_PARTS, "userinfo_endpoint")]
        if not all(_is_safe(url, issuer) for url in urls[:3] + [url for url in urls[3:] if url]):
            raise ProviderDown(f"it does not say with https where to find {', '.join(_PARTS)}")
        ways = said.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return _Parts(
            authorization=str(urls[0]),
            token=str(urls[1]),
            keys=_Keys(str(urls[2]), self._json),
            userinfo=str(urls[3]) if urls[3] else None,
            secret_in_form="client_secret_basic" not in ways and "client_secret_post" in ways,
            names_itself=said.get("authorization_response_iss_parameter_supported") is True,
            read_at=time.monotonic(),
        )

    def _json(self, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """Asks the provider.

        Raises:
            NotProven: it says no (HTTP 400, 401).
            ProviderDown: it does not answer, or with something else than a JSON object.
        """
        where = urlsplit(url)._replace(query="", fragment="").geturl()
        request = urllib.request.Request(url, body, {"Accept": "application/json", **(headers or {})})  # noqa: S310
        try:
            check_url(url)
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                text = answer.read(ANSWER_BYTES + 1)
        except urllib.error.HTTPError as e:
            e.close()
            if e.code in (400, 401) and body is not None:
                raise NotProven(f"{where} refuses (HTTP {e.code})") from None
            raise ProviderDown(f"{where} answers with HTTP {e.code}") from None
        except (OSError, http.client.HTTPException, StrangerListens) as e:
            reason = getattr(e, "reason", None) or getattr(e, "strerror", None) or e
            raise ProviderDown(f"{where}: {reason}") from None
        try:
            said = json.loads(text) if len(text) <= ANSWER_BYTES else None
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise ProviderDown(f"{where} does not answer with a JSON object")
        return said


class _Keys(jwt.PyJWKClient):
    """The provider's keys, read as all else that it says; kept for some minutes, or until it signs with a new one."""

    def __init__(self, url: str, read: Callable[[str], Mapping[str, Any]]) -> None:
        super().__init__(url)
        self._read = read

    def fetch_data(self) -> Any:
        """Asks for the keys. Raises ProviderDown."""
        return self._read(self.uri)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a code, or our secret, goes nowhere but to whom it is meant for."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _is_safe(url: object, issuer: str) -> bool:
    if not isinstance(url, str):
        return False
    scheme, ours = urlsplit(url).scheme, all(is_loopback(urlsplit(each).hostname or "") for each in (url, issuer))
    return scheme == "https" or (scheme == "http" and ours)
