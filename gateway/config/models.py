"""The shape of `countersign.yaml`. Every key's description is also the hint of its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictStr

from gateway.config.apps import AppSection, OAuthSection
from gateway.config.base import (
    HASH,
    Count,
    Flag,
    GrantSection,
    Id,
    KeyUri,
    LocalPath,
    Name,
    SecretFrom,
    SecretHash,
    Section,
    Share,
    Whole,
    section,
)
from gateway.config.decision_log import DecisionLogSection

_FROM: Final = "`env:NAME` or `file:PATH`"
_REFERENCE: Final = "`env:NAME`, `file:PATH`, `keyring:SERVICE/USER` or `vault:MOUNT/PATH#FIELD`"
_JWKS: Final = "a JWK set of public keys, in place of a secret (`private_key_jwt`)"


class StateSection(Section):
    """Where runs, holds and spent budgets are kept."""

    url: str = Field("sqlite:///state.db", description="a database URL, `sqlite:///path`")


class WitnessEntry(Section):
    """A witness, believed as far as its key signs."""

    name: str = Field(
        "", max_length=64, description="what the logs call it; by default as in its key"
    )
    url: str = Field(description="where it takes `add-checkpoint`, without that: `https://…`")
    vkey: str = Field(description="its C2SP verifier key, `name+hash+key`, of algorithm 0x04")


class WitnessSection(Section):
    """Others who see the log grow, and sign that they did."""

    key: LocalPath = Field(
        Path("keys/witness.pem"), description="the Ed25519 key by which they know the log, PEM"
    )
    quorum: Whole = Field(1, ge=1, le=64, description="how many of them it takes, at least 1")
    interval_s: Whole = Field(60, ge=1, le=3_600, description="seconds between checkpoints")
    alert_after_s: Whole = Field(
        300, ge=1, le=604_800, description="seconds that a record may wait before it is told"
    )
    witnesses: tuple[WitnessEntry, ...] = Field((), description="a list of `url` and `vkey`")


class FileAnchorSection(Section):
    """A folder that takes one file for each checkpoint."""

    type: Literal["file"]
    path: LocalPath = Field(description="a folder, best one that something carries away")


class S3AnchorSection(Section):
    """A bucket with object lock that takes one object for each checkpoint."""

    type: Literal["s3"]
    url: str = Field("", description="the endpoint; by default that of AWS in the region")
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,32}$", description="such as eu-west-1")
    bucket: str = Field(pattern=r"^[A-Za-z0-9._-]{3,63}$", description="made with object lock")
    prefix: str = Field("", max_length=512, description="a folder in the bucket")
    lock_days: Whole = Field(
        ge=1, le=36_500, description="days, 1 to 36500, for which nobody can delete it"
    )
    access_key_from: SecretFrom = Field("env:AWS_ACCESS_KEY_ID", description=_FROM)
    secret_key_from: SecretFrom = Field("env:AWS_SECRET_ACCESS_KEY", description=_FROM)
    session_token_from: SecretFrom | None = Field(None, description=_FROM)


AnchorSection = Annotated[FileAnchorSection | S3AnchorSection, Field(discriminator="type")]


class AuditSection(Section):
    """The tamper-evident log."""

    dir: LocalPath = Field(Path("audit"), description="the folder of the log")
    key: LocalPath = Field(Path("keys/audit.pem"), description="its Ed25519 signing key, PEM")
    kek: LocalPath = Field(Path("keys/kek"), description="32 bytes that wrap the openings' keys")
    origin: str = Field(
        "countersign/audit",
        pattern=r"^[!-*,-~]{1,128}$",
        description="the log's name in its checkpoints: no spaces, no `+`",
    )
    segment_max_bytes: Whole = Field(
        67_108_864, ge=65_536, description="bytes after which a new segment file is begun"
    )
    reserve_mib: Whole = Field(
        64, ge=0, le=4_096, description="MiB kept back for outcomes on a disk that fills up"
    )
    key_max_age_h: Whole = Field(
        24, ge=0, le=8_784, description="hours after which a new signing key takes over; 0: never"
    )
    witness: WitnessSection = section("who sees the log grow, and signs that they did")
    anchors: tuple[AnchorSection, ...] = Field(
        (), description="where checkpoints are kept besides; each has `type: file` or `type: s3`"
    )


class PublisherSection(Section):
    """A person who publishes releases of policies."""

    id: Id = Field(description="a person with the role `policy_publisher`")
    key: str = Field(description="their public key, as `countersign policy keygen` prints it")


class HaltSection(Section):
    """When a release is taken back by itself, soon after it began to decide."""

    enabled: Flag = Field(default=True, description="whether it is")
    window_s: Whole = Field(
        600, ge=10, le=86_400, description="seconds for which it is compared with the one before"
    )
    calls_min: Whole = Field(200, ge=1, description="compared calls, below which nothing is said")
    agents_min: Whole = Field(
        2, ge=1, le=1_000, description="agents that must each see it, so that none brings it about"
    )
    denials_rise: Share = Field(0.2, description="share of newly denied calls that is too much")
    errors_rise: Share = Field(0.02, description="share of newly failed decisions that is too much")


class OpaSection(Section):
    """An OPA that decides in place of the embedded engine."""

    bundles: Literal["push", "pull"] = Field(
        "push", description="`push`: the gateway puts bundles into it; `pull`: it fetches them"
    )
    token_from: SecretFrom | None = Field(None, description=f"the token it asks for: {_FROM}")
    ca: LocalPath | None = Field(None, description="the CA of its certificate, PEM")
    certificate: LocalPath | None = Field(None, description="the gateway's own certificate, PEM")
    key: LocalPath | None = Field(None, description="the certificate's private key, PEM")
    bundle_token_from: SecretFrom | None = Field(
        None, description=f"`pull`: the token by which it fetches bundles: {_FROM}"
    )
    start_s: Whole = Field(10, ge=0, le=300, description="seconds that a start waits for it")
    pull_s: Whole = Field(120, ge=1, le=3_600, description="seconds it has to fetch a new bundle")


class PolicySection(Section):
    """The Rego engine and its bundle."""

    engine: str = Field(
        "regorus",
        pattern=r"^(regorus|opas?://\S+|opa\+unix:///\S+)$",
        max_length=512,
        description="`regorus`, embedded in workers, or an OPA: `opa://host:port`, "
        "`opas://host:port`, `opa+unix:///path`",
    )
    opa: OpaSection = section("the OPA that decides, where one does")
    path: LocalPath = Field(Path("policies"), description="the folder of the policies")
    deadline_ms: Whole = Field(50, ge=1, le=10_000, description="1 to 10000; late means deny")
    workers: Whole = Field(2, ge=1, le=32, description="worker processes, 1 to 32")
    releases: Literal["required", "off"] = Field(
        "required",
        description="outside `dev`, `required`: only what two publishers signed decides; or `off`",
    )
    publishers: tuple[PublisherSection, ...] = Field(
        (), max_length=32, description="who publishes releases, each with a key of their own"
    )
    rollback: Literal["one", "two"] = Field(
        "two", description="how many publishers take the way back to an earlier release"
    )
    step_up_s: Whole = Field(
        900,
        ge=0,
        le=86_400,
        description="seconds within which publishers must have signed in strongly; 0: any sign-in",
    )
    halt: HaltSection = section("when a release is taken back by itself")


class TrustedIssuerSection(Section):
    """An identity provider whose word about people is taken, for agents that act for them."""

    issuer: str = Field(description="its issuer URL, as in its tokens: `https://…`")
    launcher: Id = Field(description="the launcher under whose limits agents then act")
    audience: str = Field("", description="what its tokens must be for; by default `public_url`")
    jwks_uri: str = Field("", description="where its keys are; by default as its metadata says")
    person_claim: str = Field(
        "sub", min_length=1, max_length=64, description="the claim that holds a person's id"
    )


class TokensSection(Section):
    """Access tokens and runs."""

    issuer: str = Field("", description="the issuer's URL; by default `public_url`")
    ttl_s: Whole = Field(300, ge=10, le=300, description="seconds a token lives, 10 to 300")
    key: LocalPath = Field(
        Path("keys/tokens.pem"),
        description="the first signing key, P-256, PEM; the gateway makes its successors beside it",
    )
    keys: tuple[KeyUri, ...] = Field(
        (),
        description="signing keys that others make, instead of `key`: `file:PATH`, `env:NAME`, "
        "`dir:PATH` or `pkcs11:…`; the first one signs first",
    )
    ring: LocalPath | None = Field(
        None, description="the file of the keys' states; by default beside `key`"
    )
    key_max_age_h: Whole = Field(
        720, ge=0, le=87_840, description="hours after which the next key takes over; 0: never"
    )
    run_max_s: Whole = Field(
        86_400, ge=60, le=604_800, description="seconds a run may live, 60 to 604800"
    )
    max_depth: Whole = Field(
        2, ge=0, le=8, description="how often authority may be handed on, 0 to 8"
    )
    trusted_issuers: tuple[TrustedIssuerSection, ...] = Field(
        (), description="identity providers for whose people agents may act"
    )
    dpop_nonces: Flag = Field(
        default=True, description="whether proofs of keys need a nonce of this gateway"
    )


class AgentSection(Section):
    """An agent. Under its own secret it has its baseline grants; in a run, those of the run."""

    kind: Literal["agent"]
    id: Id = Field(description="letters, digits and `._@-`, at most 64")
    owner: str = Field("", description="who answers for it; may not approve its calls")
    version: str = Field("", max_length=64, description="which build it is, for policies to see")
    roles: tuple[str, ...] = Field((), description="what policies may know it by")
    secret_hash: SecretHash | None = Field(None, description=HASH)
    grants: tuple[GrantSection, ...] = Field(
        (), description="its baseline; `effects: [read]` unless `dev: true`"
    )
    may_delegate_to: tuple[Id, ...] = Field(
        (), description="ids of agents that it may hand a part of its authority to"
    )
    jwks: dict[str, Any] | None = Field(None, description=_JWKS)
    jwks_file: LocalPath | None = Field(None, description="a file that holds such a set")
    dpop: Literal["optional", "required"] = Field(
        "optional", description="`required`: it gets only tokens that are bound to a key"
    )


class LauncherSection(Section):
    """A workflow system or a human's session, which creates runs for agents."""

    kind: Literal["launcher"]
    id: Id = Field(description="letters, digits and `._@-`, at most 64")
    owner: str = Field("", description="who answers for it; may not approve its runs' calls")
    secret_hash: SecretHash | None = Field(None, description=HASH)
    jwks: dict[str, Any] | None = Field(None, description=_JWKS)
    jwks_file: LocalPath | None = Field(None, description="a file that holds such a set")
    may_launch: tuple[Id, ...] = Field((), description="ids of agents")
    humans: tuple[str, ...] = Field(
        (), description="whom it may name in `on_behalf_of`; `*` for anybody"
    )
    grants: tuple[GrantSection, ...] = Field((), description="the most that a run of it may have")


class HumanSection(Section):
    """A person at the admin API."""

    id: Id = Field(description="letters, digits and `._@-`, at most 64")
    roles: tuple[
        Literal["approver", "auditor", "operator", "admin", "policy_author", "policy_publisher"],
        ...,
    ] = Field(
        (),
        description="any of approver, auditor, operator, admin, policy_author, policy_publisher",
    )
    groups: tuple[Name, ...] = Field((), description="further groups that policies ask to approve")
    secret_hash: SecretHash | None = Field(None, description=HASH)


class AuthSection(Section):
    """The gateway's own credential at an upstream, as in a manifest; where it is, never itself."""

    kind: Literal[
        "header", "query", "basic", "env", "oauth_client_credentials", "token_exchange"
    ] = Field("header", description="how the upstream is shown who calls")
    header: str = Field("Authorization", description="`header`: its name")
    scheme: str = Field("{secret}", description="`header`: its value, with `{secret}` in it")
    parameter: str = Field("", description="`query`: the name of the parameter")
    user: str = Field("", description="`basic`: the user")
    variable: str = Field("", description="`env`: the variable of a stdio server")
    value_from: str = Field("", description=_REFERENCE)
    token_url: str = Field("", description="OAuth: the token endpoint, `https://…`")
    client_id: str = Field("", description="OAuth: who the gateway is there")
    client_secret_from: str = Field("", description=_REFERENCE)
    client_auth: Literal["basic", "post"] = Field("basic", description="`basic` or `post`")
    scope: str = Field("", description="OAuth: scopes, with blanks between them")
    resource: str = Field("", description="OAuth: the upstream's own URI (RFC 8707)")
    audience: str = Field("", description="`token_exchange`: `aud` of the assertion")
    grant: Literal["token_exchange", "jwt_bearer"] = Field(
        "token_exchange", description="`token_exchange` (RFC 8693) or `jwt_bearer` (RFC 7523)"
    )
    subject: Literal["person", "agent"] = Field(
        "person", description="for whom a token is: `person` or `agent`"
    )
    listing: Literal["none", "client"] = Field(
        "none", description="as whom tools are listed: `none`, or the gateway as a `client`"
    )


class VaultSection(Section):
    """A HashiCorp Vault or OpenBao, for references `vault:MOUNT/PATH#FIELD`."""

    address: str = Field("", description="`https://…`; by default `VAULT_ADDR`")
    token_from: KeyUri = Field(
        "env:VAULT_TOKEN",
        pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|keyring:[^/]+/.+)$",
        description="`env:NAME`, `file:PATH` or `keyring:SERVICE/USER`",
    )
    namespace: str = Field("", pattern=r"^[A-Za-z0-9._/-]{0,256}$", description="a namespace")
    ttl_s: Whole = Field(300, ge=5, le=86_400, description="seconds that a secret is believed for")


class CredentialsSection(Section):
    """Where the secrets for upstreams come from."""

    socket: LocalPath | None = Field(
        None, description="the Unix socket of `countersign broker`; else the gateway has them"
    )
    timeout_ms: Whole = Field(
        5_000, ge=10, le=60_000, description="milliseconds that a call waits for the broker"
    )
    gateway_uid: Count | None = Field(
        None, description="the user whom the broker serves; by default its own"
    )
    broker_uid: Count | None = Field(
        None, description="the user whom the gateway believes; by default its own"
    )
    assertion_key: LocalPath = Field(
        Path("keys/assertion.pem"), description="the P-256 key that signs assertions, PEM"
    )
    vault: VaultSection = section("a HashiCorp Vault or OpenBao")


class _ServerSection(Section):
    manifest: LocalPath = Field(description="the reviewed manifest, YAML")
    prefix: Flag = Field(default=True, description="false for bare tool names at `/mcp`")
    auth: AuthSection | None = Field(None, description="in place of the manifest's `auth`")
    shared: Flag | None = Field(None, description="in place of the manifest's `shared`")


class HttpServerSection(_ServerSection):
    """An upstream over MCP streamable HTTP."""

    transport: Literal["http"]
    url: str = Field(description="its MCP endpoint, `https://…`")


class StdioServerSection(_ServerSection):
    """An upstream that the gateway starts, over stdio."""

    transport: Literal["stdio"]
    command: tuple[StrictStr, ...] = Field(min_length=1, description="program and arguments")
    env: dict[str, str] = Field({}, description="its whole environment beyond the allow-list")
    cwd: LocalPath | None = Field(None, description="the folder that it starts in")


class OidcSection(Section):
    """An enterprise's identity provider at which people sign in."""

    id: Name = Field(description="a short name; `/signin/oidc/<id>/callback` is its redirect URI")
    label: str = Field("", max_length=64, description="what people call it; by default its id")
    issuer: str = Field(description="its issuer URL, `https://…`, exactly as in its metadata")
    client_id: str = Field(min_length=1, max_length=256, description="what it knows us by")
    client_secret_from: SecretFrom | None = Field(None, description=_FROM)
    scopes: tuple[str, ...] = Field(("openid",), description="what to ask for; `openid` at least")
    person_claim: str = Field(
        "sub",
        pattern=r"^[A-Za-z0-9_.:/-]{1,128}$",
        description="the claim of its ID token that is a person's id here",
    )
    strong_acr: tuple[str, ...] = Field(
        (), description="the `acr` values of it that count as `strong`"
    )
    unknown_people: Literal["refuse", "provision"] = Field(
        "refuse", description="`refuse`, or `provision`: let in without any role"
    )


class SignInSection(Section):
    """How people sign in at a browser, and for how long."""

    local_accounts: Flag = Field(
        default=True, description="passwords and passkeys, kept by the gateway itself"
    )
    oidc: tuple[OidcSection, ...] = Field((), description="identity providers")
    session_max_s: Whole = Field(
        43_200, ge=300, le=604_800, description="seconds until people must sign in again"
    )
    session_idle_s: Whole = Field(
        3_600, ge=60, le=86_400, description="seconds without a request that end a session"
    )
    cli_max_s: Whole = Field(
        28_800, ge=300, le=604_800, description="seconds that `countersign login` lasts"
    )
    trusted_proxies: tuple[StrictStr, ...] = Field(
        (), max_length=64, description="networks of proxies whose `X-Forwarded-For` is believed"
    )


class RegistrySection(Section):
    """People, agents and clients that are registered while the gateway runs."""

    approver_delay_s: Whole = Field(
        3_600,
        ge=0,
        le=2_592_000,
        description="seconds until the vote of a new approver counts, 0 to 2592000",
    )
    proposal_ttl_s: Whole = Field(
        86_400, ge=60, le=604_800, description="seconds that a proposal waits for a second person"
    )


class LogSection(Section):
    """Human logs, on stderr."""

    format: Literal["json", "console"] = Field("json", description="`json` or `console`")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )


class NotifySection(Section):
    """Where people are told of what policies want them to know (`notify`)."""

    url: str | None = Field(
        None,
        pattern=r"^(https://[^\s@]+|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?(/[^\s@]*)?)$",
        description="`https://…` (http only on loopback) that takes a POST of JSON for each notice",
    )
    token_from: SecretFrom | None = Field(None, description=_FROM)


class AuthZenSection(Section):
    """Others asking what would become of calls."""

    enabled: Flag = Field(default=True, description="whether they may ask at all")


ClientSection = Annotated[AgentSection | LauncherSection | AppSection, Field(discriminator="kind")]
ServerSection = Annotated[HttpServerSection | StdioServerSection, Field(discriminator="transport")]


class ConfigShape(Section):
    """`countersign.yaml`. Relative paths start at its folder."""

    environment: Name = Field("development", description="lower-case; stamped on keys and state")
    dev: Flag = Field(default=False, description="allow insecure choices; forces loopback")
    listen: str = Field("127.0.0.1:8080", description="`host:port`, `[host]:port` for IPv6")
    public_url: str = Field("", description="the URL clients use; by default `http://<listen>`")
    state: StateSection = section("where runs, holds and spent budgets are kept")
    audit: AuditSection = section("the tamper-evident log")
    policy: PolicySection = section("the policies, and what decides with them")
    tokens: TokensSection = section("access tokens and runs")
    clients: tuple[ClientSection, ...] = Field((), description="launchers, agents and apps")
    oauth: OAuthSection = section("what people can let apps do")
    humans: tuple[HumanSection, ...] = Field((), description="people at the admin API")
    sign_in: SignInSection = section("how people sign in")
    registry: RegistrySection = section("who is registered while the gateway runs")
    servers: dict[Name, ServerSection] = Field({}, description="upstreams, by id")
    authzen: AuthZenSection = section("questions about calls (AuthZEN)")
    credentials: CredentialsSection = section("where secrets for upstreams come from")
    limits: dict[str, Count] = Field({}, description="bounds of the call path, by name")
    log: LogSection = section("human logs, on stderr")
    decision_log: DecisionLogSection = section("a copy of every decision, in OPA's format")
    notify: NotifySection = section("where people are told of what policies want them to know")
