"""Apps that people let act for them, and what apps that name themselves may be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.base import HASH, Flag, GrantSection, Id, SecretHash, Section, Whole, section


class AppSection(Section):
    """An app that people sign in for: an editor, a desktop assistant, a web service."""

    kind: Literal["app"]
    id: Id = Field(description="letters, digits and `._@-`, at most 64")
    name: str = Field("", max_length=64, description="what people are told it is; by default `id`")
    owner: str = Field("", description="who answers for it; may not approve its runs' calls")
    agent: Id = Field(description="the id of the agent as which it acts")
    redirect_uris: tuple[str, ...] = Field(
        min_length=1, max_length=16, description="where codes may go; loopback with any port"
    )
    secret_hash: SecretHash | None = Field(None, description=f"{HASH}; none for a public app")
    humans: tuple[str, ...] = Field(
        ("*",), description="whom it may act for; `*` for anybody who signs in"
    )
    grants: tuple[GrantSection, ...] = Field(
        (), description="the most that a person can let it have"
    )
    dpop: Literal["optional", "required"] = Field(
        "optional", description="`required`: it gets only tokens that are bound to a key"
    )


class ClientDocumentsSection(Section):
    """Apps whose `client_id` is the URL of a document that describes them."""

    enabled: Flag = Field(default=False, description="whether such apps are served")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="hosts whose documents are fetched; `*.host` for those below, `*` for any"
    )
    agent: str = Field("", description="the id of the agent as which they all act")
    grants: tuple[GrantSection, ...] = Field(
        (), description="the most that a person can let any of them have"
    )


class OAuthSection(Section):
    """What people can let apps do, and for how long."""

    authorization_s: Whole = Field(
        28_800, ge=60, le=604_800, description="seconds that an authorization lives, 60 to 604800"
    )
    client_id_metadata_documents: ClientDocumentsSection = section(
        "apps that describe themselves at a URL"
    )
    dynamic_registration: Flag = Field(
        default=False, description="whether apps may register themselves, as those above"
    )
