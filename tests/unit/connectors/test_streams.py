from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.lines import HEAD, LineReader, Oversize
from connectors.sse import EventReader
from gateway.core.errors import UpstreamError

pytestmark = pytest.mark.req("GW-09")


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), min_size=1)),
    st.lists(st.integers(0, 1000), max_size=6),
    st.sampled_from(["\n", "\r\n"]),
)
def test_events_come_out_whole_however_the_stream_is_cut(
    texts: list[str], cuts: list[int], end: str
) -> None:
    stream = "".join(f"event: message{end}data: {text}{end}{end}" for text in texts)
    reader = EventReader(100_000)
    found = [data for chunk in cut(stream.encode(), cuts) for data in reader.feed(chunk)]
    assert found == [text.encode() for text in texts]


def test_only_messages_with_data_come_out() -> None:
    stream = b": ping\n\nevent: other\ndata: x\n\nid: 7\ndata:\n\nretry: 1\ndata:a\ndata: b\n\n"
    assert EventReader(100).feed(stream) == [b"a\nb"]


@pytest.mark.parametrize("stream", [b"x" * 101, b"data: " + b"x" * 101 + b"\n", b"data: 1\n" * 60])
def test_an_event_past_the_limit_is_refused(stream: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        EventReader(100).feed(stream)
    assert (caught.value.code, caught.value.delivery) == ("result_too_large", "sent")


@given(
    st.lists(st.binary(max_size=600).filter(lambda line: b"\n" not in line)),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_lines_come_out_whole_however_the_stream_is_cut(
    lines: list[bytes], cuts: list[int]
) -> None:
    reader = LineReader(400)
    stream = b"".join(line + b"\n" for line in lines)
    found = [line for chunk in cut(stream, cuts) for line in reader.feed(chunk)]
    assert len(found) == len(lines)
    for line, out in zip(lines, found, strict=True):
        if len(line) <= 400:
            assert out == line
        else:
            assert isinstance(out, Oversize)
            assert line.startswith(out.head)
            assert len(out.head) <= HEAD
