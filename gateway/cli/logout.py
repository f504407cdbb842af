"""`countersign logout`: the end of what `countersign login` began."""

from __future__ import annotations

from gateway.cli.admin_api import check_url, fail
from gateway.cli.credentials import load_credential
from gateway.cli.exits import Exit
from gateway.cli.login import Url, keep, revoke, say


def logout(url: Url = None) -> None:
    """Sign out: the gateway ends the session, and this machine forgets it."""
    gateway = check_url(url)
    kept = load_credential(gateway)
    keep(gateway, None)
    if kept is None:
        say("nobody was signed in")
        return
    if not revoke(gateway, kept):
        fail(Exit.ERROR, "forgotten here, but the gateway did not end the session; it runs out")
    say("signed out")
