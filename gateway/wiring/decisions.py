"""The decision log, wired: off, to a file, or to somebody who takes OPA's decision logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any

from connectors.auth_binding import UpstreamAuth
from connectors.manifest import load_auth_headers
from gateway.adapters.bounded_http import build_client
from gateway.adapters.policy.decision_log import DecisionLog, Sink
from gateway.adapters.policy.decision_sinks import FileSink, HttpSink
from gateway.adapters.policy.observed_policy import ObservedPolicy
from gateway.config.decision_log import DecisionLogSection
from gateway.config.settings import Config
from gateway.core.ports import Clock, Ids, PolicyEngine


class Decisions:
    """What tells the decision log, if there is one."""

    def __init__(self, log: DecisionLog | None) -> None:
        self._log = log

    def beside(self, engine: PolicyEngine) -> PolicyEngine:
        """Return an engine whose decisions are logged; the same one where nothing logs them."""
        return engine if self._log is None else ObservedPolicy(engine, self._log.observe)

    @property
    def status(self) -> Callable[[], Mapping[str, Any]] | None:
        """What `/readyz` tells of it."""
        return None if self._log is None else self._log.status


def start_decisions(config: Config, *, clock: Clock, ids: Ids, stack: AsyncExitStack) -> Decisions:
    """Return the decision log, writing. Raises `ConfigurationError` for a token that is not there.

    `stack` closes it.
    """
    section = config.decision_log
    sink = _build_sink(section, stack)
    if sink is None:
        return Decisions(None)
    labels = {
        "app": "countersign",
        "id": config.audit.origin,
        "version": version("countersign"),
        "environment": config.environment,
    }
    log = DecisionLog(sink, labels=labels, mask=section.mask, clock=clock, ids=ids)
    log.start()
    stack.push_async_callback(log.close)
    return Decisions(log)


def _build_sink(section: DecisionLogSection, stack: AsyncExitStack) -> Sink | None:
    if section.file is not None:
        return FileSink(section.file, rotate_bytes=section.rotate_bytes, keep=section.keep)
    if section.url is None:
        return None
    token = ""
    if section.token_from is not None:
        token = load_auth_headers(UpstreamAuth("value", section.token_from), os.environ)["value"]
    http = build_client()
    stack.push_async_callback(http.aclose)
    return HttpSink(http, section.url, token)
