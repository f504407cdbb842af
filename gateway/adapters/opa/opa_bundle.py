"""A bundle as a stock OPA takes it: pushed piece by piece under a root of its own, or whole.

Both ways add two modules, generated, never written: `countersign.answer` says the bundle's
revision beside its decision, so that an answer shows what gave it; `countersign.answers` decides
many inputs in one round.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
import regorus
from msgspec import Struct

from gateway.adapters.policy import policy_ast
from gateway.adapters.policy.policy_ast import Fault
from gateway.adapters.policy.policy_bundle import MAIN_PATH, Bundle
from gateway.core.errors import ConfigurationError

ROOT: Final = "countersign_bundles"
"""The first part of every path that pushed bundles take in an OPA."""

ANSWER_PATH: Final = "countersign/answer.rego"
ANSWERS_PATH: Final = "countersign/answers.rego"
_NAME_DIGITS: Final = 16
ROOTS: Final = ("countersign", "policies", "applies_to", "authority")
_ANSWER: Final = """package countersign.answer

revision := {revision}

decision := data.countersign.decision
"""
_ANSWERS: Final = """package countersign.answers

revision := {revision}

decisions := {{number: decision |
\tsome number, document in input.many
\tdecision := data.countersign.decision with input as document
}}
"""


class Pushed(Struct, frozen=True):
    """What is put into an OPA. `modules` are (path, source) in an order in which they load.

    The last one is the one that answers: what is there halfway answers nothing.
    """

    name: str
    data: bytes
    modules: tuple[tuple[str, str], ...]

    @property
    def root(self) -> str:
        """The path below `data/` at which everything of it stands."""
        return f"{ROOT}/{self.name}"


def name_root(revision: str) -> str:
    """Return the name under which a bundle of this revision is pushed."""
    return "r" + revision.removeprefix("sha256:")[:_NAME_DIGITS]


def list_modules(bundle: Bundle) -> list[tuple[str, str]]:
    """Return (path, source): what is read before what reads it, the generated ones last."""
    modules = bundle.modules()
    sources = dict(bundle.files)
    every = {**bundle.library, **bundle.packages}
    order: dict[str, None] = {}
    for name in sorted(every, key=lambda each: (len(every[each].requires), each)):
        order.update(dict.fromkeys(sorted(every[name].requires & every.keys())))
        order[name] = None
    quoted = json.dumps(bundle.revision)
    return [
        *(module for name in order for module in modules[name]),
        (MAIN_PATH, sources[MAIN_PATH].decode()),
        (ANSWERS_PATH, _ANSWERS.format(revision=quoted)),
        (ANSWER_PATH, _ANSWER.format(revision=quoted)),
    ]


def build_pushed(bundle: Bundle) -> Pushed:
    """Return the bundle with every path moved below a root that its revision names.

    So a new bundle loads, and is tried, beside the one that decides, and an answer can come from
    no other. The text of policies is changed in nothing but these paths.
    """
    name = name_root(bundle.revision)
    modules = tuple((path, _move(path, text, name)) for path, text in list_modules(bundle))
    return Pushed(name=name, data=bundle.data.encode(), modules=modules)


def _move(path: str, text: str, name: str) -> str:
    """Return a module whose package and references to `data` begin below the root of `name`."""
    source, tree = text.encode(), _parse(path, text)
    below = f"{ROOT}.{name}"
    inserted = [(_start(tree["package"]["refr"]), f"{below}.")]
    for begin, end in _data_spans([tree["imports"], tree["rules"]]):
        if source[begin:end] != b"data":
            raise _unmovable(path)
        inserted.append((end, f".{below}"))
    moved = source
    for at, word in sorted(set(inserted), reverse=True):
        moved = moved[:at] + word.encode() + moved[at:]
    _check(path, text, moved.decode(), name)
    return moved.decode()


def _parse(path: str, text: str) -> dict[str, Any]:
    engine = regorus.Engine()
    engine.add_policy(path, text)
    tree: dict[str, Any] = json.loads(engine.get_ast_as_json())[0]["ast"]
    return tree


def _start(node: dict[str, Any]) -> int:
    body: dict[str, Any] = next(iter(node.values()))
    return int(body["span"]["start"])


def _data_spans(node: object) -> Iterator[tuple[int, int]]:
    if isinstance(node, list):
        for item in node:
            yield from _data_spans(item)
    elif isinstance(node, dict):
        for kind, body in node.items():
            if kind == "Var" and body["value"] == "data":
                yield body["span"]["start"], body["span"]["end"]
            else:
                yield from _data_spans(body)


def _check(path: str, text: str, moved: str, name: str) -> None:
    """INVARIANT: a moved module says the same as before, below its root, and nothing else."""
    before, after = (policy_ast.parse_module(path, each) for each in (text, moved))
    if isinstance(before, Fault) or isinstance(after, Fault):
        raise _unmovable(path)
    root = (ROOT, name)
    same = (
        after.package == root + before.package
        and [_below(use.path, root) for use in before.refs] == [use.path for use in after.refs]
        and [_below(use.path, root) for use in before.calls] == [use.path for use in after.calls]
        and [(rule.name, rule.kind) for rule in before.rules]
        == [(rule.name, rule.kind) for rule in after.rules]
    )
    if not same:
        raise _unmovable(path)


def _below(path: policy_ast.Path, root: tuple[str, str]) -> policy_ast.Path:
    return (path[0], *root, *path[1:]) if path[0] == "data" else path


def _unmovable(path: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: its references to `data` cannot be told apart, so it cannot be pushed; let OPA "
        "pull bundles (`policy.opa.bundles: pull`)",
        code="policy_invalid",
    )


def build_archive(bundle: Bundle) -> bytes:
    """Return the bundle as OPA pulls it: a gzipped tar, the same bytes for the same bundle."""
    data: Mapping[str, Any] = orjson.loads(bundle.data)
    manifest = {
        "revision": bundle.revision,
        "rego_version": 1,
        "roots": sorted({*ROOTS, *data}),
    }
    sources = {path: text.encode() for path, text in list_modules(bundle)}
    files = {
        **dict(bundle.files),
        **sources,
        ".manifest": orjson.dumps(manifest),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files):
            entry = tarfile.TarInfo(f"/{path}")
            entry.size, entry.mode = len(files[path]), 0o644
            archive.addfile(entry, io.BytesIO(files[path]))
    return gzip.compress(packed.getvalue(), mtime=0)
