"""The part of the composition root that has people told of what policy wants them to know."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

from connectors.auth_binding import UpstreamAuth
from connectors.manifest import load_auth_headers
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.bounded_http import build_client
from gateway.adapters.webhook import Webhook
from gateway.config.models import NotifySection
from gateway.core.ports import Ids
from gateway.notices import Deliver, NoticeDesk


def start_notices(
    config: NotifySection, *, audit: FileAuditLog, ids: Ids, stack: AsyncExitStack
) -> NoticeDesk:
    """Return what takes notices, going on with those that the log knows no end of.

    Raises `ConfigurationError` for a token that is not there. `stack` closes it.
    """
    deliver: Deliver | None = None
    if config.url is not None:
        place, token = config.token_from, ""
        if place is not None:
            token = load_auth_headers(UpstreamAuth("value", place), os.environ)["value"]
        http = build_client()
        stack.push_async_callback(http.aclose)
        deliver = Webhook(http, config.url, token).deliver
    desk = NoticeDesk(audit=audit, ids=ids, deliver=deliver)
    stack.push_async_callback(desk.close)
    if deliver is not None:
        desk.resume(audit.recovered.notices)
    return desk
