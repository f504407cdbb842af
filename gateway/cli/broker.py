"""`countersign broker`: the process that holds the secrets for upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer

from connectors.http_pool import HttpPool
from gateway.adapters.broker.broker_privacy import hide_memory
from gateway.adapters.broker.broker_server import BrokerServer
from gateway.adapters.keys.token_keys import load_or_create_token_key, public_jwk
from gateway.adapters.system import SystemClock, SystemIds
from gateway.cli.config import DEFAULT_FILE, ConfigFile, read_config
from gateway.cli.exits import Exit
from gateway.config.settings import Config
from gateway.core.errors import ConfigurationError
from gateway.logs import configure_logging
from gateway.wiring.broker import (
    build_local_broker,
    check_credentials,
    find_bindings,
    load_manifests,
)

_log: Final = structlog.get_logger("gateway.broker")


def broker(
    config: ConfigFile = DEFAULT_FILE,
    jwks: Annotated[
        bool, typer.Option("--jwks", help="Print the key that signs assertions, and end.")
    ] = False,
) -> None:
    """Hold the secrets for upstreams and hand out credentials, until told to stop."""
    settings = read_config(config)
    try:
        if jwks:
            key = load_or_create_token_key(settings.credentials.assertion_key)
            print(json.dumps({"keys": [public_jwk(key)]}, indent=2))
            return
        path = _find_place(settings)
        configure_logging(settings.log.format, settings.log.level)
        asyncio.run(_serve(settings, path))
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(Exit.ERROR) from None


def _find_place(config: Config) -> Path:
    """Return where to listen. Raises `ConfigurationError` where nothing says."""
    if config.credentials.socket is None:
        raise ConfigurationError("credentials.socket: is missing; name the socket to listen at")
    return config.credentials.socket


async def _serve(config: Config, path: Path) -> None:
    section, clock = config.credentials, SystemClock()
    hide_memory()
    bindings = find_bindings(config, load_manifests(config))
    uid = os.getuid() if section.gateway_uid is None else section.gateway_uid
    async with HttpPool() as pool, contextlib.AsyncExitStack() as stack:
        local = build_local_broker(config, bindings, pool=pool, ids=SystemIds(), environ=os.environ)
        stack.push_async_callback(local.close)
        await check_credentials(local, bindings, clock)
        server = BrokerServer(local, clock=clock, uids={uid})
        await server.start(path)
        stack.push_async_callback(server.close)
        _log.info("broker_listening", path=str(path), servers=sorted(bindings))
        await _stopped()
        _log.info("broker_stopping")


async def _stopped() -> None:
    """Return when the process is asked to end."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
