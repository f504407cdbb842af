"""What no single key can tell: keys that contradict each other, and choices that are not safe."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import msgspec

from connectors import auth_binding
from connectors.auth_binding import UpstreamAuth
from gateway.adapters.keys.jose_assertions import find_key_set_fault, load_key_set
from gateway.adapters.opa.opa_endpoint import read_endpoint
from gateway.config.app_checks import find_app_faults, find_oauth_faults
from gateway.config.apps import AppSection
from gateway.config.base import GrantSection
from gateway.config.file import KeyPath
from gateway.config.key_checks import find_key_faults
from gateway.config.models import (
    AgentSection,
    AuthSection,
    ConfigShape,
    HttpServerSection,
    LauncherSection,
    S3AnchorSection,
)
from gateway.core.approvals.approval import person
from gateway.core.errors import ConfigurationError
from gateway.core.limits import Limits
from gateway.core.log.chain import RECORD_MAX_BYTES
from gateway.core.log.cosignature import parse_witness_vkey
from gateway.core.people.registry import ROLES
from gateway.core.tokens.grants import find_ambiguity, find_fault
from gateway.core.tokens.token import Grant

Finding = tuple[KeyPath, str, str]
"""Path, message, hint."""

SET_ELSEWHERE: Final = {
    "policy_deadline_ms": "policy.deadline_ms",
    "access_token_max_s": "tokens.ttl_s",
}
LIMIT_NAMES: Final = tuple(n for n in Limits.__struct_fields__ if n not in SET_ELSEWHERE)

NEVER_ZERO: Final = (
    "body_max_bytes",
    "arguments_max_bytes",
    "json_max_depth",
    "result_max_bytes",
    "upstream_timeout_ms",
    "audit_wait_ms",
    "audit_queue_max",
    "record_max_bytes",
)
AT_MOST: Final = {"record_max_bytes": RECORD_MAX_BYTES}
_SQLITE: Final = re.compile(r"sqlite://(/.*[^/])?")
_DEV_HINT: Final = "or set `dev: true` on a machine of your own"


class Known(NamedTuple):
    """Ids as written, valid or not: a mistake in a client is no second one where it is named."""

    agents: frozenset[str]
    servers: frozenset[str]


def find_contradictions(config: ConfigShape, known: Known) -> Iterator[Finding]:
    """Yield every mistake that `config` has although each of its keys is well-formed."""
    yield from _check_addresses(config)
    yield from _check_storage(config)
    yield from _check_identities(config)
    yield from _check_groups(config)
    yield from _check_limits(config)
    yield from _check_witnesses(config)
    yield from _check_anchors(config)
    yield from _check_sign_in(config)
    yield from _check_vault(config)
    yield from _check_trusted(config)
    yield from _check_outlets(config)
    yield from find_key_faults(config)
    for number, client in enumerate(config.clients):
        path = ("clients", number)
        yield from _check_grants(client.grants, (*path, "grants"), known)
        if isinstance(client, AppSection):
            yield from find_app_faults(client, path, known.agents)
            continue
        yield from _check_keys(client, path)
        if isinstance(client, AgentSection):
            yield from _check_baseline(client, path, dev=config.dev)
            yield from _check_edges(client, path, known)
        else:
            yield from _check_launcher(client, path, known)
    documents = config.oauth.client_id_metadata_documents
    place = ("oauth", "client_id_metadata_documents", "grants")
    yield from _check_grants(documents.grants, place, known)
    yield from find_oauth_faults(config.oauth, known.agents)
    for name, server in config.servers.items():
        if isinstance(server, HttpServerSection):
            yield from _check_upstream(server.url, ("servers", name, "url"), dev=config.dev)
        yield from _check_auth(server.auth, ("servers", name, "auth"))
        if not _answers(server.manifest.is_file):
            message = f"`{server.manifest}` is no file"
            yield ("servers", name, "manifest"), message, "write the manifest, or mend the path"


def build_grant(section: GrantSection) -> Grant:
    """Return the grant that a section describes."""
    return msgspec.convert(section.model_dump(exclude_none=True), Grant)


def suggest(word: str, known: Iterator[str] | tuple[str, ...] | frozenset[str]) -> str:
    """Return a hint towards the nearest of `known`."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known are {', '.join(names)}" if names else "there are none yet"


def split_listen(text: str) -> tuple[str, int] | None:
    """`127.0.0.1:8080` → (`127.0.0.1`, 8080); None for what is no `host:port`."""
    host, colon, port = text.rpartition(":")
    is_bare = not (host.startswith("[") and host.endswith("]"))
    host = host if is_bare else host[1:-1]
    if (":" in host) == is_bare or not host.isprintable() or " " in host:
        return None
    if not colon or not host or not (port.isascii() and port.isdigit()) or len(port) > 5:  # noqa: PLR2004 - 65535
        return None
    return (host, int(port)) if int(port) <= 65_535 else None  # noqa: PLR2004 - the last port


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_addresses(config: ConfigShape) -> Iterator[Finding]:
    listen = split_listen(config.listen)
    if listen is None:
        hint = "write `host:port`, or `[host]:port` for IPv6"
        yield ("listen",), f"`{config.listen}` is no address", hint
    public = _split_url(config.public_url)
    if config.public_url != f"http://{config.listen}":  # else it only repeats `listen`
        yield from _check_public_url(config, public)
    if config.tokens.issuer != config.public_url and _split_url(config.tokens.issuer) is None:
        yield ("tokens", "issuer"), "is no URL", "write `https://host`, or leave it out"
    if listen is None or is_loopback(listen[0]):
        return
    if config.dev:
        hint = "listen on 127.0.0.1, or remove `dev: true`"
        yield ("listen",), "`dev: true` is for this machine only", hint
    elif public is not None and public.scheme != "https":
        hint = "set `public_url: https://…` of the proxy in front, or listen on 127.0.0.1"
        yield ("listen",), "others could reach the gateway without TLS", hint


def _check_public_url(config: ConfigShape, public: SplitResult | None) -> Iterator[Finding]:
    if public is None or public.path or public.query:
        hint = "write `https://host`, with a port if needed, and no path"
        yield ("public_url",), "is no URL of a host", hint
    elif public.scheme == "http" and not is_loopback(public.hostname or "") and not config.dev:
        message = "tokens would cross the network in the clear"
        yield ("public_url",), message, f"use `https://`, {_DEV_HINT}"


def _check_upstream(url: str, path: KeyPath, *, dev: bool) -> Iterator[Finding]:
    yield from _check_url(url, path, "mcp", "arguments and credentials", dev=dev)


def _check_auth(section: AuthSection | None, path: KeyPath) -> Iterator[Finding]:
    if section is None:
        return
    fault = auth_binding.find_fault(UpstreamAuth(**section.model_dump()), section.model_fields_set)
    if fault is not None:
        yield (*path, fault[0]), fault[1], "see docs/credentials.md"


def _check_vault(config: ConfigShape) -> Iterator[Finding]:
    vault = config.credentials.vault
    if vault.address:
        path = ("credentials", "vault", "address")
        yield from _check_url(vault.address, path, "", "secrets", dev=config.dev)


def _check_url(
    url: str, path: KeyPath, page: str, what_crosses: str, *, dev: bool
) -> Iterator[Finding]:
    parts = _split_url(url)
    if parts is None:
        yield path, "is no URL without user and fragment", f"write `https://host/{page}`"
    elif parts.scheme == "http" and not is_loopback(parts.hostname or "") and not dev:
        message = f"{what_crosses} would cross the network in the clear"
        yield path, message, f"use `https://`, {_DEV_HINT}"


def _split_url(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for one that cannot be
    except ValueError:
        return None
    seen = text.isprintable() and " " not in text
    fine = parts.scheme in ("http", "https") and bool(parts.hostname) and seen
    return parts if fine and not (parts.username or parts.password or parts.fragment) else None


def _answers(is_there: Callable[[], bool]) -> bool:
    """Whether something is there; what cannot be asked, in a closed folder, is not."""
    try:
        return is_there()
    except OSError:
        return False


def _check_storage(config: ConfigShape) -> Iterator[Finding]:
    if not _answers(config.policy.path.is_dir):
        message = f"`{config.policy.path}` is no folder"
        yield ("policy", "path"), message, "`countersign init` writes a first set of policies"
    yield from _check_engine(config)
    if not _SQLITE.fullmatch(config.state.url):
        yield ("state", "url"), "only SQLite is supported", "write `sqlite:///path`"
    elif config.state.url in ("sqlite://", "sqlite:///:memory:") and not config.dev:
        message = "held calls and spent budgets would be forgotten at a restart"
        yield ("state", "url"), message, f"name a file, {_DEV_HINT}"


def _check_outlets(config: ConfigShape) -> Iterator[Finding]:
    log = config.decision_log
    if log.file is not None and log.url is not None:
        yield ("decision_log", "url"), "there is a `file`, too", "keep one of them"
    if log.file is not None and _answers(log.file.is_dir):
        message = f"`{log.file}` is a folder"
        yield ("decision_log", "file"), message, "name a file in it"
    elif log.file is not None and not _answers(log.file.parent.is_dir):
        message = f"`{log.file.parent}` is no folder, so no decision would be logged"
        yield ("decision_log", "file"), message, "make it, or mend the path"
    for name, section in (("decision_log", log), ("notify", config.notify)):
        if section.token_from is not None and section.url is None:
            message = "is for a `url`, and there is none"
            yield (name, "token_from"), message, "name the `url`, or leave it out"


def _check_engine(config: ConfigShape) -> Iterator[Finding]:
    opa, path = config.policy.opa, ("policy", "engine")
    if config.policy.engine == "regorus":
        return
    try:
        endpoint = read_endpoint(config.policy.engine)
    except ValueError as error:
        yield path, str(error), "write `opa://host:port`"
        return
    clear = not endpoint.tls and not endpoint.socket
    if clear and not is_loopback(endpoint.host) and not config.dev:
        message = "inputs and decisions would cross the network in the clear"
        yield path, message, f"use `opas://`, {_DEV_HINT}"
    if opa.bundles == "pull" and opa.bundle_token_from is None:
        message = "OPA could not fetch bundles without a token of its own"
        yield ("policy", "opa", "bundle_token_from"), message, "write `env:NAME` or `file:PATH`"
    if (opa.certificate is None) != (opa.key is None):
        message = "a certificate and its key go together"
        yield ("policy", "opa", "certificate"), message, "give both, or none"


def _check_identities(config: ConfigShape) -> Iterator[Finding]:
    ids: set[str] = set()
    hashes: set[str] = set()
    people = [(("clients", n), c.id, c.secret_hash) for n, c in enumerate(config.clients)]
    people += [(("humans", n), h.id, h.secret_hash) for n, h in enumerate(config.humans)]
    for path, name, secret_hash in people:
        # Whoever is suspended or voted is known by the one name that stands for all spellings.
        if person(name) in ids:
            hint = "give every client and human its own id; capitals make no other one"
            yield (*path, "id"), f"`{name}` is taken", hint
        if secret_hash in hashes:
            hint = "generate one secret for each"
            yield (*path, "secret_hash"), "another has the same secret", hint
        ids.add(person(name))
        hashes |= {secret_hash} if secret_hash else set()


def _check_trusted(config: ConfigShape) -> Iterator[Finding]:
    launchers = frozenset(c.id for c in config.clients if isinstance(c, LauncherSection))
    seen: set[str] = set()
    for number, one in enumerate(config.tokens.trusted_issuers):
        path = ("tokens", "trusted_issuers", number)
        for name in ("issuer", "jwks_uri"):
            if url := getattr(one, name):
                yield from _check_upstream(url, (*path, name), dev=config.dev)
        if one.launcher not in launchers:
            message = f"there is no launcher `{one.launcher}`"
            yield (*path, "launcher"), message, suggest(one.launcher, launchers)
        if one.issuer in seen:
            yield (*path, "issuer"), "is trusted twice", "keep one: its people have one launcher"
        seen.add(one.issuer)


def _check_keys(client: AgentSection | LauncherSection, path: KeyPath) -> Iterator[Finding]:
    """Check how a client proves itself: by a secret or by keys, never both."""
    ways = [name for name in ("secret_hash", "jwks", "jwks_file") if getattr(client, name)]
    if len(ways) > 1:
        message = f"`{ways[0]}` and `{ways[1]}` both prove this client"
        yield (*path, ways[1]), message, "keep one: whoever has either would be this client"
    if isinstance(client, LauncherSection) and not ways:
        hint = "give it one, or public keys as `jwks`"
        yield (*path, "secret_hash"), "`secret_hash` is missing", hint
    hint = "write the public keys as a JWK set (RFC 7517)"
    if client.jwks is not None and (fault := find_key_set_fault(client.jwks)) is not None:
        yield (*path, "jwks"), fault, hint
    if client.jwks_file is not None:
        try:
            fault = find_key_set_fault(load_key_set(client.jwks_file))
        except ConfigurationError as error:
            fault = str(error)
        if fault is not None:
            yield (*path, "jwks_file"), fault, hint


def _check_groups(config: ConfigShape) -> Iterator[Finding]:
    """A group of a role's name would be that role wherever both are looked at together."""
    for number, human in enumerate(config.humans):
        for place, group in enumerate(human.groups):
            if group in ROLES:
                path = ("humans", number, "groups", place)
                yield path, f"`{group}` is a role", "put it among `roles`, or call the group else"


def _check_limits(config: ConfigShape) -> Iterator[Finding]:
    for name in config.limits:
        if name in SET_ELSEWHERE:
            yield ("limits", name), "is set elsewhere", f"set `{SET_ELSEWHERE[name]}`"
        elif name not in LIMIT_NAMES:
            yield ("limits", name), f"unknown limit `{name}`", suggest(name, LIMIT_NAMES)
        elif name in NEVER_ZERO and not config.limits[name]:
            yield ("limits", name), "nothing would be let through", "write at least 1"
        elif config.limits[name] > (most := AT_MOST.get(name, config.limits[name])):
            message = "is beyond the log's format, so the log could not be verified"
            yield ("limits", name), message, f"write at most {most}"


def _check_witnesses(config: ConfigShape) -> Iterator[Finding]:
    section, base = config.audit.witness, ("audit", "witness")
    known: set[object] = set()
    for number, entry in enumerate(section.witnesses):
        path = (*base, "witnesses", number)
        yield from _check_url(entry.url, (*path, "url"), "", "checkpoints", dev=config.dev)
        try:
            key = parse_witness_vkey(entry.vkey)
        except ValueError as error:
            yield (*path, "vkey"), str(error), "copy it from who runs the witness"
            continue
        if key.public in known or (entry.name or key.name) in known:
            hint = "a quorum counts each witness once, under its own name and key"
            yield path, "another witness has this name or key", hint
        known |= {key.public, entry.name or key.name}
    # One of none is what holds where there shall be no witness.
    if section.quorum > max(1, len(section.witnesses)):
        message = f"{section.quorum} of {len(section.witnesses)} witnesses can never be had"
        yield (*base, "quorum"), message, "ask for fewer, or name more"
    if section.alert_after_s < section.interval_s:
        message = "every interval would be told as too long"
        yield (*base, "alert_after_s"), message, "make it longer than `interval_s`"


def _check_anchors(config: ConfigShape) -> Iterator[Finding]:
    for number, anchor in enumerate(config.audit.anchors):
        if isinstance(anchor, S3AnchorSection) and anchor.url:
            path = ("audit", "anchors", number, "url")
            yield from _check_url(anchor.url, path, "", "checkpoints", dev=config.dev)


def _check_sign_in(config: ConfigShape) -> Iterator[Finding]:
    known: set[str] = set()
    for number, provider in enumerate(config.sign_in.oidc):
        path = ("sign_in", "oidc", number)
        yield from _check_url(
            provider.issuer, (*path, "issuer"), "", "sign-ins and secrets", dev=config.dev
        )
        if provider.id in known:
            yield (*path, "id"), f"`{provider.id}` is taken", "give each provider its own id"
        if "openid" not in provider.scopes:
            yield (*path, "scopes"), "`openid` is missing", "without it nobody says who it was"
        known.add(provider.id)
    if config.sign_in.session_idle_s > config.sign_in.session_max_s:
        hint = "make it shorter than `session_max_s`"
        yield ("sign_in", "session_idle_s"), "a session is over before it is idle", hint
    for number, text in enumerate(config.sign_in.trusted_proxies):
        if (fault := _find_network_fault(text)) is not None:
            hint = "write the network of your proxies, such as `10.0.0.0/24`"
            yield ("sign_in", "trusted_proxies", number), fault, hint


def _find_network_fault(text: str) -> str | None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return f"`{text[:64]}` is no network"
    return None if network.prefixlen else "everybody could tell us any address"


def _check_grants(
    sections: tuple[GrantSection, ...], path: KeyPath, known: Known
) -> Iterator[Finding]:
    grants = [build_grant(section) for section in sections]
    for number, grant in enumerate(grants):
        if grant.server not in known.servers:
            message = f"there is no server `{grant.server}`"
            yield (*path, number, "server"), message, suggest(grant.server, known.servers)
        if (fault := find_fault(grant)) is not None:
            yield (*path, number), fault, "mend the grant"
    if (ambiguity := find_ambiguity(grants)) is not None:
        yield path, ambiguity, "a tool needs one grant that speaks for it"


def _check_baseline(agent: AgentSection, path: KeyPath, *, dev: bool) -> Iterator[Finding]:
    for number, grant in enumerate(agent.grants):
        if set(grant.effects) != {"read"} and not dev:
            message = "an agent's own secret gives more than reading"
            hint = f"write `effects: [read]` and let a launcher give the rest, {_DEV_HINT}"
            yield (*path, "grants", number), message, hint


def _check_edges(agent: AgentSection, path: KeyPath, known: Known) -> Iterator[Finding]:
    for number, other in enumerate(agent.may_delegate_to):
        where = (*path, "may_delegate_to", number)
        if other == agent.id:
            yield where, "an agent hands nothing to itself", "leave it out"
        elif other not in known.agents:
            yield where, f"there is no agent `{other}`", suggest(other, known.agents)


def _check_launcher(launcher: LauncherSection, path: KeyPath, known: Known) -> Iterator[Finding]:
    for number, agent in enumerate(launcher.may_launch):
        if agent not in known.agents:
            message = f"there is no agent `{agent}`"
            yield (*path, "may_launch", number), message, suggest(agent, known.agents)
