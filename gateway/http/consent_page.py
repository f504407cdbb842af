"""The page on which a person lets an app act for them: what, for how long, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

from msgspec import Struct
from starlette.responses import Response

from gateway.core.oauth.apps import REGISTERED_PREFIX, App
from gateway.core.oauth.authorization import Asked, Choice, choices, speaker
from gateway.core.oauth.client_documents import LOOPBACK
from gateway.core.tokens.grants import EffectOf
from gateway.core.tokens.token import Grant
from gateway.http.pages.markup import Html, fill, hidden, join, notice, page

TOOLS_SHOWN_MAX: Final = 40
KEEP: Final = "keep."
"""Begins the names of the fields that say what stays ticked."""

WORDS: Final = {
    "read": "Look things up",
    "create": "Create new things",
    "update": "Change what is there",
    "delete": "Delete things",
    "external_send": "Send messages or data to others",
    "money": "Move money",
    "privilege": "Change rights and settings",
}


class ToolSeen(Protocol):
    """A tool of the catalog, as far as the page tells of it."""

    @property
    def server(self) -> str:
        """Its server's id."""
        ...

    @property
    def name(self) -> str:
        """Its name there."""
        ...

    @property
    def effect(self) -> str:
        """What reviewers say it does."""
        ...

    @property
    def usable(self) -> bool:
        """Whether it can be called at all."""
        ...


class Question(Struct, frozen=True, kw_only=True):
    """What a person is asked. `query`: the app's request, to be read again with the answer."""

    app: App
    asked: Asked
    grants: tuple[Grant, ...]
    person: str
    csrf: str
    query: str
    deadline_s: int


def consent_page(
    question: Question,
    *,
    tools: Callable[[], Iterable[ToolSeen]],
    effect_of: EffectOf,
    path: str,
    error: str = "",
) -> Response:
    """Return the page. What there are tools for is ticked; no tick gives more than the app has."""
    app, asked = question.app, question.asked
    found = choices(question.grants, effect_of)
    seen = [tool for tool in tools() if tool.usable]
    servers = dict.fromkeys(server for server, _ in found)
    body = join(
        [
            notice(error, bad=True),
            _origin(app),
            fill(_WHO, person=question.person, agent=app.agent),
            fill('<form method="post" action="{path}">', path=path),
            hidden(csrf=question.csrf, request=question.query),
            *(_server(server, found, question.grants, seen) for server in servers),
            fill(_UNTIL, time=_duration(question.deadline_s), place=place_of(asked.redirect_uri)),
            _BUTTONS,
        ]
    )
    return page(
        f"Let {app.name} act for you?", body, form_targets=(_form_target(asked.redirect_uri),)
    )


def kept_choices(form: Iterable[str], offered: Sequence[Choice]) -> frozenset[Choice]:
    """Return what of `offered` the fields of an answer keep. What was never offered is not kept."""
    names = set(form)
    return frozenset(one for one in offered if _field(one) in names)


def _field(choice: Choice) -> str:
    return f"{KEEP}{choice[0]}.{choice[1]}"


def _origin(app: App) -> Html:
    if app.id.startswith(REGISTERED_PREFIX):
        text = "It registered itself and chose its own name: nobody here has checked who it is."
        return notice(text, bad=True)
    if app.site:
        return fill(_SITE, site=app.site)
    return Html("<p>The operators of this gateway have set it up.</p>")


def _server(
    server: str, found: Sequence[Choice], grants: Sequence[Grant], seen: Sequence[ToolSeen]
) -> Html:
    rows = []
    for one, effect in found:
        if one != server:
            continue
        tools = _tools(server, effect, grants, seen)
        row = fill(
            _ROW,
            field=_field((server, effect)),
            checked=Html(" checked") if tools else Html(""),
            words=WORDS[effect],
            tools=tools or "no tools at present; tick to allow those that come",
        )
        rows.append(row)
    return fill(_FIELDSET, server=server, rows=join(rows))


def _tools(server: str, effect: str, grants: Sequence[Grant], seen: Sequence[ToolSeen]) -> str:
    """Name the tools that a tick is about; empty for none."""
    names = []
    for tool in seen:
        if (tool.server, tool.effect) != (server, effect):
            continue
        grant = speaker(grants, server, tool.name, effect)
        if grant is not None:
            limits = ", ".join(sorted(grant.constraints))
            names.append(f"{tool.name} (limited at {limits})" if limits else tool.name)
    more = f" and {len(names) - TOOLS_SHOWN_MAX} more" if len(names) > TOOLS_SHOWN_MAX else ""
    return ", ".join(names[:TOOLS_SHOWN_MAX]) + more


def _duration(seconds: int) -> str:
    minutes = seconds // 60
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} minutes"
    return f"{minutes // 60} hours"


def place_of(uri: str) -> str:
    """Where the answer goes to, in words."""
    parts = urlsplit(uri)
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return "a program on this computer"
    return parts.netloc if parts.scheme == "https" else f"the program for {parts.scheme}: links"


def _form_target(uri: str) -> str:
    """What the browser has to allow as the end of the form's way (CSP `form-action`)."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc}"
    return f"{parts.scheme}:"


_SITE: Final = """\
<p>It comes from <strong>{site}</strong> and gives itself its name. Nobody here has set it up; \
go on only if you know this site.</p>"""

_WHO: Final = """\
<p>You are signed in as <strong>{person}</strong>. What it does, it does as the agent \
<strong>{agent}</strong> on your behalf, and it is on record. Policy still judges each call.</p>"""

_ROW: Final = """\
<p class="choice"><label><input type="checkbox" name="{field}" value="on"{checked}> {words}</label>
<span class="hint">{tools}</span></p>"""

_FIELDSET: Final = """\
<fieldset><legend>{server}</legend>
{rows}
</fieldset>"""

_UNTIL: Final = """\
<p>For {time}, or until it is taken back. Your browser then goes to <strong>{place}</strong>.</p>"""

_BUTTONS: Final = Html(
    """\
<button type="submit" name="decision" value="allow">Allow what is ticked</button>
<button type="submit" name="decision" value="deny" class="second">Decline</button>
</form>"""
)
