"""Engines on a real OPA, started as a gateway starts them, and stopped after the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from gateway.adapters.opa.opa_endpoint import read_endpoint
from gateway.adapters.opa.opa_link import OpaAccess, OpaLink
from gateway.adapters.opa.opa_policy import OpaPolicy, OpaTimes
from gateway.adapters.opa.opa_shelf import Shelf
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.http.policy_bundle import build_bundle_router
from tests.opa_server import free_port, run_opa

TOKEN = "the-token-by-which-an-opa-fetches-bundles"
TIMES = OpaTimes(start_s=10, pull_s=20, watch_s=0.1)


def build_opa(bundle: Bundle, url: str, **more: Any) -> OpaPolicy:  # noqa: ANN401 - settings
    """Return an engine on the OPA at an URL, not started."""
    access = more.pop("access", OpaAccess())
    settings = {"deadline_ms": 10_000, "times": TIMES, **more}
    return OpaPolicy(bundle, OpaLink(read_endpoint(url), access), **settings)


@asynccontextmanager
async def pushing(bundle: Bundle, **more: Any) -> AsyncIterator[OpaPolicy]:  # noqa: ANN401 - settings
    """Run an engine that puts its bundles into an OPA of its own."""
    with run_opa() as opa:
        engine = build_opa(bundle, opa.url, **more)
        try:
            await engine.start()
            yield engine
        finally:
            await engine.stop()


@asynccontextmanager
async def pulling(bundle: Bundle, **more: Any) -> AsyncIterator[OpaPolicy]:  # noqa: ANN401 - settings
    """Run an engine whose OPA has pulled its bundle."""
    async with AsyncExitStack() as stack:
        port = free_port()
        opa = stack.enter_context(run_opa(*fetch_from(port)))
        engine = build_opa(bundle, opa.url, bundles="pull", **more)
        stack.push_async_callback(engine.stop)
        await stack.enter_async_context(offering(engine.shelf, port))
        await engine.start()
        while not engine.healthy:  # noqa: ASYNC110 - OPA tells nobody
            await asyncio.sleep(0.02)
        yield engine


def fetch_from(port: int, token: str = TOKEN) -> tuple[str, ...]:
    """Return the arguments of an OPA that pulls from a gateway."""
    settings = {
        "services.gateway.url": f"http://127.0.0.1:{port}",
        "services.gateway.credentials.bearer.token": token,
        "bundles.countersign.service": "gateway",
        "bundles.countersign.resource": "v1/policy/bundle",
        "bundles.countersign.polling.min_delay_seconds": "1",
        "bundles.countersign.polling.max_delay_seconds": "1",
        "bundles.countersign.polling.long_polling_timeout_seconds": "10",
    }
    return tuple(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))


@asynccontextmanager
async def offering(shelf: Shelf, port: int) -> AsyncIterator[None]:
    """Serve the bundle as the gateway does."""
    app = FastAPI()
    app.include_router(build_bundle_router(shelf, TOKEN))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="critical", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event for it
        await asyncio.sleep(0.01)
    yield
    server.should_exit = server.force_exit = True
    await serving
