"""Verifiers with one check taken away: the suite's cases tell each of them from the whole one.

The cases are those of the tamper corpus, and logs that the holder of the key wrote with one thing
wrong and everything after it made to fit: of those, one check alone can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.core.log import chain_check
from gateway.core.log.chain_check import Anchor, ChainCheck
from tests.conformance.audit.stories import Story
from tests.conformance.audit.writer import EPOCHS, STRANGER
from tests.fault.conftest import Figure
from tests.fault.forged import FORGED, put_files
from tests.fault.knobs import memory_folder
from tests.fault.mutants import Mutant, planted
from tests.fault.verifiers import Found, ask_gateway, ask_script, load_script
from tests.integration.audit_corpus.corpus import lay_out, read_cases

pytestmark = pytest.mark.req("AUD-11")
Ask = Callable[[Path, str, Sequence[str]], list[Found]]
_SPECIAL = ("witnesses", "publishers", "before", "require")
"""What a reader may bring besides a key and a checkpoint; the corpus's own tests try these."""

_CHECK, _CHAIN = ChainCheck, load_script().Chain

GATEWAY = [
    Mutant("seq, too high", _CHECK, "_place", "if found > chain.seq:", "if False:"),
    Mutant("seq, too low", _CHECK, "_place", "if found < chain.seq:", "if False:"),
    Mutant("prev", _CHECK, "_place", 'if value["prev"] != chain.prev:', "if False:"),
    Mutant("cp", _CHECK, "_place", 'if value.get("cp") != chain.link:', "if False:"),
    Mutant("ts", _CHECK, "_place", 'if value["ts"] < chain.ts:', "if False:"),
    Mutant(
        "genesis", _CHECK, "_place", 'if (value["type"] == "genesis") != (found == 0):', "if False:"
    ),
    Mutant("canonical form", _CHECK, "_shape", "if self._canonical and", "if False and"),
    Mutant("the log's name", _CHECK, "_shape", 'or value.get("log") != self.chain.origin', ""),
    Mutant("root", _CHECK, "_checkpoint", "if stated.root != chain.tree.root():", "if False:"),
    Mutant("size", _CHECK, "_checkpoint", "or stated.size < chain.seq", ""),
    Mutant("signature", _CHECK, "_signature", "if signed.is_signed_by(key):", "if True:"),
    Mutant("epoch of a signature", _CHECK, "_name", "if signed.names(self.keys[-1]):", "if True:"),
    Mutant("epoch's number", _CHECK, "_epoch", 'value.get("epoch") != len(self.keys) or', ""),
    Mutant("an old key again", _CHECK, "_epoch", "or key in self.keys", ""),
    Mutant("end of an epoch", _CHECK, "_epoch", "if self._next is not None:", "if False:"),
    Mutant("pinned key", _CHECK, "tail", "self._pinned is not None", "False"),
    Mutant(
        "checkpoint line's form", chain_check, "parse_checkpoint", "== line", "is not None"
    ),
    Mutant("a copy that is ahead", Anchor, "verdict", "if known > size:", "if False:"),
    Mutant("a copy of another history", Anchor, "verdict", "if not self._met:", "if False:"),
]  # fmt: skip

SCRIPT = [
    Mutant("seq", _CHAIN, "_read", 'or record["seq"] != size', ""),
    Mutant("prev", _CHAIN, "_read", 'or (record["prev"] != prev and prev is not None)', ""),
    Mutant("cp", _CHAIN, "_read", 'or record.get("cp") != pending', ""),
    Mutant("ts", _CHAIN, "_read", 'or record["ts"] < ts', ""),
    Mutant("version", _CHAIN, "_read", 'or record["v"] != 1', ""),
    Mutant("the log's name", _CHAIN, "_read", 'or record["log"] != origin', ""),
    Mutant(
        "genesis",
        _CHAIN,
        "_read",
        'or ((kind := record["type"]) == "genesis") is not (size == 0)',
        'or not (kind := record["type"])',
    ),
    Mutant(
        "canonical form",
        load_script(),
        "record_reader",
        "if dumps(record, None, option) != line:",
        "if False:",
    ),
    Mutant(
        "root and size", _CHAIN, "_close", "if not data.startswith(prefix) or", "if"
    ),
    Mutant("signature", _CHAIN, "_sign_off", "if is_note_signed(note, key):", "if True:"),
    Mutant("epoch of a signature", _CHAIN, "_commit", "blob[:4] != self.key.id", "False"),
    Mutant(
        "epoch's number",
        _CHAIN,
        "_rotate",
        'record.get("epoch") != epochs[-1].number + 1',
        "False",
    ),
    Mutant(
        "an old key again",
        _CHAIN,
        "_rotate",
        "any(epoch.key.public == key.public for epoch in epochs)",
        "False",
    ),
    Mutant("end of an epoch", _CHAIN, "_rotate", "if not is_last:", "if False:"),
    Mutant("a segment's name", _CHAIN, "_fits_segment", "int(start[0][:20]) == self.size", "True"),
]  # fmt: skip


class Log(NamedTuple):
    """A log that is not valid, and what a reader has of it from elsewhere."""

    name: str
    folder: Path
    vkey: str
    known: tuple[str, ...]


@pytest.fixture(scope="module")
def logs() -> Iterator[list[Log]]:
    """All cases, laid out."""
    with memory_folder() as folder:
        found = []
        for name, forged in FORGED.items():
            files = forged()
            at = folder / f"forged {name}"
            put_files(at, files)
            found.append(Log(name, at, EPOCHS[0].vkey, ()))
        honest = folder / "honest"
        put_files(honest, Story().start().files())
        found.append(Log("under a stranger's key", honest, STRANGER.vkey, ()))
        for case in read_cases():
            if not any(name in case for name in _SPECIAL) and case["keys"]:
                at = lay_out(case["files"], folder / case["name"])
                found.append(Log(case["name"], at, case["keys"][0], tuple(case.get("known", ()))))
        yield found


def answers(ask: Ask, logs: list[Log]) -> Iterator[list[Found] | str]:
    """Yield what a verifier says first of each log; a crash is an answer of its own."""
    for log in logs:
        try:
            yield ask(log.folder, log.vkey, log.known)[:1]
        except Exception as error:  # noqa: BLE001 - a mistake can show in any way
            yield repr(error)


@pytest.fixture(scope="module")
def whole(logs: list[Log]) -> dict[str, list[Any]]:
    """What the verifiers say as they are."""
    return {ask.__name__: list(answers(ask, logs)) for ask in (ask_gateway, ask_script)}


PAIRS = [(mutant, ask_gateway) for mutant in GATEWAY] + [(mutant, ask_script) for mutant in SCRIPT]


@pytest.mark.parametrize(("mutant", "ask"), PAIRS, ids=[f"{a.__name__}-{m.what}" for m, a in PAIRS])
def test_a_verifier_that_lacks_a_check_is_told(
    mutant: Mutant, ask: Ask, logs: list[Log], whole: dict[str, list[Any]], figure: Figure
) -> None:
    with planted(mutant):
        pairs = zip(answers(ask, logs), whole[ask.__name__], strict=True)
        assert any(found != expected for found, expected in pairs)
    figure("mutants of the verifiers, all found", 1)


@pytest.mark.parametrize("ask", [ask_gateway, ask_script])
@pytest.mark.parametrize("name", FORGED)
def test_what_the_holder_of_the_key_wrote_wrong_is_found(
    ask: Ask, name: str, logs: list[Log], whole: dict[str, list[Any]]
) -> None:
    at = [log.name for log in logs].index(name)
    assert whole[ask.__name__][at]
