"""What the composition root makes of people who sign in (docs/sign-in.md)."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx
from fastapi import APIRouter

from connectors.auth_binding import UpstreamAuth
from connectors.manifest import load_auth_headers
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.bounded_http import build_client
from gateway.adapters.signin.oidc_client import OidcProvider, OidcSettings
from gateway.adapters.signin.passkeys import WebauthnPasskeys
from gateway.adapters.signin.passwords import Argon2Passwords
from gateway.adapters.state.sql_accounts import SqlAccounts
from gateway.adapters.state.sql_sessions import SqlSessions, SqlTickets
from gateway.adapters.state.sql_store import SqlState
from gateway.config.models import OidcSection
from gateway.config.settings import Config
from gateway.core.approvals.declined import Declined
from gateway.core.people.registry import Person
from gateway.core.ports import Clock, Ids
from gateway.http.humans import Admit, Human
from gateway.http.signin import build_sign_in_router
from gateway.http.signin_account import build_account_router
from gateway.http.signin_claim import CLAIM_PATH, CLAIM_S, build_claim_routers, make_first_claim
from gateway.http.signin_cli import build_cli_router
from gateway.http.signin_desk import Enrol, SignInDeps, SignInLog
from gateway.http.signin_limits import SignInLimits
from gateway.http.signin_oidc import build_oidc_router, callback_path
from gateway.http.signin_sessions import Lifetimes, Sessions
from gateway.kill_switch import KillSwitch
from gateway.logs import print_line
from gateway.wiring.registry import Registered

TIDY_S: Final = 300.0


@dataclass(frozen=True)
class LivePeople:
    """People who may act now: neither suspended nor stopped."""

    registered: Registered
    kills: KillSwitch

    def find(self, person_id: str) -> Human | None:
        """Return somebody who may act now."""
        human = self.registered.humans.find(person_id)
        return None if human is None or self.kills.bars_person(human.id) else human

    def voids(self, person_id: str, at_s: int) -> bool:
        """Whether what a person was given at a time ended with a stop of theirs since."""
        return self.kills.voids(person_id, at_s)


@dataclass(frozen=True, kw_only=True)
class PeopleDesk:
    """Sign-in, put together. `sessions` says who is at a browser, or at a command line."""

    deps: SignInDeps
    has_admin: bool
    style: Literal["json", "console"]
    _http: httpx.AsyncClient
    _stores: tuple[SqlSessions, SqlTickets]

    @property
    def sessions(self) -> Sessions:
        """Who is signed in."""
        return self.deps.sessions

    def routers(self, admit: Admit) -> list[APIRouter]:
        """Build the pages, and what command lines and admins ask for."""
        return [
            build_sign_in_router(self.deps),
            build_oidc_router(self.deps),
            build_account_router(self.deps),
            build_cli_router(self.deps),
            *build_claim_routers(self.deps, admit),
        ]

    async def announce(self) -> None:
        """Print the claim that makes the first admin, where there is none.

        One line on stderr, whatever the log's level: it goes nowhere else that the logs may go.
        """
        code = await make_first_claim(self.deps, has_admin=self.has_admin)
        if code is not None:
            url = f"{self.sessions.origin}{CLAIM_PATH}?code={code}"
            print_line(self._word(url))

    def _word(self, url: str) -> str:
        hint = f"nobody is admin yet; claim it once, within {CLAIM_S // 3600} h"
        if self.style == "console":
            return f"{hint}: {url}"
        now = dt.datetime.fromtimestamp(self.deps.now_s(), dt.UTC).isoformat()
        line = {"event": "admin_unclaimed", "level": "warning", "timestamp": now}
        return json.dumps({**line, "hint": hint, "url": url})

    async def tidy(self) -> None:
        """Forget what is over, and write down what was only counted."""
        for store in self._stores:
            await store.forget_over(self.deps.now_s())
        await self.deps.log.flush()

    async def close(self) -> None:
        """Write down what was only counted, and let connections go."""
        await self._http.aclose()
        await self.deps.log.flush()


def build_people(
    config: Config,
    *,
    state: SqlState,
    audit: FileAuditLog,
    clock: Clock,
    ids: Ids,
    registered: Registered,
    kills: KillSwitch,
) -> PeopleDesk:
    """Connect everything that a sign-in meets. Nothing is asked of anybody yet."""
    section, http = config.sign_in, build_client()
    stores = SqlSessions(state), SqlTickets(state)
    people = LivePeople(registered, kills)
    sessions = Sessions(
        store=stores[0],
        humans=people,
        clock=clock,
        ids=ids,
        origin=config.public_url,
        lifetimes=Lifetimes(
            absolute_s=section.session_max_s,
            idle_s=section.session_idle_s,
            cli_s=section.cli_max_s,
        ),
    )
    host = urlsplit(config.public_url).hostname or ""
    deps = SignInDeps(
        sessions=sessions,
        tickets=stores[1],
        accounts=SqlAccounts(state),
        humans=people,
        passwords=Argon2Passwords() if section.local_accounts else None,
        passkeys=WebauthnPasskeys(origin=config.public_url, rp_id=host),
        providers={one.id: _build_provider(one, config, http, clock) for one in section.oidc},
        provision=_build_provision(registered),
        first_admin=_build_first_admin(registered),
        shares_secret=lambda who: _shares_secret(registered, who),
        has_own_secret=lambda who: _has_own_secret(registered, who),
        secret_of=lambda who: _secret_of(registered, who),
        is_taken=registered.desk.is_taken,
        trusted_proxies=tuple(ip_network(one) for one in section.trusted_proxies),
        is_provisioned=lambda who: _is_provisioned(registered, who),
        note_claim=_build_note_claim(registered),
        log=SignInLog(record=audit.record, clock=clock, ids=ids),
        limits=SignInLimits(),
        clock=clock,
        ids=ids,
    )
    has_admin = bool(registered.registry.admins)
    return PeopleDesk(
        deps=deps, has_admin=has_admin, style=config.log.format, _http=http, _stores=stores
    )


def _build_provider(
    section: OidcSection, config: Config, http: httpx.AsyncClient, clock: Clock
) -> OidcProvider:
    secret_from = section.client_secret_from
    settings = OidcSettings(
        id=section.id,
        label=section.label or section.id,
        issuer=section.issuer,
        client_id=section.client_id,
        secret=None if secret_from is None else lambda: _load_secret(secret_from),
        redirect_uri=config.public_url + callback_path(section.id),
        scopes=section.scopes,
        person_claim=section.person_claim,
        strong_acr=section.strong_acr,
        provisions=section.unknown_people == "provision",
    )
    return OidcProvider(settings, http=http, clock=clock)


def _build_provision(registered: Registered) -> Enrol:
    async def provision(person_id: str) -> bool:
        return not isinstance(await registered.desk.provision(person_id), Declined)

    return provision


def _build_first_admin(registered: Registered) -> Enrol:
    async def first_admin(person_id: str) -> bool:
        return not isinstance(await registered.desk.claim(Person(id=person_id)), Declined)

    return first_admin


def _build_note_claim(registered: Registered) -> Callable[[str, str, int], Awaitable[bool]]:
    async def note_claim(person_id: str, by: str, made_at: int) -> bool:
        noted = await registered.desk.note_claim(person_id, by, made_at)
        return not isinstance(noted, Declined)

    return note_claim


def _is_provisioned(registered: Registered, person_id: str) -> bool:
    body = registered.registry.active_person(person_id)
    return body is not None and body.provisioned


def _shares_secret(registered: Registered, person_id: str) -> bool:
    body = registered.registry.active_person(person_id)
    return body is None or body.secret_shared


def _has_own_secret(registered: Registered, person_id: str) -> bool:
    body = registered.registry.active_person(person_id)
    return body is not None and bool(body.secret_hash) and not body.secret_shared


def _secret_of(registered: Registered, person_id: str) -> str:
    body = registered.registry.active_person(person_id)
    return "" if body is None else body.secret_hash


def _load_secret(place: str) -> str:
    return load_auth_headers(UpstreamAuth("value", place), os.environ)["value"]
