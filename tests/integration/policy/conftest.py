"""Policies and inputs that the tests of the real engine share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest

from gateway.adapters.policy.policy_bundle import Bundle, build_bundle
from gateway.adapters.regorus import regorus_nursery, regorus_template
from gateway.adapters.regorus.regorus_policy import RegorusPolicy

SHOP = """package policies.shop

permit contains {"code": "ok"} if input.resource.server == "shop"

deny contains {"code": "too_much"} if abs(input.context.args.amount) > 100

spin contains z if {
	input.context.args.bomb
	some x in numbers.range(1, 100000)
	some y in numbers.range(1, 100000)
	z := x * y
}

deny contains {"code": "spun"} if count(spin) > 3
"""

Start = Callable[..., Awaitable[RegorusPolicy]]


def make_bundle(source: str = SHOP, **more: str) -> Bundle:
    sources = {"shop.rego": source, **{f"{name}.rego": text for name, text in more.items()}}
    return build_bundle(sources, {"authority": {"policies": {"shop": ["shop"]}}})


def question(phase: str = "call", server: str = "shop", **args: Any) -> bytes:  # noqa: ANN401
    return orjson.dumps(
        {
            "version": 1,
            "phase": phase,
            "resource": {"id": f"{server}.act", "server": server, "effect": "update"},
            "context": {"args": args},
        }
    )


@pytest.fixture
def real_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start engines as a gateway starts them (see `tests.seeds`)."""
    monkeypatch.setattr(regorus_template, "plant", regorus_nursery.plant)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start engines that are stopped after the test."""
    async with AsyncExitStack() as stack:

        async def started(
            bundle: Bundle | None = None, *, workers: int = 1, deadline_ms: int = 10_000
        ) -> RegorusPolicy:
            engine = RegorusPolicy(
                bundle or make_bundle(), workers=workers, deadline_ms=deadline_ms
            )
            stack.push_async_callback(engine.stop)
            await engine.start()
            return engine

        yield started
