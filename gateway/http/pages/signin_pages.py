"""The pages on which people sign in: the form, the claim, and what a command line asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from starlette.responses import Response

from gateway.core.people.accounts import PASSWORD_MIN_CHARS
from gateway.http.pages.markup import Html, fill, hidden, join, notice, page

TITLE: Final = "Sign in"


class Offer(Struct, frozen=True, kw_only=True):
    """What somebody may sign in with. `providers`: id → what people call it.

    `acr`, `max_age`: what was asked for. `person`: whose turn it is again, where it is a step-up.
    """

    next_path: str
    local: bool
    providers: Mapping[str, str]
    acr: str = ""
    max_age: str = ""
    person: str = ""


def sign_in_page(offer: Offer, *, error: str = "", status: int = 200) -> Response:
    """Return the sign-in form."""
    kept = hidden(next=offer.next_path, acr=offer.acr, max_age=offer.max_age)
    parts = [notice(error, bad=True)]
    if offer.person:
        parts.append(
            fill("<p>This needs you to prove once more that you are {who}.</p>", who=offer.person)
        )
    parts += [
        fill(_PROVIDER, id=id_, label=label, kept=kept) for id_, label in offer.providers.items()
    ]
    if offer.local:
        parts.append(fill(_PASSKEY, next=offer.next_path))
        if offer.acr != "strong":
            parts.append(fill(_WORD_FORM, kept=kept, who=offer.person))
    if not offer.local and not offer.providers:
        parts.append(
            Html(
                "<p>Nobody can sign in here: local accounts are off and there is no "
                "identity provider.</p>"
            )
        )
    return page(TITLE, join(parts), status=status, script=offer.local)


def claim_page(
    code: str, person: str, *, chooses: bool, error: str = "", status: int = 200
) -> Response:
    """Return the form that turns a claim into an account. `chooses`: the id is still open."""
    who = fill(_CLAIM_ID, value=person) if chooses else Html("")
    body = fill(_CLAIM, error=notice(error, bad=True), code=code, who=who, least=PASSWORD_MIN_CHARS)
    return page("Claim your account", body, status=status)


def device_page(
    csrf: str, *, code: str = "", error: str = "", done: str = "", status: int = 200
) -> Response:
    """Return the form for the code that a command line shows."""
    if done:
        return page("Command line", notice(done))
    body = fill(_DEVICE, error=notice(error, bad=True), csrf=hidden(csrf=csrf), code=code)
    return page("Sign a command line in", body, status=status)


def device_confirm_page(csrf: str, code: str, *, who: str, asked_from: str) -> Response:
    """Return the question whether a command line may act as somebody."""
    kept = hidden(csrf=csrf, code=code)
    body = fill(_DEVICE_CONFIRM, kept=kept, code=code, who=who, asked_from=asked_from)
    return page("Sign a command line in", body)


def loopback_page(kept: Mapping[str, str], *, who: str, target: str) -> Response:
    """Return the question whether the command line on this machine may act as somebody."""
    body = fill(_LOOPBACK, kept=hidden(**kept), who=who)
    return page("Sign your command line in", body, form_targets=(target,))


def go_on_page(next_path: str) -> Response:
    """Return a page from which the browser goes on by itself, with strict cookies."""
    body = fill('<p>One moment … <a href="{to}">go on</a></p>', to=next_path)
    return page("Signed in", body, go_on_to=next_path)


def leave_page(url: str, label: str) -> Response:
    """Return a page from which the browser goes to an identity provider.

    Not a redirect: the answer to a form may lead nowhere but to our own pages (`form-action`).
    """
    body = fill('<p>Going to {label} … <a href="{to}">go on</a></p>', to=url, label=label)
    return page(TITLE, body, go_on_to=url)


def again_page(url: str) -> Response:
    """Return a page that asks again as our own: strict cookies do not come from other sites."""
    body = fill('<p>One moment … <a href="{to}">go on</a></p>', to=url)
    return page(TITLE, body, go_on_to=url)


def error_page(title: str, text: str, *, status: int) -> Response:
    """Return what went wrong, and where to begin anew."""
    body = join([notice(text, bad=True), Html('<p><a href="/signin">Sign in</a></p>')])
    return page(title, body, status=status)


_PROVIDER: Final = """\
<form method="post" action="/signin/oidc/{id}">{kept}
<button type="submit">Sign in with {label}</button></form>"""

_PASSKEY: Final = """\
<form id="passkey-use" method="post" action="/signin">
<input type="hidden" name="next" value="{next}">
<p class="notice bad" role="alert" hidden></p>
<button type="submit" class="second">Sign in with a passkey</button></form>"""

_WORD_FORM: Final = """\
<p class="or">or</p>
<form method="post" action="/signin/password">{kept}
<label for="person">Your id</label>
<input id="person" name="person" value="{who}" autocomplete="username webauthn" required
 autocapitalize="none" spellcheck="false" maxlength="64">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required
 maxlength="256">
<button type="submit">Sign in</button></form>"""

_CLAIM: Final = """\
{error}
<form method="post" action="/claim">
<label for="code">Claim code</label>
<input id="code" name="code" value="{code}" autocomplete="one-time-code" required maxlength="128"
 autocapitalize="none" spellcheck="false">
<p class="hint">Good once. The first one is on the gateway's own screen.</p>
{who}
<label for="password">New password</label>
<input id="password" name="password" type="password" autocomplete="new-password" required
 minlength="{least}" maxlength="256" aria-describedby="password-hint">
<p class="hint" id="password-hint">At least {least} characters. A passkey can be added next.</p>
<button type="submit">Set up my account</button></form>"""

_CLAIM_ID: Final = """\
<label for="person">Your id</label>
<input id="person" name="person" value="{value}" autocomplete="username" maxlength="64"
 autocapitalize="none" spellcheck="false" aria-describedby="person-hint">
<p class="hint" id="person-hint">Letters, digits and <code>._@-</code>. Needed for the first
account only.</p>"""

_DEVICE: Final = """\
{error}
<form method="get" action="/device">
<label for="code">Code on your command line's screen</label>
<input id="code" name="user_code" value="{code}" class="code" autocomplete="one-time-code" required
 maxlength="16" autocapitalize="characters" spellcheck="false">
<button type="submit">Go on</button></form>"""

_DEVICE_CONFIRM: Final = """\
<p>A command line wants to act as <strong>{who}</strong> for a while. It shows this code:</p>
<p class="code">{code}</p>
<p class="hint">It asked from {asked_from}. If you did not start it just now, or the code differs,
refuse: somebody may be trying to use your account.</p>
<form method="post" action="/device">{kept}
<button type="submit" name="answer" value="allow">Allow</button>
<button type="submit" name="answer" value="refuse" class="second">Refuse</button></form>"""

_LOOPBACK: Final = """\
<p>The command line on this machine wants to act as <strong>{who}</strong> for a while.</p>
<p class="hint">If you did not run <code>countersign login</code> just now, close this page.</p>
<form method="post" action="/signin/cli">{kept}
<button type="submit">Allow</button></form>"""
