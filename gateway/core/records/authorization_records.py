"""What the log keeps of authorizations by people: `authorization.*`, `client.register`.

INVARIANT: no code, token or secret stands in a record, and the person only inside an opening,
under that person's key. What was granted stands there in full, so that nobody needs the digest's
preimage to see what a person agreed to.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.core.canonical import digest_of
from gateway.core.entry import Entry, Opening
from gateway.core.oauth.apps import App
from gateway.core.oauth.authorization import Consent

_ALLOW_MAX: Final = 64


def build_granted(consent: Consent, app: App, op: str) -> Entry:
    """`authorization.grant`: a person lets an app act. Durable before the code leaves."""
    allow = [
        {"server": grant.server, "tool": grant.tool, "effects": list(grant.effects)}
        for grant in consent.grants[:_ALLOW_MAX]
        if grant.max_calls != 0
    ]
    fields: dict[str, Any] = {
        "client": consent.client_id,
        "agent": consent.agent,
        "resource": consent.resource,
        "scopes": list(consent.scopes),
        "grants": digest_of(msgspec.to_builtins(consent.grants)),
        "narrowed": consent.grants != app.grants,
        "allow": allow,
        "deadline": consent.deadline,
    }
    return Entry(type="authorization.grant", op=op, fields=fields, openings=(_by(consent.person),))


def build_refused(
    client_id: str, reason: str, op: str, *, person: str = "", run_id: str = ""
) -> Entry:
    """`authorization.refused`: a person said no, or a code or refresh token came twice.

    Once for each run that ended for it: whoever sends a spent code again and again fills no log.
    """
    fields: dict[str, Any] = {"client": client_id, "reason": reason}
    if run_id:
        fields |= {"run": run_id, "root": run_id}
    openings = (_by(person),) if person else ()
    event_id = f"authorization:{run_id}:{reason}" if run_id else None
    return Entry(
        type="authorization.refused", op=op, fields=fields, openings=openings, event_id=event_id
    )


def build_registered(app: App, op: str) -> Entry:
    """`client.register`: an app registered itself. Durable before it is told its id."""
    fields: dict[str, Any] = {
        "client": app.id,
        "public": not app.secret_hash,
        "redirect_uris": digest_of(list(app.redirect_uris)),
        "sites": sorted({_site(uri) for uri in app.redirect_uris}),
    }
    return Entry(type="client.register", op=op, fields=fields, event_id=f"client:{app.id}")


def _site(uri: str) -> str:
    """Scheme and host of a redirect URI: where codes of this app may go to."""
    return "/".join(uri.split("/", 3)[:3])[:128]


def _by(person: str) -> Opening:
    return Opening("by", person.encode(), person)
