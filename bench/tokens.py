"""What tokens cost: believing one, known or not, its limits, and handing authority on."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import orjson
from msgspec import Struct
from msgspec.structs import replace

from bench.governed import GRANT, SERVE, build_config, build_manifest, find_port, wait_ready
from bench.load import LoadGenerator
from bench.policies import agent_name, write_policies
from bench.processes import Processes
from gateway.adapters.keys.jose_tokens import JoseVerifier, sign_token
from gateway.adapters.keys.token_keys import generate_token_key
from gateway.adapters.system import SystemClock
from gateway.authenticator import Authenticator
from gateway.core.calls.call import Arguments, CallMeta, RawCall
from gateway.core.catalog import Review, Tool
from gateway.core.kills.kill import KillSet
from gateway.core.tokens.grants import CompiledGrants
from gateway.core.tokens.token import SCOPE_CALL, Claims, Constraint, Grant, Range, Window

CALLERS: Final = 16
_ISSUER: Final = "https://bench.example"
_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_HELPER: Final = "helper"
_POLICED: Final = 10


class TokenPlan(Struct, frozen=True):
    """How many tokens to believe, fewer than are remembered; how long to exchange, in seconds."""

    tokens: int
    exchange_s: float


def measure_tokens(folder: Path, plan: TokenPlan) -> dict[str, float | int]:
    """Return the figures under flat keys. `folder` is empty and on the disk to be measured."""
    folder.mkdir(parents=True)
    return {
        **_believe(plan.tokens),
        **_constrain(plan.tokens),
        "token_exchanges_per_s": round(_exchange(folder, plan)),
    }


def _believe(number: int) -> dict[str, float]:
    """Time the first stage of the path: token, switches, scope."""
    key = generate_token_key()
    verifier = JoseVerifier([key], issuer=_ISSUER, audience=_ISSUER, environment="bench")
    kills = KillSet(credentials=lambda _server: (), key_id=lambda subject: subject)
    authenticator = Authenticator(tokens=verifier, barred=kills.find, clock=SystemClock())
    calls = [_call(sign_token(_claims(n), key).encode()) for n in range(number)]
    first = _time(calls, lambda raw: authenticator.authenticate(raw, SCOPE_CALL))
    known = _time(calls, lambda raw: authenticator.authenticate(raw, SCOPE_CALL))
    return {"token_uncached_us": round(first, 1), "token_cached_us": round(known, 2)}


class _Open:
    """A schema that accepts everything: only the grant's own limits are timed."""

    def failure(self, _arguments: Mapping[str, Any]) -> None:
        return None


def _constrain(rounds: int) -> dict[str, float]:
    """Time ten constraints of every kind and a window, as a call's arguments are checked."""
    texts = Constraint(prefix="a", suffix="z", length=Range(1, 9)), Constraint(one_of=("a", "b"))
    hosts = Constraint(domain=("acme.example", "*.acme.example"))
    limits = (Constraint(max=9), Constraint(min=0), *texts, Constraint(count=Range(1)), hosts)
    bounds = {f"/{n}": limit for n, limit in enumerate((*limits, *limits[:4]))}
    grant = Grant("bench", "refund", (), bounds, window=Window(end="23:59"))
    values = 1, 1, "a-z", "b", [1], "ann@mail.acme.example", 2, 2, "a-z", "a"
    arguments = {str(n): value for n, value in enumerate(values)}
    grants = CompiledGrants(replace(_claims(0), grants=(grant,)))
    tool = Tool(
        id="bench.refund",
        server="bench",
        name="refund",
        wire_name="bench__refund",
        review=Review(name="refund", effect="money"),
        definition=b"{}",
        definition_digest="",
        schema=_Open(),
        resource={},
    )
    begin = time.process_time_ns()
    for _ in range(rounds):
        if grants.broken_constraint(grant, tool, arguments, 0) is not None:
            raise AssertionError("the arguments were made to fit")
    return {"constraints_us": round((time.process_time_ns() - begin) / rounds / 1_000, 1)}


def _time(calls: list[RawCall], work: Callable[[RawCall], object]) -> float:
    """Return µs of CPU for each call: what others do on this machine does not count."""
    begin = time.process_time_ns()
    for raw in calls:
        work(raw)
    return (time.process_time_ns() - begin) / len(calls) / 1_000


def _claims(number: int) -> Claims:
    now_s = int(time.time())
    grant = Grant("bench", "refund", (), {"/amount_cents": Constraint(max=100_000)}, 50)
    return Claims(
        issuer=_ISSUER,
        audience=_ISSUER,
        subject="agent",
        client_id="launcher",
        jti=f"{number:032x}",
        issued_at=now_s,
        expires_at=now_s + 300,
        scopes=frozenset({SCOPE_CALL}),
        grants=(grant,),
        environment="bench",
        run_id="run",
        root_jti="run",
        sid="run",
    )


def _call(token: bytes) -> RawCall:
    return RawCall(
        op="0" * 32,
        credential=token,
        tool="",
        server=None,
        arguments=Arguments(b"{}", {}),
        meta=CallMeta(surface="mcp"),
    )


def _exchange(folder: Path, plan: TokenPlan) -> float:
    """Have a served gateway exchange tokens, from several callers at once; return how many/s."""
    secret = secrets.token_urlsafe(32)
    with Processes(folder) as processes:
        config, port = _write(folder, secret)
        process = processes.start("gateway", [*SERVE, str(config)])
        base = f"http://127.0.0.1:{port}"
        wait_ready(base, process)
        with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
            requests = [_build(client, port, secret, number) for number in range(CALLERS)]
        load = LoadGenerator(folder)
        figures = load.run(port, requests, connections=CALLERS, seconds=plan.exchange_s)
    return figures.per_second


def _write(folder: Path, secret: str) -> tuple[Path, int]:
    """Write a gateway whose agents may hand on to one helper."""
    write_policies(folder / "policies", _POLICED)
    (folder / "bench.yaml").write_bytes(orjson.dumps(build_manifest()))
    port = find_port()
    settings = build_config(folder, port, "http://127.0.0.1:9/mcp", secret)
    for client in settings["clients"]:
        if client["kind"] == "agent":
            client["may_delegate_to"] = [_HELPER]
    reads = [{"server": "bench", "effects": ["read"]}]
    digest = hashlib.sha256(secret[::-1].encode()).hexdigest()
    helper = {"id": _HELPER, "kind": "agent", "secret_hash": f"sha256:{digest}", "grants": reads}
    settings["clients"].append(helper)
    config = folder / "countersign.yaml"
    config.write_bytes(orjson.dumps(settings))
    return config, port


def _build(client: httpx.Client, port: int, secret: str, number: int) -> bytes:
    """Return one exchange: a run's token and the helper's, for one that may do less."""
    run = client.post(
        "/v1/runs",
        auth=("bench-launcher", secret),
        json={"agent": agent_name(number), "grants": [GRANT]},
    ).json()
    form: dict[str, Any] = {
        "grant_type": _EXCHANGE,
        "subject_token": _token(client, run["run_id"], run["run_credential"]),
        "subject_token_type": _ACCESS,
        "actor_token": _token(client, _HELPER, secret[::-1]),
        "actor_token_type": _ACCESS,
    }
    body = urlencode(form).encode()
    basic = base64.b64encode(f"{_HELPER}:{secret[::-1]}".encode()).decode()
    head = (
        "POST /oauth/token HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"Authorization: Basic {basic}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _token(client: httpx.Client, client_id: str, secret: str) -> str:
    form = {"grant_type": "client_credentials"}
    reply = client.post("/oauth/token", auth=(client_id, secret), data=form)
    reply.raise_for_status()
    return str(reply.json()["access_token"])
