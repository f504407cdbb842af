"""As whom a publisher signs: which of the keys at hand, and whose it is at this gateway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from gateway.adapters.releases.release_keys import load_key
from gateway.cli.admin_api import fail, visible
from gateway.cli.credentials import credentials_path
from gateway.cli.exits import Exit
from gateway.cli.policy_release import told
from gateway.core.approvals.approval import person
from gateway.core.releases.publisher_keys import PrivateKey, public_of

KEYS_FOLDER: Final = "publisher-keys"

KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key",
        help="Your private key; by default what is in `~/.config/countersign/publisher-keys`.",
    ),
]
AsOption = Annotated[
    list[str] | None,
    typer.Option("--as", metavar="PUBLISHER", help="Whose key, where several are at hand."),
]


class Signer(NamedTuple):
    """A key at hand, and the publisher whose it is at the gateway."""

    id: str
    key: PrivateKey
    path: Path


def choose_key(
    head: dict[str, Any], keys: Sequence[Path] | None, names: Sequence[str] | None
) -> Signer:
    """Return the one key to sign with. Exits, with the choices, where there is not one."""
    found = find_signers(head["publishers"], keys, names)
    if len(found) > 1:
        listed = ", ".join(f"`{visible(one.id)}` ({one.path})" for one in found)
        people = {person(one.id) for one in found}
        how = "say which with `--as`" if len(people) > 1 else "name one with `--key`"
        fail(
            Exit.USAGE,
            f"one publisher signs at a time, and these keys are at hand: {listed}; {how}",
        )
    return found[0]


def find_signers(
    publishers: Sequence[dict[str, str]], keys: Sequence[Path] | None, names: Sequence[str] | None
) -> list[Signer]:
    """Return the keys at hand that are publishers', of those named where any are; at least one.

    `publishers`: `{id, key}`, as the gateway tells them. Exits, with the choices, where none is.
    """
    ids = {one["key"]: one["id"] for one in publishers}
    here = ", ".join(f"`{visible(name)}`" for name in sorted(set(ids.values()))) or "nobody"
    for name in names or ():
        if person(name) not in {person(one) for one in ids.values()}:
            fail(Exit.USAGE, f"`{visible(name)}` publishes nothing here; publishers are {here}")
    paths = list(keys or ()) or _kept()
    if not paths:
        fail(Exit.USAGE, f"name your key with `--key`, or keep it in `{keys_folder()}`")
    at_hand = [(told(lambda path=path: load_key(path)), path) for path in paths]  # type: ignore[misc]
    known = [(public_of(key).kid, key, path) for key, path in at_hand]
    found = [Signer(ids[kid], key, path) for kid, key, path in known if kid in ids]
    if not found:
        tried = ", ".join(str(path) for path in paths)
        fail(Exit.USAGE, f"no key at hand is a publisher's here ({tried}); publishers are {here}")
    wanted = {person(name) for name in names or ()}
    chosen = [one for one in found if not wanted or person(one.id) in wanted]
    if not chosen:
        listed = ", ".join(f"`{visible(one.id)}` ({one.path})" for one in found)
        fail(Exit.USAGE, f"no key at hand is that publisher's; at hand are those of {listed}")
    return chosen


def keys_folder() -> Path:
    """Return where keys of publishers are looked for: beside what `countersign login` keeps."""
    return credentials_path().parent / KEYS_FOLDER


def _kept() -> list[Path]:
    return sorted(keys_folder().glob("*.pem"))
