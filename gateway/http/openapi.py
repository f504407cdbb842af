"""`/openapi.json`: the HTTP API for programs (OpenAPI 3.1).

FastAPI knows paths and parameters. Here is what it cannot know: the bodies that routes read by
themselves, who may ask, how failures look, and the paths that are served past it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from msgspec import Struct

from gateway.http import problem

Json = dict[str, Any]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"
_TEXT: Final = {"type": "string"}
_OBJECT: Final = {"type": "object"}
_SCHEMES: Final = {
    "person": {
        "type": "http",
        "scheme": "bearer",
        "description": "A person's credential: from `countersign login`, or their secret.",
    },
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "Id and secret of a launcher or an agent.",
    },
    "agent": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token from `POST /oauth/token`.",
    },
}
_CALLERS: Final[list[tuple[str, list[Json]]]] = [
    (r"/v1/(tools|calls)|/access/", [{"agent": []}]),
    (r"/v1/runs", [{"client": []}, {"person": []}]),
    (r"/oauth/introspect", [{"client": []}, {"person": []}]),
    (r"/oauth/(token|revoke)", [{"client": []}, {}]),
    (r"/\.well-known/|/oauth/|/livez|/readyz", []),
    (r"", [{"person": []}]),
]
"""Who may ask, by how a path begins; the first that fits."""

_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457. `code` is stable and for programs.",
    "required": ["type", "title", "status", "code"],
    "properties": {
        **dict.fromkeys(("type", "title", "code", "detail", "hint", "stage", "instance"), _TEXT),
        "status": {"type": "integer"},
    },
}
_OAUTH_ERROR: Final = {
    "type": "object",
    "description": "RFC 6749 §5.2.",
    "required": ["error"],
    "properties": dict.fromkeys(("error", "error_description"), _TEXT),
}
_CALL_BODY: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "arguments": {**_OBJECT, "description": "As the tool's input schema says."},
        "claimed": {**_OBJECT, "description": "What the agent says of itself; believed by nobody."},
    },
}


class Taken(NamedTuple):
    """The JSON body that a route reads."""

    kind: type[Struct]
    required: bool


def takes(kind: type[Struct], *, required: bool = True) -> Callable[[Endpoint], Endpoint]:
    """Say which JSON body a route reads, and whether there must be one."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.takes = Taken(kind, required)  # type: ignore[attr-defined]
        return endpoint

    return mark


def build_document(api: FastAPI, routers: Sequence[APIRouter]) -> Json:
    """Return the document of an application with the routes of these routers."""
    document = get_openapi(title=api.title, version=api.version, routes=api.routes)
    bodies: dict[tuple[str, str], Taken] = {
        (path, method.lower()): endpoint.takes
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and hasattr(endpoint := route.endpoint, "takes")
        for path in [route.path_format]
        for method in route.methods or ()
    }
    kinds = list(dict.fromkeys(taken.kind for taken in bodies.values()))
    refs, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    ref_of = dict(zip(kinds, refs, strict=True))
    for (path, method), taken in bodies.items():
        body = {"required": taken.required, **_content(ref_of[taken.kind])}
        document["paths"][path][method]["requestBody"] = body
    document["paths"].update(_build_calls())
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    document["components"] = {
        "schemas": {**schemas, "Problem": _PROBLEM, "OAuthError": _OAUTH_ERROR},
        "securitySchemes": _SCHEMES,
    }
    return document


def _complete(path: str, operation: Json) -> None:
    """Say who may ask, and how every failure is told."""
    operation["security"] = next(who for begin, who in _CALLERS if re.match(begin, path))
    oauth = path.startswith("/oauth/")
    schema = {"$ref": _REF.format(name="OAuthError" if oauth else "Problem")}
    media_type = _JSON if oauth else problem.MEDIA_TYPE
    failure = {"description": "A failure", "content": {media_type: {"schema": schema}}}
    operation["responses"].pop("422", None)  # FastAPI's own, which nobody is ever told
    operation["responses"]["default"] = failure


def _build_calls() -> Json:
    """Return the paths of the agent's REST surface, which no framework serves."""
    done = {"200": {"description": "The tool's result", **_content(_OBJECT)}}
    held = {"202": {"description": "Held for a person; `Location` tells what became of it"}}
    name = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {**_TEXT, "maxLength": 255}}
    return {
        "/v1/tools": {
            "get": {
                "tags": ["calls"],
                "summary": "List the tools that the token may use",
                "responses": {"200": {"description": "Names and schemas"}},
            }
        },
        "/v1/tools/{name}/call": {
            "post": {
                "tags": ["calls"],
                "summary": "Call a tool",
                "parameters": [name, key],
                "requestBody": {"required": False, **_content(_CALL_BODY)},
                "responses": {**done, **held},
            }
        },
        "/v1/calls/{id}": {
            "get": {
                "tags": ["calls"],
                "summary": "Tell what became of a call",
                "parameters": [{**name, "name": "id"}],
                "responses": {**done, **held},
            }
        },
    }


def _content(schema: Json) -> Json:
    return {"content": {_JSON: {"schema": schema}}}
