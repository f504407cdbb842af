"""`countersign logout`: the end of what `countersign login` began."""

from __future__ import annotations

import httpx

from gateway.cli.admin_api import check_url, fail
from gateway.cli.credentials import load_credential, save_credential
from gateway.cli.exits import Exit
from gateway.cli.login import Url, post_form, say


def logout(url: Url = None) -> None:
    """Sign out: the gateway ends the session, and this machine forgets it."""
    gateway = check_url(url)
    kept = load_credential(gateway)
    save_credential(gateway, None)
    if kept is None:
        say("nobody was signed in")
        return
    status, _ = post_form(gateway, "/signin/revoke", {"token": kept["token"]})
    if status != httpx.codes.OK:
        fail(Exit.ERROR, "forgotten here, but the gateway did not end the session; it runs out")
    say("signed out")
