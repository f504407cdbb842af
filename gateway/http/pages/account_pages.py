"""The page on which people see to their own account."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from gateway.core.approvals.sessions import Session, SignedIn
from gateway.core.people.accounts import PASSWORD_MIN_CHARS, Passkey
from gateway.http.pages.markup import Html, fill, hidden, join, notice, page


def account_page(
    signed_in: SignedIn,
    *,
    passkeys: Sequence[Passkey],
    sessions: Sequence[Session],
    local: bool,
    said: str = "",
    error: str = "",
    status: int = 200,
) -> Response:
    """Return who somebody is here, what they sign in with, and where they are signed in."""
    kept = hidden(csrf=signed_in.csrf)
    parts = [
        notice(error, bad=True) or notice(said),
        fill("<p>You are <strong>{who}</strong>.</p>", who=signed_in.person),
    ]
    if local:
        parts += [_passkeys(passkeys, kept), fill(_WORD_FORM, kept=kept, least=PASSWORD_MIN_CHARS)]
    parts += [_sessions(sessions, signed_in, kept), fill(_SIGN_OUT, kept=kept)]
    return page("Your account", join(parts), status=status, script=local)


def _passkeys(passkeys: Sequence[Passkey], kept: Html) -> Html:
    rows = [
        fill(_PASSKEY, label=one.label, since=_day(one.created_at), id=one.credential_id, kept=kept)
        for one in passkeys
    ]
    return fill(_PASSKEYS, rows=join(rows), kept=kept)


def _sessions(sessions: Sequence[Session], signed_in: SignedIn, kept: Html) -> Html:
    names = {"browser": "Browser", "cli": "Command line"}
    rows = [
        fill(
            "<li><span>{kind}, since {since}{here}</span></li>",
            kind=names[one.kind],
            since=_minute(one.created_at),
            here=" (this one)" if one.sid == signed_in.sid else "",
        )
        for one in sessions
    ]
    return fill(_SESSIONS, rows=join(rows), kept=kept)


def _day(at_s: int) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%d")


def _minute(at_s: int) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


_PASSKEY: Final = """\
<li><span>{label}, since {since}</span>
<form method="post" action="/account/passkeys/remove">{kept}
<input type="hidden" name="id" value="{id}">
<button type="submit" class="second small" aria-label="Remove {label}">Remove</button>
</form></li>"""

_PASSKEYS: Final = """\
<h2>Passkeys</h2>
<ul class="rows">{rows}</ul>
<form id="passkey-create" method="post" action="/account">{kept}
<p class="notice bad" role="alert" hidden></p>
<label for="label">Name of a new passkey</label>
<input id="label" name="label" value="My device" maxlength="64" required>
<button type="submit">Add a passkey</button></form>"""

_WORD_FORM: Final = """\
<h2>Password</h2>
<form method="post" action="/account/password">{kept}
<label for="old">Password now</label>
<input id="old" name="old" type="password" autocomplete="current-password" maxlength="256">
<label for="password">New password</label>
<input id="password" name="password" type="password" autocomplete="new-password" required
 minlength="{least}" maxlength="256">
<button type="submit" class="second">Change the password</button></form>"""

_SESSIONS: Final = """\
<h2>Signed in</h2>
<ul class="rows">{rows}</ul>
<form method="post" action="/account/sessions/end">{kept}
<button type="submit" class="second">Sign out everywhere else</button></form>"""

_SIGN_OUT: Final = """\
<form method="post" action="/signout">{kept}
<button type="submit">Sign out</button></form>"""
