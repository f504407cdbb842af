"""What `countersign policy search` searches over: the catalog's tools, and calls of a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct, structs

from connectors.catalog import Catalog
from connectors.listing import read_offers
from connectors.manifest import Manifest, load_manifest
from gateway.adapters.authoring.search import Ground, Seed
from gateway.adapters.authoring.search_constants import Constants
from gateway.adapters.authoring.search_runs import Stage, Step, World
from gateway.adapters.authoring.search_values import Arguments, Pool
from gateway.core.catalog import Tool
from gateway.core.errors import ConfigurationError
from gateway.core.policy.statement import Statement
from gateway.core.ports import PolicyEngine

SEEDS_MAX: Final = 500
_OPEN: Final = {"type": "object", "additionalProperties": True}
"""Stands for a schema that is not known. The gateway demands the upstream's own."""


class Tools(Struct, frozen=True):
    """Tools by id, and the schemas of each. `unknown`: those whose definition was not given."""

    tools: dict[str, Tool]
    schemas: dict[str, tuple[dict[str, Any], ...]]
    unknown: tuple[str, ...]


def load_tools(manifests: Iterable[Path], listings: Mapping[str, Path]) -> Tools:
    """Read what reviewers say, and what servers offer (`tools/list`), where that is given.

    Raises `ConfigurationError`.
    """
    catalog, schemas = Catalog(), dict[str, tuple[dict[str, Any], ...]]()
    unknown: list[str] = []
    for path in manifests:
        manifest = load_manifest(path)
        given = _read_listing(listings[manifest.id]) if manifest.id in listings else []
        offers, _ = read_offers(given)
        definitions = [
            offers[review.name].raw if review.name in offers else _stand_in(review.name)
            for review in manifest.tools
        ]
        pinned, _ = read_offers(definitions)
        catalog.review(_pin(manifest, {name: offer.digest for name, offer in pinned.items()}))
        catalog.offer(manifest.id, definitions)
        for review in manifest.tools:
            id_ = f"{manifest.id}.{review.name}"
            known = offers.get(review.name)
            own = () if known is None else (known.value.get("inputSchema") or {},)
            schemas[id_] = (*own, *([dict(review.input_schema)] if review.input_schema else ()))
            if known is None:
                unknown.append(id_)
    found = {tool.id: tool for tool in catalog.view().callable_tools(None)}
    for status in catalog.states():
        if status.problem is not None:
            raise ConfigurationError(f"`{status.server}.{status.name}`: {status.problem}")
    return Tools(found, schemas, tuple(unknown))


def _pin(manifest: Manifest, digests: Mapping[str, str]) -> Manifest:
    reviews = tuple(
        structs.replace(review, definition_digest=digests.get(review.name))
        for review in manifest.tools
    )
    return structs.replace(manifest, tools=reviews)


def _stand_in(name: str) -> bytes:
    return orjson.dumps({"name": name, "inputSchema": _OPEN})


def _read_listing(path: Path) -> list[bytes]:
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        raise ConfigurationError(
            f"`{path}` cannot be read; give the JSON of `tools/list`"
        ) from None
    if isinstance(value, dict):
        value = value.get("tools", value.get("result", {}).get("tools"))
    if not isinstance(value, list):
        raise ConfigurationError(f"`{path}` has no `tools`; give the JSON of `tools/list`")
    return [orjson.dumps(each) for each in value]


def build_ground(
    engine: PolicyEngine,
    tools: Tools,
    constants: Constants,
    statements: Sequence[Statement],
    *,
    environments: tuple[str, ...],
    seeds: tuple[Seed, ...] = (),
) -> Ground:
    """Put together what is searched over, for all of these statements."""
    stated = [value for statement in statements for value in _stated(statement)]
    seen = [value for seed in seeds for value in _leaves(seed.step.args)]
    pool = Pool(constants, *stated, *seen)
    named = ["/" + "/".join(_escape(part) for part in path) for path in constants.arguments]
    named += [pointer for statement in statements for pointer in _pointers(statement)]
    arguments = {}
    for id_, tool in tools.tools.items():
        review = tool.review
        known = id_ not in tools.unknown
        pointers = [] if known else [*named, *review.sums, *review.sinks, *review.sensitive]
        arguments[id_] = Arguments(tools.schemas[id_], pointers, pool, _accepts(tool))
    kept = tuple(seed for seed in seeds if seed.step.tool in tools.tools)
    return Ground(
        stage=Stage(engine, tools.tools),
        arguments=arguments,
        pool=pool,
        environments=environments,
        seeds=kept,
    )


def _accepts(tool: Tool) -> Callable[[dict[str, Any]], bool]:
    return lambda arguments: tool.schema.failure(arguments) is None


def _stated(statement: Statement) -> Iterator[object]:
    """Yield the values that a statement's tests name."""
    for condition in statement.conditions:
        right = condition.right
        for each in right if isinstance(right, list) else [right]:
            if not isinstance(each, str):
                yield each
                continue
            for word in each.replace(",", "").split():
                try:
                    yield msgspec.json.decode(word)
                except msgspec.DecodeError:
                    yield word.strip("'\"")


def _pointers(statement: Statement) -> Iterator[str]:
    for condition in statement.conditions:
        for term in condition.left.split(" + "):
            if term.startswith("args[/"):
                yield term[len("args[") : -1]


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def read_seed(document: bytes) -> Seed | None:
    """Return the call that a recorded input is about; None for one of another kind."""
    found = orjson.loads(document)
    context, subject = found.get("context", {}), found.get("subject", {})
    args, tool = context.get("args"), found.get("resource", {}).get("id")
    if found.get("phase") not in {"call", "resume"} or not isinstance(args, dict):
        return None
    token, run = context.get("token", {}), context.get("run", {})
    world = World(
        environment=found.get("environment", ""),
        agent=subject.get("id", ""),
        owner=subject.get("owner", ""),
        roles=tuple(subject.get("roles", ())),
        human=subject.get("on_behalf_of"),
        client=context.get("client", {}).get("id", ""),
        workflow=run.get("workflow", ""),
        origin=token.get("origin", "launcher"),
        allowed_values={
            name: tuple(values) for name, values in token.get("allowed_values", {}).items()
        },
        start_s=context.get("now_ns", 0) // 1_000_000_000,
    )
    return Seed(world, Step(str(tool), args, context.get("claimed") or {}))
