"""The engines of some packages, and how they decide.

Most of what packages say is said again and again: those that ask only about the tool, the agent and
its grants say the same of its next call. What they said is kept, by all of the input that they
read, and only the others are evaluated, in an engine of their own.

INVARIANT: what is kept was the answer to exactly that part of an input, in full, and packages see
no more of an input than that. So it changes no answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from msgspec import MsgspecError

from gateway.adapters.regorus.regorus_plain import (
    ASKED,
    BOTH,
    SAID,
    Voices,
    build_part,
    build_reader,
    combine,
    pick,
    split_both,
    weave,
)

ENTRY_POINT: Final = "data.countersign.decision"
_HELD: Final = '"outcome": "hold"'
_KEPT_MAX: Final = 1024
_KEPT_MAX_CHARACTERS: Final = 4096
Paths = Iterable[Sequence[str]]


class Steady:
    """What the `steady` packages of `voices` said before; `engine` holds all others, if any.

    `steady_paths` and `paths`: what of the input the ones and the others read (None: everything).
    """

    def __init__(
        self,
        voices: Voices,
        steady: Collection[str],
        steady_paths: Paths,
        paths: Paths | None,
        engine: Any,  # noqa: ANN401 - regorus has no types
    ) -> None:
        self.read = build_reader(paths)
        self._part = build_part(steady_paths)
        self._order = tuple(name in steady for name, _ in voices.rows)
        self._engine = engine
        self._unused = engine.clone() if engine is not None else None
        self._kept: dict[bytes, str] = {}

    def ask(self, document: bytes, part: str) -> str | None:
        """Return the value of `SAID`; None where it is not known what the steady ones say.

        `part` is what `read` returned of the document.
        """
        kept = self._kept.get(self._part(document))
        if kept is None or self._engine is None:
            return kept
        self._engine.set_input_json(part)
        return weave(self._order, kept, self._engine.eval_rule_as_json(SAID))

    def renew(self) -> None:
        """Go on with an engine that has never failed (`Subset.renew`)."""
        self._engine = self._unused.clone() if self._unused is not None else None

    def keep(self, document: bytes, said: str) -> None:
        """Keep what the steady ones said, out of the value of `SAID`."""
        try:
            key = self._part(document)
        except MsgspecError:
            return
        kept = pick(self._order, said)
        if max(len(key), len(kept)) > _KEPT_MAX_CHARACTERS:
            return
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        self._kept[key] = kept


class Subset:
    """The engine of some packages. With `voices`, answers that are plain are put together here."""

    def __init__(
        self,
        engine: Any,  # noqa: ANN401 - regorus has no types
        voices: Voices | None = None,
        paths: Paths | None = None,
        steady: Steady | None = None,
    ) -> None:
        self._engine = engine
        self._unused = engine.clone()
        self._voices = voices
        self._steady = steady
        self._read = build_reader(paths)
        self._often_plain = voices is not None
        self._often_held = False

    def decide(self, document: bytes) -> bytes:
        """Return the decision as JSON, `"<undefined>"` for none. Raises what the engine raises."""
        if self._often_plain:
            answer = self._decide_plainly(document)
            if answer is not None:
                return answer
        self._engine.set_input_json(document.decode())
        found: str = self._engine.eval_rule_as_json(ENTRY_POINT)
        # What was held once will be held again: no use in asking twice each time.
        self._often_plain = self._voices is not None and _HELD not in found
        return found.encode()

    def renew(self) -> None:
        """Go on with an engine that has never failed. To be called after `decide` has raised.

        INVARIANT: an engine that failed is never asked again. What an error leaves in it can make
        the next evaluation lose a rule, a deny among them (`walk` over arguments does). A copy
        takes 1 µs.
        """
        self._engine = self._unused.clone()
        if self._steady is not None:
            self._steady.renew()

    def _decide_plainly(self, document: bytes) -> bytes | None:
        if self._voices is None:
            return None
        if self._steady is not None and not self._often_held:
            answer = self._decide_steadily(self._voices, self._steady, document)
            if answer is not None:
                return answer
        if (read := self._read(document)) is None:
            return None
        part, released, server = read
        self._engine.set_input_json(part)
        asked = None
        if self._often_held:
            said, asked = split_both(self._engine.eval_rule_as_json(BOTH))
        else:
            said = self._engine.eval_rule_as_json(SAID)
        found = combine(self._voices, said, released=released, server=server)
        if found is None:
            return None
        if self._steady is not None and not self._often_held:
            self._steady.keep(document, said)
        self._often_held = found.lists is not None
        if found.lists is None:
            return found.answer
        return found.answer if found.is_as(asked or self._engine.eval_rule_as_json(ASKED)) else None

    def _decide_steadily(self, voices: Voices, steady: Steady, document: bytes) -> bytes | None:
        """Return the answer by what is kept; None where that, or a hold, wants to be asked anew."""
        try:
            read = steady.read(document)
            said = None if read is None else steady.ask(document, read[0])
        except MsgspecError:
            return None
        if read is None or said is None:
            return None
        found = combine(voices, said, released=read[1], server=read[2])
        if found is None:
            return None
        self._often_held = found.lists is not None
        return None if self._often_held else found.answer
