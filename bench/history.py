"""Run history and data flow: what policy is told of a run, after 40 calls and after 500 (POL-02).

One call is: look up where its values come from, build the policy input, charge the family, take in
what it says. The run reads and sends by turns with twelve tools; each of its answers was looked
through.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

import orjson

from bench.processes import MeasurementError
from gateway.core.caller import Caller, build_caller_view
from gateway.core.calls.call import Arguments, AuthenticatedCall, CallMeta, RawCall, ResolvedCall
from gateway.core.calls.data_flow import DataFlow
from gateway.core.calls.family import Charge
from gateway.core.calls.ledger import Ledger, view_budget
from gateway.core.calls.policy_input import build_document
from gateway.core.calls.provenance import read_output, worst
from gateway.core.catalog import Review, Tool
from gateway.core.tokens.token import Claims, Grant

CALLS: Final = (40, 500)
_TOOLS: Final = 12
_NOW_S: Final = 1_800_000_000
_BLOCK: Final = 50
_PROSE: Final = "Thank you for the order; {name}@customer.example writes about it again. " * 28


class _Open:
    def failure(self, _arguments: object) -> str | None:
        return None


def _tool(number: int) -> Tool:
    sends = number % 2 == 0
    review = Review(
        name=f"t{number}",
        effect="external_send" if sends else "read",
        labels=() if sends else ("untrusted",),
        sinks=("/to",) if sends else (),
        sums=("/amount",),
    )
    resource = {"type": "tool", "id": f"bench.t{number}", "server": "bench"}
    return Tool(
        id=f"bench.t{number}",
        server="bench",
        name=review.name,
        wire_name=review.name,
        review=review,
        definition=b"{}",
        definition_digest="",
        schema=_Open(),
        resource=resource,
    )


def _claims() -> Claims:
    return Claims(
        issuer="https://gw.example",
        audience="https://gw.example",
        subject="bench-bot",
        client_id="bench",
        jti="jti",
        issued_at=_NOW_S,
        expires_at=_NOW_S + 300,
        scopes=frozenset({"tools:call"}),
        grants=(Grant("bench"),),
        environment="bench",
        run_id="run",
        root_jti="run",
        sid="run",
        allowed_values={"recipients": tuple(f"r{n}@customer.example" for n in range(20))},
    )


class _Run:
    """A run that has made so many calls."""

    def __init__(self, calls: int) -> None:
        self.ledger = Ledger()
        self.flow = DataFlow(self.ledger)
        self.claims = _claims()
        self.caller: Caller = build_caller_view(self.claims)
        self.tools = [_tool(number) for number in range(_TOOLS)]
        for number in range(calls):
            resolved = self._resolve(number)
            self.call(number)
            answer = orjson.dumps({"content": [{"type": "text", "text": f"order {number}"}]})
            self.flow.learn(resolved, read_output(answer, untrusted=number % 2 == 1))

    def _resolve(self, number: int) -> ResolvedCall:
        value: dict[str, Any] = {"to": f"name{number % 60}@customer.example", "amount": 1}
        raw = RawCall(
            op=f"{number:032x}",
            credential=None,
            tool="",
            server=None,
            arguments=Arguments(orjson.dumps(value), value),
            meta=CallMeta(surface="mcp"),
        )
        call = AuthenticatedCall(raw, self.claims, (_NOW_S + number) * 1_000_000_000)
        return ResolvedCall(call, self.tools[number % _TOOLS], self.claims.grants[0])

    def call(self, number: int) -> bytes:
        """Ask about a call and charge it, as the judge does; return what policy is told."""
        resolved = self._resolve(number)
        family = self.ledger.family("run")
        provenance = self.flow.classify(resolved, self.caller.allowed)
        now_s = resolved.call.now_ns // 1_000_000_000
        document = build_document(
            phase="call",
            caller=self.caller.fragments,
            claims=self.claims,
            grant=resolved.grant,
            tool=resolved.tool,
            arguments=resolved.call.raw.arguments.raw,
            now_ns=resolved.call.now_ns,
            ledger=family.view_run(),
            budget=view_budget(self.claims.budget, family),
            day=self.ledger.day(self.caller.spender.payer, now_s).view(),
            history={
                "recent": list(family.recent),
                "repeats": 0,
                "last_minute": family.calls_since("", now_s - 60),
            },
            provenance=provenance,
        )
        charge = self.ledger.reserve(
            self.caller.spender,
            resolved.tool,
            resolved.grant,
            resolved.call.raw.arguments.value,
            now_s=now_s,
            egress=worst((provenance or {}).values()),
        )
        self.flow.say(resolved, follows=True)
        if not isinstance(charge, Charge):
            raise MeasurementError(f"the ledger was to charge a call, and did not: {charge}")
        return document


def _time(run: _Run, first: int) -> float:
    """Return µs of CPU for a call of a run as long as this one."""
    begin = time.process_time()
    for number in range(first, first + _BLOCK):
        run.call(number)
    return (time.process_time() - begin) * 1e6 / _BLOCK


def measure_history(rounds: int) -> dict[str, float | int]:
    """Return the figures under flat keys: µs of CPU, medians."""
    times: dict[int, list[float]] = {calls: [] for calls in CALLS}
    for _ in range(max(3, rounds // _BLOCK)):  # by turns: what disturbs one, disturbs both
        for calls, found in times.items():
            found.append(_time(_Run(calls), calls))
    reads = []
    body = orjson.dumps({"content": [{"type": "text", "text": _PROSE}]})
    for _ in range(max(3, rounds // _BLOCK)):
        begin = time.process_time()
        for _ in range(_BLOCK):
            read_output(body, untrusted=True)
        reads.append((time.process_time() - begin) * 1e6 / _BLOCK)
    medians = {calls: statistics.median(found) for calls, found in times.items()}
    few, many = CALLS
    return {
        "history_us_40": round(medians[few], 1),
        "history_us_500": round(medians[many], 1),
        "history_growth": round(medians[many] / medians[few], 2),
        "history_read_us": round(statistics.median(reads)),
    }
