"""Writing a reviewer's approval into a manifest, which otherwise stays as people wrote it."""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from connectors.listing import read_offers
from connectors.manifest import load_manifest
from gateway.core.errors import ConfigurationError

ALL: Final = "all"
_WIDTH: Final = 100_000


class Approved(Struct, frozen=True):
    """One approval as it was written. `before` is the digest approved earlier."""

    name: str
    before: str | None
    digest: str


def approve_definitions(
    path: Path,
    listing: Sequence[bytes],
    tools: Collection[str] | str,
    reviewed_by: str,
    read: Collection[str] | None = None,
) -> list[Approved]:
    """Pin the live definitions of `tools` (or `ALL` that the manifest names) in a manifest.

    `read`: digests of the definitions that the reviewer has read; no other one is pinned.

    Writes `definition_digest` and `reviewed_by`; comments and order stay. The file is replaced
    atomically, and only when the new one reads well. Raises `ConfigurationError`, with nothing
    written, for a tool that the manifest does not name, or the upstream does not offer as read.
    """
    with _alone(path.parent):
        return _approve(path, listing, tools, reviewed_by, read)


def _approve(
    path: Path,
    listing: Sequence[bytes],
    tools: Collection[str] | str,
    reviewed_by: str,
    read: Collection[str] | None,
) -> list[Approved]:
    manifest = load_manifest(path)
    offers, problems = read_offers(listing)
    named = {review.name: review.definition_digest for review in manifest.tools}
    wanted = [name for name in named if name in offers] if tools == ALL else list(tools)
    if not wanted:
        raise ConfigurationError(f"the upstream offers none of the tools that {path} names")
    wrong = [
        f"`{name}` {_why(name, named, problems)}"
        for name in wanted
        if name not in named or name not in offers
    ]
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    if not reviewed_by.strip():
        raise ConfigurationError("an approval needs the reviewer's name; give `--reviewed-by`")
    approved = [Approved(name, named[name], offers[name].digest) for name in wanted]
    # A server that offers another definition once the reviewer has read one.
    unread = [
        f"`{one.name}` is offered as {one.digest} now, which `--digest` does not name; "
        "read it with `countersign tools diff`"
        for one in approved
        if read is not None and one.digest not in {*read, one.before}
    ]
    if unread:
        raise ConfigurationError("\n".join(unread))
    _write(path, {item.name: item.digest for item in approved}, reviewed_by)
    return approved


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process write here at a time: of two reviewers, the second adds to the first."""
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that knows no locks: the last one wins
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _why(name: str, named: Collection[str], problems: dict[str, str]) -> str:
    if name not in named:
        return "is not in the manifest; describe it there first"
    return problems.get(name, "is not offered by the upstream; check its name")


def _write(path: Path, digests: dict[str, str], reviewed_by: str) -> None:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(path.read_text(encoding="utf-8"))
    for tool in document["tools"]:
        if tool["name"] in digests:
            _put(tool, "reviewed_by", reviewed_by)
            _put(tool, "definition_digest", digests[tool["name"]])
    text = io.StringIO()
    yaml.dump(document, text)
    _replace(path, text.getvalue())


def _put(tool: CommentedMap, key: str, value: Any) -> None:  # noqa: ANN401 - a YAML scalar
    """Set a key; a new one comes after `name`, above whatever blank line ends the tool."""
    if key in tool:
        tool[key] = value
    else:
        tool.insert(list(tool).index("name") + 1, key, value)


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        load_manifest(Path(temporary))
        Path(temporary).chmod(path.stat().st_mode & 0o777)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
