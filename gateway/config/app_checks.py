"""What no single key of an app can tell: agents that are not there, and codes sent astray."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.apps import AppSection, OAuthSection
from gateway.config.file import KeyPath
from gateway.core.oauth.authorization import find_redirect_fault

Finding = tuple[KeyPath, str, str]
"""Path, message, hint."""

_HINT = "name an agent of `clients`"


def find_app_faults(app: AppSection, path: KeyPath, agents: frozenset[str]) -> Iterator[Finding]:
    """Yield every mistake of an app."""
    if app.agent not in agents:
        yield (*path, "agent"), f"there is no agent `{app.agent}`", _HINT
    for number, uri in enumerate(app.redirect_uris):
        if (fault := find_redirect_fault(uri)) is not None:
            hint = "write `https://…`, `http://127.0.0.1/…`, or a scheme of the app's own"
            yield (*path, "redirect_uris", number), fault, hint


def find_oauth_faults(section: OAuthSection, agents: frozenset[str]) -> Iterator[Finding]:
    """Yield every mistake about apps that name themselves."""
    documents, path = (
        section.client_id_metadata_documents,
        ("oauth", "client_id_metadata_documents"),
    )
    if documents.enabled and not documents.allowed_hosts:
        message = "no host's documents are fetched"
        yield (*path, "allowed_hosts"), message, "name hosts, or `*` for any"
    if (documents.enabled or section.dynamic_registration) and documents.agent not in agents:
        message = f"there is no agent `{documents.agent}`"
        yield (*path, "agent"), message, _HINT
