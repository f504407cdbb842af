"""The part of the composition root that joins the log to its witnesses and anchors."""

from __future__ import annotations

import os
from functools import partial
from typing import Final

import httpx
import structlog

from connectors.auth_binding import UpstreamAuth
from connectors.manifest import load_auth_headers
from gateway.adapters.audit.audit_keys import load_or_create
from gateway.adapters.audit.log_files import LogFiles
from gateway.adapters.bounded_http import build_client
from gateway.adapters.witness.file_anchor import FileAnchor
from gateway.adapters.witness.s3_anchor import Credentials, S3Anchor
from gateway.adapters.witness.witness_client import Introduce, Witness
from gateway.adapters.witness.witness_file import WitnessFile
from gateway.adapters.witness.witnessing import Anchor, Settings, Witnessing
from gateway.config.models import AnchorSection, AuditSection, FileAnchorSection, S3AnchorSection
from gateway.core.log.cosignature import build_introduction, parse_witness_vkey
from gateway.core.log.note import parse_vkey
from gateway.core.ports import AuditLog, Clock, Ids

_log: Final = structlog.get_logger("gateway.witness")


def build_witnessing(
    config: AuditSection, *, audit: AuditLog, clock: Clock, ids: Ids
) -> tuple[Witnessing, httpx.AsyncClient] | None:
    """Return what has the log witnessed, and the client to be closed after it; None for nobody.

    Raises `ConfigurationError` for a key or credential that is not there or no secret.
    """
    if not config.witness.witnesses and not config.anchors:
        return None
    http, files = build_client(), LogFiles(config.dir)
    introduce = _build_introduction(config)
    witnesses = []
    for entry in config.witness.witnesses:
        key = parse_witness_vkey(entry.vkey)
        witnesses.append(
            Witness(
                name=entry.name or key.name,
                url=entry.url,
                key=key,
                introduce=introduce,
                prove=files.prove,
                http=http,
                clock=clock,
            )
        )
    witnessing = Witnessing(
        audit=audit,
        newest=files.newest,
        witnesses=witnesses,
        anchors=[_build_anchor(section, http, clock) for section in config.anchors],
        file=WitnessFile(config.dir, origin=config.origin),
        settings=Settings(
            quorum=config.witness.quorum,
            interval_s=config.witness.interval_s,
            alert_after_s=config.witness.alert_after_s,
        ),
        clock=clock,
        ids=ids,
    )
    witnessing.resume()
    return witnessing, http


def _build_introduction(config: AuditSection) -> Introduce:
    signer, vkey = load_or_create(config.witness.key, name=config.origin)
    if config.witness.witnesses:
        _log.info("witness_key", vkey=vkey)
    return partial(build_introduction, key=parse_vkey(vkey), signer=signer)


def _build_anchor(section: AnchorSection, http: httpx.AsyncClient, clock: Clock) -> Anchor:
    if isinstance(section, FileAnchorSection):
        return FileAnchor(section.path)
    credentials = partial(_load_credentials, section)
    credentials()  # one that is not there is told at the start
    return S3Anchor(
        url=section.url or f"https://s3.{section.region}.amazonaws.com",
        bucket=section.bucket,
        prefix=section.prefix,
        region=section.region,
        lock_days=section.lock_days,
        credentials=credentials,
        http=http,
        clock=clock,
    )


def _load_credentials(section: S3AnchorSection) -> Credentials:
    token = section.session_token_from
    return Credentials(
        _load_secret(section.access_key_from),
        _load_secret(section.secret_key_from),
        "" if token is None else _load_secret(token),
    )


def _load_secret(place: str) -> str:
    return load_auth_headers(UpstreamAuth("value", place), os.environ)["value"]
