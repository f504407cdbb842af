"""What a person grants an app in the browser: requests, redirects, choices, codes (OAuth 2.1 §4.1).

Pure rules; who signs in and what is stored is elsewhere. An app's `grants` are the most that it may
have; whatever a person chooses only narrows them (`narrow`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import SplitResult, urlencode, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.oauth import metadata as oauth
from gateway.core.oauth.apps import App
from gateway.core.tokens.grants import ANY_TOOL, EFFECTS, EffectOf
from gateway.core.tokens.token import Grant

CODE_TTL_S: Final = 60
DEADLINE_S: Final = 8 * 3_600
"""How long an authorization lives unless configured: a working day."""

_TEXT_MAX: Final = 1_024
_STATE_MAX: Final = 2_048
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{1,62}")
_NEVER: Final = frozenset(
    ("about", "blob", "data", "file", "ftp", "javascript", "vbscript", "view-source", "ws", "wss")
)

Choice = tuple[str, str]
"""A server and an effect that a person left ticked."""


class Asked(Struct, frozen=True, kw_only=True):
    """A well-formed authorization request of a known app.

    `server`: the one that `resource` names; None where it names all of them. `jkt`: thumbprint of
    the key that the code shall be bound to (`dpop_jkt`, RFC 9449 §10), or empty.
    """

    client_id: str
    redirect_uri: str
    challenge: str
    scopes: tuple[str, ...]
    resource: str
    state: str | None = None
    server: str | None = None
    jkt: str = ""


class Rejected(Struct, frozen=True):
    """A request that gets an error back at its redirect URI (RFC 6749 §4.1.2.1)."""

    redirect_uri: str
    state: str | None
    error: str
    description: str


class Unanswerable(Struct, frozen=True):
    """A request whose client or redirect URI is not known. INVARIANT: nobody is redirected."""

    description: str


class Consent(Struct, frozen=True, kw_only=True):
    """What a person granted, kept behind a code until it is redeemed. Times in epoch seconds."""

    client_id: str
    redirect_uri: str
    challenge: str
    resource: str
    scopes: tuple[str, ...]
    agent: str
    person: str
    grants: tuple[Grant, ...]
    expires_at: int
    deadline: int
    jkt: str = ""


def find_redirect(parameters: Mapping[str, Sequence[str]], app: App) -> str | Unanswerable:
    """Return where an answer may go to, or why nowhere. Nothing else of the request is read.

    An open redirector is what this stops: only a redirect URI of a known app is ever used, and it
    has to be there even where the app has only one.
    """
    given = parameters.get("redirect_uri", ())
    if len(given) != 1:
        return Unanswerable("send `redirect_uri` exactly once")
    if not any(is_same_redirect(known, given[0]) for known in app.redirect_uris):
        return Unanswerable("this `redirect_uri` is not one of the app's")
    return given[0]


def read_request(
    parameters: Mapping[str, Sequence[str]], app: App, redirect_uri: str, public_url: str
) -> Asked | Rejected:
    """Read the rest of a request whose app and redirect URI are known.

    PKCE with S256 is mandatory (OAuth 2.1 §7.6): an intercepted code is worth nothing.
    """
    one = {name: values[0] for name, values in parameters.items() if values and values[0]}
    state = one.get("state") if len(one.get("state", "")) <= _STATE_MAX else None
    fault = _find_fault(parameters, one, public_url)
    if fault is not None:
        return Rejected(redirect_uri, state, *fault)
    scopes = oauth.read_scopes(one.get("scope"))
    resource = one.get("resource", public_url + oauth.MCP_PATH)
    return Asked(
        client_id=app.id,
        redirect_uri=redirect_uri,
        challenge=one["code_challenge"],
        scopes=tuple(sorted(scopes or ())),
        resource=resource,
        state=state,
        server=oauth.server_of(resource, public_url),
        jkt=one.get("dpop_jkt", ""),
    )


def answer_url(redirect_uri: str, issuer: str, state: str | None, **members: str) -> str:
    """Build the redirect back to the app, with `iss` (RFC 9207) and the app's own `state`."""
    query = urlencode({**members, **({} if state is None else {"state": state}), "iss": issuer})
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}"


def is_same_redirect(known: str, given: str) -> bool:
    """Whether `given` is the registered URI: character by character, but for the port of loopback.

    A native app listens on whatever port is free (RFC 8252 §7.3), so that is not compared there.
    """
    if known == given:
        return True
    if len(given) > _TEXT_MAX:
        return False
    registered, asked = _split(known), _split(given)
    if registered is None or asked is None or not _is_loopback(registered):
        return False
    without_port = (registered.scheme, registered.hostname, registered.path, registered.query)
    return without_port == (asked.scheme, asked.hostname, asked.path, asked.query) and _is_plain(
        given, asked
    )


def find_redirect_fault(uri: str, *, origin: str | None = None) -> str | None:
    """Say why `uri` cannot be a redirect URI, or return None.

    `origin` is that of a client that names itself by URL: it may send people back to that origin
    or to their own machine, nowhere else. Without it any https URL will do, and a scheme of an
    app's own (RFC 8252 §7.1).
    """
    parts = _split(uri)
    if parts is None or len(uri) > _TEXT_MAX or not uri.isascii() or _has_odd(uri):
        return "is no plain absolute URL"
    if "#" in uri or parts.username is not None or parts.password is not None:
        return "has a fragment or a user"
    if parts.scheme in ("http", "https") and not _HOST.fullmatch(parts.netloc):
        return "names no host"  # nor would it do as a source of a page's security policy
    if _is_loopback(parts):
        return None if _is_plain(uri, parts) else "is no plain absolute URL"
    if origin is not None:
        same = f"{parts.scheme}://{parts.netloc}" == origin
        return None if same else "leads to another origin than its client's"
    if parts.scheme == "https":
        return None
    if parts.scheme == "http":
        return "would carry the code in the clear; use `https://`, or a loopback address"
    fine = _SCHEME.fullmatch(parts.scheme) and parts.scheme not in _NEVER
    return None if fine else "has a scheme that no app may have"


def is_verifier(verifier: str, challenge: str) -> bool:
    """Whether `verifier` is what `challenge` was made of (RFC 7636 §4.6, S256). Constant time."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    made = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return hmac.compare_digest(made, challenge.encode("utf-8", "replace"))


def narrow(
    grants: Iterable[Grant], kept: Collection[Choice], effect_of: EffectOf
) -> tuple[Grant, ...]:
    """Return `grants` without the effects, by server, that are not in `kept`.

    INVARIANT: what is returned allows no call that `grants` does not. A grant that names a tool
    stays even where nothing of it is kept, with no calls left: without it the server's wide grant
    would speak for that tool.
    """
    return tuple(one for grant in grants for one in _narrowed(grant, frozenset(kept), effect_of))


def choices(grants: Iterable[Grant], effect_of: EffectOf) -> tuple[Choice, ...]:
    """Return every (server, effect) that `grants` give, in order: what a person may untick."""
    found = {
        (grant.server, effect)
        for grant in grants
        if grant.max_calls != 0
        for effect in _effects_of(grant, effect_of)
    }
    return tuple(sorted(found, key=lambda one: (one[0], EFFECTS.index(one[1]))))


def speaker(grants: Iterable[Grant], server: str, tool: str, effect: str) -> Grant | None:
    """Return the grant that lets a tool of this effect be called, or None."""
    here = [grant for grant in grants if grant.server == server]
    named = [grant for grant in here if grant.tool == tool]
    for grant in named or [grant for grant in here if grant.tool == ANY_TOOL]:
        if effect in (grant.effects or EFFECTS) and grant.max_calls != 0:
            return grant
    return None


def of_server(grants: Iterable[Grant], server: str | None) -> tuple[Grant, ...]:
    """Return the grants of one server; all where None is named."""
    return tuple(grant for grant in grants if server in (None, grant.server))


def _narrowed(grant: Grant, kept: frozenset[Choice], effect_of: EffectOf) -> Iterable[Grant]:
    effects = _effects_of(grant, effect_of)
    left = tuple(effect for effect in effects if (grant.server, effect) in kept)
    if grant.tool == ANY_TOOL:
        if left:
            yield replace(grant, effects=left)
    elif left:
        yield grant if grant.effects == () and left == effects else replace(grant, effects=left)
    else:
        yield replace(grant, max_calls=0)


def _effects_of(grant: Grant, effect_of: EffectOf) -> tuple[str, ...]:
    """What a grant lets tools do. Of one tool only what it does, if that is known."""
    given = tuple(effect for effect in EFFECTS if effect in (grant.effects or EFFECTS))
    known = None if grant.tool == ANY_TOOL else effect_of(grant.server, grant.tool)
    return given if known is None else tuple(effect for effect in given if effect == known)


def _find_fault(
    parameters: Mapping[str, Sequence[str]], one: Mapping[str, str], public_url: str
) -> tuple[str, str] | None:
    # 1. Parameters that two parsers may read differently (RFC 6749 §3.1).
    twice = next((name for name, values in parameters.items() if len(values) > 1), None)
    if twice is not None:
        return "invalid_request", f"`{twice[:32]}` is given twice"
    if len(one.get("state", "")) > _STATE_MAX:
        return "invalid_request", "`state` is too long"
    if "request" in one or "request_uri" in one:
        return "request_not_supported", "send the parameters themselves"
    if one.get("response_type") != "code":
        kind = "unsupported_response_type" if "response_type" in one else "invalid_request"
        return kind, "send `response_type=code`"
    if one.get("response_mode", "query") != "query":
        return "invalid_request", "the response mode is `query`"
    # 2. Codes that whoever intercepts them could use.
    method = one.get("code_challenge_method")
    if method != "S256" or not _CHALLENGE.fullmatch(one.get("code_challenge", "")):
        return "invalid_request", "send a `code_challenge` with the method `S256`"
    return _find_excess(one, public_url)


def _find_excess(one: Mapping[str, str], public_url: str) -> tuple[str, str] | None:
    """Say what a readable request asks for that nobody gets, or return None."""
    if oauth.read_scopes(one.get("scope")) is None:
        return "invalid_scope", f"the scopes are `{oauth.ALL_SCOPES}`"
    if "resource" in one and not oauth.is_resource(one["resource"], public_url):
        return "invalid_target", f"the resource is `{public_url}{oauth.MCP_PATH}`"
    if "authorization_details" in one:
        return "invalid_authorization_details", "the person chooses them on the page of consent"
    if "dpop_jkt" in one and not _CHALLENGE.fullmatch(one["dpop_jkt"]):
        return "invalid_request", "`dpop_jkt` is the SHA-256 thumbprint of a key"
    if one.get("prompt") == "none":
        return "interaction_required", "a person is always asked"
    return None


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port  # raises for one that cannot be
    except ValueError:
        return None
    return parts if parts.scheme else None


def _is_loopback(parts: SplitResult) -> bool:
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def _is_plain(uri: str, parts: SplitResult) -> bool:
    """Whether a loopback URI is written in the one way that no two parsers read differently."""
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    query = f"?{parts.query}" if parts.query else ""
    return uri == f"{parts.scheme}://{shown}{port}{parts.path}{query}" and not _has_odd(uri)


def _has_odd(uri: str) -> bool:
    return any(c in '\\"<>^`{|}' or not "!" <= c <= "~" for c in uri)


class Code(Struct, frozen=True, kw_only=True):
    """A code as it is stored. `run_id`: the run that it became, empty until it is redeemed."""

    code_hash: str
    consent: Consent
    run_id: str = ""


class Refresh(Struct, frozen=True, kw_only=True):
    """A refresh token as it is stored. `jkt`: the key that its holder must prove, or empty.

    `issued_us`, in µs, is not before the record of the access token that it came with.

    `spent`: it was used, and another took its place. Whoever brings it again has stolen it, or had
    it stolen, so its run ends.
    """

    token_hash: str
    run_id: str
    client_id: str
    scopes: tuple[str, ...]
    resource: str
    expires_at: int
    jkt: str = ""
    spent: bool = False
    issued_us: int = 0


class AuthorizationStore(Protocol):
    """Durable codes, refresh tokens and registered apps; secrets only as their hashes.

    Raises `CountersignError` `state_unavailable`.
    """

    async def put_code(self, code: Code) -> None:
        """Store a new code, and forget what is long over."""
        ...

    async def get_code(self, code_hash: str) -> Code | None:
        """Return a code, redeemed or not."""
        ...

    async def redeem_code(self, code_hash: str, run_id: str) -> bool:
        """Mark a code as redeemed by a run; of all who try, at any time, one gets True."""
        ...

    async def put_refresh(self, refresh: Refresh) -> None:
        """Store a new refresh token."""
        ...

    async def get_refresh(self, token_hash: str) -> Refresh | None:
        """Return a refresh token, spent or not."""
        ...

    async def rotate_refresh(self, token_hash: str, successor: Refresh) -> bool:
        """Spend a refresh token and store its successor, both or neither; True for one alone."""
        ...

    async def put_app(self, app: App, *, at: int, most: int) -> bool:
        """Store an app that registered itself; False if there are `most` already."""
        ...

    async def find_apps(self) -> list[App]:
        """Return the apps that registered themselves."""
        ...
