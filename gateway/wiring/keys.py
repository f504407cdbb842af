"""What the composition root makes of the keys that sign access tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fastapi import APIRouter

from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.adapters.keys.key_keeper import TokenKeys
from gateway.adapters.keys.key_ring_file import KeyRingFile
from gateway.adapters.keys.key_sources import GivenKeys, KeySource, OwnKeys
from gateway.config.models import TokensSection
from gateway.config.settings import Config
from gateway.core.ports import Clock, Ids
from gateway.core.tokens.key_ring import Timing
from gateway.http.humans import Admit
from gateway.http.token_keys import TokenKeysDeps, build_token_keys_router

KEYS_CHECK_S: Final = 10.0
"""How often the ring and the folders of keys are looked at, in seconds."""

_HOUR_S: Final = 3_600


def build_token_keys(config: Config, *, log: FileAuditLog, clock: Clock, ids: Ids) -> TokenKeys:
    """Return the token keys of a configuration, to be opened once the log is."""
    tokens, environment = config.tokens, config.environment
    source: KeySource = OwnKeys(tokens.key, environment=environment)
    if tokens.keys:
        source = GivenKeys(tokens.keys, environment=environment, environ=os.environ)
    return TokenKeys(
        store=KeyRingFile(find_ring(tokens), environment=environment),
        source=source,
        record=log.record,
        clock=clock,
        ids=ids,
        timing=Timing(max_age_s=tokens.key_max_age_h * _HOUR_S),
        environment=environment,
        folder=tokens.key.parent,
    )


def find_ring(tokens: TokensSection) -> Path:
    """Return where the ring of a configuration is."""
    return tokens.ring or tokens.key.with_name(f"{tokens.key.stem}.ring.json")


def build_router(keys: TokenKeys, admit: Admit) -> APIRouter:
    """Build the admin routes of the token keys."""
    return build_token_keys_router(TokenKeysDeps(view=keys.view, rotate=keys.rotate, admit=admit))
