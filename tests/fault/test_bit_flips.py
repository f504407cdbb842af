"""Every single bit of a log, its checkpoint copy and its tiles: none can change unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.conftest import Figure
from tests.fault.knobs import memory_folder, stride
from tests.fault.story import Place, SetClock, Writer
from tests.fault.verifiers import Found, ask_gateway, ask_script

pytestmark = pytest.mark.req("AUD-11")
PARTS = 4
STRIDE = stride(61)
FEW = 4
"""Of a small sample, so many may be more than one in a hundred by chance."""
CHECKPOINT = b'{"cp":'
Asked = Callable[..., list[Found]]


class Flips:
    """A small log: two segments, two epochs, tiles, a copy of its last checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.clock = SetClock()
        asyncio.run(self._write())
        self.folder = self.place.audit
        self.vkey = (self.folder / "log.vkey").read_text().partition("\n")[0]
        files = [*self.folder.glob("*.jsonl"), *self.folder.glob("tile/*/*.p/*")]
        self.files = sorted([*files, self.folder / "checkpoint"])

    async def _write(self) -> None:
        log = self.place.open(clock=self.clock, segment_max_bytes=2_000)
        await log.start()
        writer = Writer(log, lambda _: None, name="w", seed=1)
        await writer.call()
        await asyncio.gather(writer.event(), writer.event())
        await writer.rotate()
        await writer.event()
        await log.close()

    def ask(self) -> dict[Asked, list[Found]]:
        """Return what both verifiers find."""
        return {
            ask_gateway: ask_gateway(self.folder, self.vkey),
            ask_script: ask_script(self.folder, self.vkey, semantics=False),
        }

    def seqs(self, file: Path) -> list[int | None]:
        """Return for each byte of a file which record it tells of; None where it is none alone."""
        content = file.read_bytes()
        if file.name == "checkpoint":
            return [None] * len(content)
        if file.parent.name.endswith(".p"):
            return [at // 32 for at in range(len(content))]
        seq, found = int(file.stem), list[int | None]()
        for line in content.splitlines(keepends=True):
            is_checkpoint = line.startswith(CHECKPOINT)
            found += [seq - is_checkpoint] * len(line)
            seq += not is_checkpoint
        return found


@pytest.fixture(scope="module")
def flips() -> Iterator[Flips]:
    with memory_folder() as folder:
        yield Flips(folder)


def test_the_log_itself_is_valid_and_has_all_that_a_log_has(flips: Flips) -> None:
    assert flips.ask() == {ask_gateway: [], ask_script: []}
    assert len((flips.folder / "log.vkey").read_text().split()) == 2
    assert [file.suffix for file in flips.files].count(".jsonl") == 2
    assert any("tile" in file.parts for file in flips.files)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_any_bit_that_is_flipped_is_found_by_both_verifiers(
    flips: Flips, part: int, figure: Figure
) -> None:
    missed: list[object] = []
    elsewhere: dict[Asked, list[object]] = {ask_gateway: [], ask_script: []}
    tried = 0
    for file in flips.files:
        content, seqs = bytearray(file.read_bytes()), flips.seqs(file)
        for bit in range(part * STRIDE, 8 * len(content), PARTS * STRIDE):
            content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)
            tried += 1
            for ask, found in flips.ask().items():
                if not found:
                    missed.append((ask, file.name, bit))
                elif seqs[bit // 8] not in {None, found[0].seq}:
                    elsewhere[ask].append((file.name, bit, seqs[bit // 8], found[0]))
            content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
    figure("bits flipped, each told to two verifiers", tried)
    figure("  changes not found", len(missed))
    figure("  found at another record: stand-alone verifier", len(elsewhere[ask_script]))
    figure("  found at another record: gateway's verifier", len(elsewhere[ask_gateway]))
    assert not missed
    for ask in (ask_gateway, ask_script):
        assert len(elsewhere[ask]) <= max(tried / 100, FEW), elsewhere[ask][:20]
