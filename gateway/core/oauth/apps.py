"""Apps: clients that a person lets act for them, by signing in and consenting in the browser.

An app is written down in the configuration, describes itself in a document at its `client_id` (a
Client ID Metadata Document), or registered itself (RFC 7591). Its authority is a run of its agent,
on behalf of the person who consented; it never gives any by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from gateway.core.tokens.clients import Launcher, is_secret
from gateway.core.tokens.token import Grant

ANYBODY: Final = "*"
ANY_HOST: Final = "*"
REGISTERED_PREFIX: Final = "dyn~"
"""Begins the ids of apps that registered themselves. No id of the configuration has a `~`."""


class App(Struct, frozen=True, kw_only=True):
    """An app. `grants` is the most that a person can let it have; `agent` is who acts for it.

    `secret_hash` empty: a public client, which proves itself by PKCE alone, so its refresh tokens
    rotate. `dpop`: its tokens are bound to a key of its own (RFC 9449). `site` is the host that a
    person is shown for an app that names itself; empty for one of the configuration. `humans`:
    whom it may act for; `*` stands for anybody.
    """

    id: str
    name: str
    agent: str
    redirect_uris: tuple[str, ...]
    grants: tuple[Grant, ...]
    owner: str = ""
    secret_hash: str = ""
    dpop: bool = False
    site: str = ""
    humans: tuple[str, ...] = (ANYBODY,)

    @property
    def is_stranger(self) -> bool:
        """Whether it names itself: where it sends people, nobody here has looked at."""
        return bool(self.site) or self.id.startswith(REGISTERED_PREFIX)

    def is_for(self, person: str) -> bool:
        """Whether this person may let it act for them."""
        return bool({ANYBODY, person} & set(self.humans))


class Strangers(Struct, frozen=True, kw_only=True):
    """What apps that name themselves may be: all act as one agent and have the same most.

    `documents`: whether a URL is taken for a `client_id`, and of which hosts (`*`: of any).
    `registration`: whether apps may register themselves.
    """

    agent: str = ""
    grants: tuple[Grant, ...] = ()
    documents: bool = False
    hosts: tuple[str, ...] = ()
    registration: bool = False


class Apps:
    """The apps known now without asking anybody, by id: configured and registered ones."""

    def __init__(self, apps: Iterable[App] = (), *, strangers: Strangers | None = None) -> None:
        self._apps = {app.id: app for app in apps}
        self.strangers: Final = strangers or Strangers()

    @property
    def registered(self) -> int:
        """How many apps registered themselves."""
        return sum(app_id.startswith(REGISTERED_PREFIX) for app_id in self._apps)

    def put(self, app: App) -> None:
        """Know an app from now on."""
        self._apps[app.id] = app

    def get(self, app_id: str) -> App | None:
        """Return an app, or None."""
        return self._apps.get(app_id)

    def authenticate(self, app: App, secret: str | None) -> bool:
        """Whether `app` is who sent this. A public app has no secret, and sends none.

        Constant time in the secret. One that sends a secret it does not have is not believed.
        """
        if not app.secret_hash:
            return secret is None
        return secret is not None and is_secret(secret, app.secret_hash)

    def launcher(self, app_id: str) -> Launcher | None:
        """Return what an app may give to runs, as a launcher of its one agent; None if nothing.

        An app that describes itself at a URL needs no fetch here: what it may give is configured.
        """
        app = self._apps.get(app_id)
        if app is not None:
            return as_launcher(app)
        guest = self.guest(app_id)
        return None if guest is None else as_launcher(guest)

    def guest(self, app_id: str) -> App | None:
        """Return an app that describes itself at a URL, without what its document says of it."""
        strangers = self.strangers
        named_by_url = app_id.startswith(("https://", "http://"))
        if named_by_url and strangers.documents and is_allowed_host(app_id, strangers.hosts):
            return self.stranger(app_id, name="", redirect_uris=())
        return None

    def owners(self, app_id: str) -> tuple[str, ...]:
        """Return who answers for an app; empty for one that nobody owns or knows."""
        app = self._apps.get(app_id)
        return (app.owner,) if app is not None and app.owner else ()

    def stranger(
        self,
        app_id: str,
        *,
        name: str,
        redirect_uris: tuple[str, ...],
        site: str = "",
        secret_hash: str = "",
    ) -> App:
        """Build an app that names itself: what it may have is configured, the rest is its own."""
        return App(
            id=app_id,
            name=name,
            agent=self.strangers.agent,
            redirect_uris=redirect_uris,
            grants=self.strangers.grants,
            secret_hash=secret_hash,
            site=site,
        )


def as_launcher(app: App) -> Launcher:
    """Return `app` as the launcher of its runs. It has no secret: it creates none by itself."""
    return Launcher(
        id=app.id,
        secret_hash="",
        owner=app.owner,
        may_launch=(app.agent,),
        grants=app.grants,
        humans=app.humans,
    )


def is_allowed_host(url: str, hosts: tuple[str, ...]) -> bool:
    """Whether the operator allows documents of this URL's host. `*.a.example` is any below it."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return any(
        one in (ANY_HOST, host) or (one.startswith("*.") and host.endswith(one[1:]))
        for one in hosts
    )
