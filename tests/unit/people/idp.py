"""An identity provider that can be told to lie; it answers over httpx's own mock transport."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from gateway.core.ports import Clock


class FakeIdp:
    """Knows one client, and whoever a test says. `claims` and `metadata` replace what it says."""

    issuer: Final = "https://idp.example"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.key: ECKey | RSAKey | OctKey = ECKey.generate_key("P-256", parameters={"kid": "1"})
        self.published = [self.key.as_dict(private=False)]
        self.alg = "ES256"
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.status = 200
        self.knows_gateway = True
        self.seen: dict[str, str] = {}

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def approve(self, url: str, user: str = "ann", **change: str) -> str:
        """Sign `user` in; return the path of the redirect back, with `change` made to it."""
        asked = dict(parse_qsl(urlsplit(url).query))
        self.seen = asked
        code = f"code-{len(self.codes)}"
        self.codes[code] = {**asked, "user": user}
        back = {"code": code, "state": asked["state"], "iss": self.issuer} | change
        target = urlsplit(asked["redirect_uri"])
        query = httpx.QueryParams({name: value for name, value in back.items() if value})
        return f"{target.path}?{query}"

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if request.url.path == "/.well-known/openid-configuration":
            return _reply(self.status, self._metadata())
        if request.url.path == "/jwks":
            return _reply(self.status, {"keys": self.published})
        if not self.knows_gateway:
            return _reply(401, {"error": "invalid_client"})
        form = dict(parse_qsl(request.content.decode()))
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or request.headers.get("authorization") is None:
            return _reply(400, {"error": "invalid_grant"})
        return _reply(200, {"id_token": self.id_token(asked), "access_token": "x"})

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def id_token(self, asked: dict[str, str]) -> str:
        now_s = self._clock.now_ns() // 1_000_000_000
        said: dict[str, Any] = {
            "iss": self.issuer,
            "aud": "gateway",
            "sub": asked["user"],
            "nonce": asked["nonce"],
            "iat": now_s,
            "exp": now_s + 300,
            "auth_time": now_s,
            "acr": "urn:password",
        }
        said = {name: value for name, value in (said | self.claims).items() if value is not None}
        header = {"alg": self.alg, "kid": "1"}
        return jwt.encode(header, said, self.key, algorithms=[self.alg])


def _reply(status: int, body: dict[str, Any]) -> httpx.Response:
    """Return an answer that is still to be read, as one off the wire is."""
    return httpx.Response(status, stream=httpx.ByteStream(json.dumps(body).encode()))
