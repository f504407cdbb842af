"""Which engine decides: regorus in workers of our own, or an OPA somewhere."""

from __future__ import annotations

import os
from typing import Final, Protocol

import structlog

from connectors.auth_binding import UpstreamAuth
from connectors.manifest import load_auth_headers
from gateway.adapters.opa.opa_endpoint import read_endpoint
from gateway.adapters.policy.policy_bundle import Bundle
from gateway.adapters.regorus.regorus_policy import RegorusPolicy
from gateway.config.settings import Config
from gateway.core.ports import PolicyEngine
from gateway.http.policy_bundle import Shelf

REGORUS: Final = "regorus"
_log: Final = structlog.get_logger("gateway.policy")


class Engine(PolicyEngine, Protocol):
    """A policy engine that runs, and takes another bundle while it does."""

    @property
    def healthy(self) -> bool:
        """Whether it could decide when it was last looked at."""
        ...

    @property
    def shelf(self) -> Shelf | None:
        """What an OPA pulls its bundle from; None where none does."""
        ...

    def set_tools(self, tools: dict[str, tuple[str, str]]) -> None:
        """Tell which tools there are: id → (server, effect)."""
        ...

    async def start(self) -> None:
        """Begin. Raises `ConfigurationError` and `PolicyError`."""
        ...

    async def stop(self) -> None:
        """End. Decisions under way fail."""
        ...

    async def activate(self, bundle: Bundle) -> None:
        """Switch to another bundle, once it is tried. The old one stays where that fails."""
        ...


def build_engine(config: Config, bundle: Bundle) -> Engine:
    """Return the engine that `policy.engine` names, not started.

    Raises `ConfigurationError` for certificates and references that lead nowhere.
    """
    section = config.policy
    if section.engine == REGORUS:
        return RegorusPolicy(bundle, workers=section.workers, deadline_ms=section.deadline_ms)
    return _build_opa(config, bundle)


def _build_opa(config: Config, bundle: Bundle) -> Engine:
    # aiohttp and requests take a third of a second to import: only where an OPA decides.
    from gateway.adapters.opa.opa_link import OpaAccess, OpaLink  # noqa: PLC0415
    from gateway.adapters.opa.opa_policy import OpaPolicy, OpaTimes  # noqa: PLC0415

    section, opa = config.policy, config.policy.opa
    access = OpaAccess(
        token=_load_secret(opa.token_from),
        ca=opa.ca,
        certificate=opa.certificate,
        key=opa.key,
    )
    endpoint = read_endpoint(section.engine)

    def report(trouble: str | None) -> None:
        if trouble is None:
            _log.info("policy_engine_ready", engine=str(endpoint))
        else:
            _log.error("policy_engine_trouble", engine=str(endpoint), problem=trouble)

    return OpaPolicy(
        bundle,
        OpaLink(endpoint, access),
        bundles=opa.bundles,
        deadline_ms=section.deadline_ms,
        times=OpaTimes(start_s=opa.start_s, pull_s=opa.pull_s),
        report=report,
    )


def load_bundle_token(config: Config) -> str:
    """Return the token by which an OPA may pull bundles; empty where none may."""
    opa = config.policy.opa
    return _load_secret(opa.bundle_token_from) if opa.bundles == "pull" else ""


def _load_secret(place: str | None) -> str:
    if place is None:
        return ""
    return load_auth_headers(UpstreamAuth("value", place), os.environ)["value"]
