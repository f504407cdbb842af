from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors.mcp_stdio import McpStdioTransport, StdioLimits, build_environment
from gateway.core.calls.call import UpstreamResult
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from tests.unit.connectors.calls import HandClock, build_intent

SERVER = Path(__file__).with_name("plain_server.py")
COMMAND = [sys.executable, "-S", str(SERVER)]

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

pytestmark = pytest.mark.req("GW-09")


def text(answer: UpstreamResult) -> str:
    assert answer.result is not None
    return str(orjson.loads(answer.result)["content"][0]["text"])


def is_running(pid: int) -> bool:
    """Whether a process runs; one that is only waiting to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def made(clock: HandClock) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(*arguments: str, **options: Any) -> AsyncIterator[McpStdioTransport]:  # noqa: ANN401 - any option
        limits = options.pop("limits", Limits())
        transport = McpStdioTransport(
            "srv", [*COMMAND, *arguments], limits=limits, clock=clock, **options
        )
        try:
            yield transport
        finally:
            await transport.close()

    return make


async def refusal(transport: McpStdioTransport, *call: Any, **options: Any) -> UpstreamError:  # noqa: ANN401 - as build_intent
    with pytest.raises(UpstreamError) as caught:
        await transport.call(build_intent(*call, **options), None)
    return caught.value


async def test_what_was_in_flight_when_the_server_died_is_unknown_and_never_sent_again(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    counter = tmp_path / "counter"
    async with made() as transport:
        error = await refusal(transport, "die", {"counter": str(counter)})
        assert (error.delivery, error.retryable) == ("unknown", False)
        await transport.call(build_intent("echo"), None)  # a fresh process
    assert counter.read_text(encoding="utf-8") == "x"


async def test_every_call_in_flight_ends_when_the_server_dies(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    async with made(shared=True) as transport:
        said = asyncio.Event()
        waiting = asyncio.create_task(transport.call(build_intent("wait"), lambda _: said.set()))
        await said.wait()
        await refusal(transport, "die", {"counter": str(tmp_path / "counter")})
        with pytest.raises(UpstreamError) as caught:
            await waiting
        assert caught.value.delivery == "unknown"


async def test_a_server_that_keeps_dying_is_given_pauses_that_grow(
    made: Callable[..., Any], clock: HandClock, tmp_path: Path
) -> None:
    counter = tmp_path / "counter"
    die = ("die", {"counter": str(counter)})
    async with made() as transport:
        for pause_s in (0.0, 0.5, 1.0):
            clock.pass_s(pause_s)
            assert (await refusal(transport, *die)).delivery == "unknown"
        refused = await refusal(transport, *die)
        assert (refused.delivery, refused.retryable) == ("not_sent", True)
        clock.pass_s(0.9)
        assert (await refusal(transport, *die)).delivery == "not_sent"
        clock.pass_s(0.2)
        await transport.call(build_intent("echo"), None)
        assert (await refusal(transport, *die)).delivery == "unknown"  # an answer forgives
        await transport.call(build_intent("echo"), None)
    assert counter.read_text(encoding="utf-8") == "xxxx"


async def test_each_run_has_a_process_of_its_own(made: Callable[..., Any]) -> None:
    async with made() as transport:
        pids = [
            text(await transport.call(build_intent("pid", run_id=run), None))
            for run in ("a", "b", "a")
        ]
        assert pids[0] == pids[2] != pids[1]
        assert transport.processes == 2


async def test_a_shared_server_is_one_process(made: Callable[..., Any]) -> None:
    async with made(shared=True) as transport:
        calls = (transport.call(build_intent("pid", run_id=run), None) for run in "abc")
        assert len({text(answer) for answer in await asyncio.gather(*calls)}) == 1


@pytest.mark.parametrize("tool", ["orphan", "mute", "deaf"])
async def test_a_server_that_cannot_answer_any_more_is_dead_whoever_holds_its_outputs(
    made: Callable[..., Any], tool: str
) -> None:
    async with made() as transport, asyncio.timeout(20):
        error = await refusal(transport, tool)
        assert (error.code, error.delivery) == ("upstream_unavailable", "unknown")
        assert text(await transport.call(build_intent("pid"), None))  # of a fresh process


async def test_what_a_server_said_before_it_ended_is_heard(made: Callable[..., Any]) -> None:
    async with made() as transport:
        for run in "abcde":
            said = text(await transport.call(build_intent("last_words", run_id=run), None))
            assert len(said) == 60_000


async def test_a_server_that_babbles_does_not_hold_up_the_others(made: Callable[..., Any]) -> None:
    async with made() as transport:
        for run in "ab":
            await transport.call(build_intent("pid", run_id=run), None)
        babble = build_intent("babble", {"lines": 100_000}, run_id="a", deadline_ms=60_000)
        babbling = asyncio.create_task(transport.call(babble, None))
        for _ in range(50):
            await transport.call(build_intent("pid", run_id="b"), None)
        assert not babbling.done()
        assert text(await babbling) == "after the flood"


async def test_a_server_that_does_not_read_is_not_sent_more_and_more(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.stdio_process.GRACE_S", 0.05)
    async with made() as transport:
        await transport.call(build_intent("idle"), None)
        large = {"value": "x" * 1_000_000}
        ends = [(await refusal(transport, "echo", large, deadline_ms=1)).delivery for _ in range(9)]
    assert ends[0] == "unknown"
    assert ends[-1] == "not_sent"


async def test_an_idle_process_is_ended_though_who_waited_for_that_gave_up(
    made: Callable[..., Any], clock: HandClock
) -> None:
    async with made() as transport:
        pid = int(text(await transport.call(build_intent("pid"), None)))
        clock.pass_s(301)
        reaping = asyncio.create_task(transport.reap())
        await asyncio.sleep(0)
        reaping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reaping
    assert not is_running(pid)


async def test_answers_in_any_order_reach_the_calls_they_belong_to(
    made: Callable[..., Any],
) -> None:
    async with made() as transport:
        said = asyncio.Event()
        first = asyncio.create_task(transport.call(build_intent("wait"), lambda _: said.set()))
        await said.wait()
        second = asyncio.create_task(transport.call(build_intent("wait"), None))
        third = asyncio.create_task(transport.call(build_intent("release"), None))
        answers = [text(await task) for task in (first, second, third)]
        assert answers == ["released 1", "released 2", "released"]


async def test_the_server_sees_only_the_allowed_environment(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-pass-on")
    async with made(env={"GIVEN": "yes"}) as transport:
        seen = orjson.loads(text(await transport.call(build_intent("env"), None)))
    assert seen["GIVEN"] == "yes"
    assert seen["PATH"] == os.environ["PATH"]
    assert "AWS_SECRET_ACCESS_KEY" not in seen


def test_the_configured_environment_wins() -> None:
    assert build_environment({"HOME": "/nowhere"}, {"HOME": "/root", "X": "1"}) == {
        "HOME": "/nowhere"
    }


async def test_nothing_of_the_agents_token_reaches_the_server(made: Callable[..., Any]) -> None:
    async with made() as transport:
        answer = await transport.call(build_intent("echo", {"a": 1}, traceparent=TRACE), None)
    assert orjson.loads(text(answer)) == {"arguments": {"a": 1}, "meta": {"traceparent": TRACE}}


async def test_line_breaks_in_the_arguments_do_not_break_the_message(
    made: Callable[..., Any],
) -> None:
    async with made() as transport:
        answer = await transport.call(build_intent("echo", b'{\r\n "a": "b\\nc"\n}'), None)
    assert orjson.loads(text(answer))["arguments"] == {"a": "b\nc"}


async def test_noise_on_its_outputs_does_no_harm(made: Callable[..., Any]) -> None:
    async with made() as transport:
        answer = await transport.call(build_intent("noise"), None)
        assert text(answer) == "after the noise"


async def test_a_progress_of_somebody_else_is_not_relayed(made: Callable[..., Any]) -> None:
    heard: list[bytes] = []
    async with made() as transport:
        await transport.call(build_intent("progress", progress_token="mine"), heard.append)
    messages = [orjson.loads(line) for line in heard]
    assert [message["params"].get("progressToken") for message in messages] == ["mine", None]


async def test_a_log_message_is_kept_from_others_while_a_call_that_was_given_up_may_run_on(
    made: Callable[..., Any],
) -> None:
    heard: dict[str, list[str]] = {"a": [], "b": []}
    async with made(shared=True) as transport:
        given_up = build_intent("wait", run_id="a", deadline_ms=100)
        with pytest.raises(UpstreamError, match="in time"):
            await transport.call(given_up, None)
        for run, lines in heard.items():
            call = build_intent("progress", run_id=run, progress_token="mine")
            await transport.call(
                call, lambda line, to=lines: to.append(orjson.loads(line)["method"])
            )
    assert heard == {
        "a": ["notifications/progress", "notifications/message"],
        "b": ["notifications/progress"],
    }


async def test_requests_of_the_server_are_answered_without_the_agent(
    made: Callable[..., Any],
) -> None:
    async with made() as transport:
        pong, refused = orjson.loads(text(await transport.call(build_intent("asks"), None)))
    assert pong["result"] == {}
    assert refused["error"]["code"] == -32601


async def test_a_changed_list_is_noticed(made: Callable[..., Any]) -> None:
    noticed: list[str] = []
    async with made(on_list_changed=noticed.append) as transport:
        await transport.call(build_intent("changed"), None)
    assert noticed == ["srv"]


async def test_a_changed_list_may_go_unnoticed(made: Callable[..., Any]) -> None:
    async with made() as transport:
        assert text(await transport.call(build_intent("changed"), None)) == "changed"


async def test_a_server_replaced_on_the_disk_runs_nothing_of_another_definition_for_new_runs(
    made: Callable[..., Any], clock: HandClock, tmp_path: Path
) -> None:
    edition, noticed = tmp_path / "edition", list[str]()
    edition.write_text("first", encoding="utf-8")
    async with made("--edition", str(edition), on_list_changed=noticed.append) as transport:
        before = await transport.list_tools()
        await transport.call(build_intent("echo", run_id="a"), None)
        edition.write_text("second", encoding="utf-8")
        error = await refusal(transport, "echo", run_id="b")
        assert (error.delivery, noticed) == ("not_sent", ["srv"])
        await transport.call(build_intent("pid", run_id="b"), None)  # another tool, which stayed
        clock.pass_s(1)
        after = await transport.list_tools()
        assert (b'"first"' in before[0], b'"second"' in after[0]) == (True, True)
        await transport.call(build_intent("echo", run_id="b"), None)  # as listed, if reviewed
        assert (await refusal(transport, "echo", run_id="a")).delivery == "not_sent"
        assert transport.processes == 3


async def test_a_tool_that_a_process_does_not_offer_yet_is_left_to_it(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    edition = tmp_path / "edition"
    edition.write_text("first", encoding="utf-8")
    async with made("--edition", str(edition)) as transport:
        await transport.list_tools()
        edition.write_text("none", encoding="utf-8")
        await transport.call(build_intent("echo", run_id="b"), None)


async def test_a_tool_that_a_process_offers_twice_is_not_called(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    edition = tmp_path / "edition"
    edition.write_text("first", encoding="utf-8")
    async with made("--edition", str(edition)) as transport:
        await transport.list_tools()
        edition.write_text("twice", encoding="utf-8")
        assert (await refusal(transport, "echo", run_id="b")).delivery == "not_sent"


async def test_a_shared_server_that_comes_back_another_is_listed_before_it_is_called(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    edition, died = tmp_path / "edition", tmp_path / "died"
    edition.write_text("first", encoding="utf-8")
    async with made("--edition", str(edition), shared=True) as transport:
        await transport.list_tools()
        edition.write_text("second", encoding="utf-8")
        await transport.call(build_intent("echo"), None)  # it still is what it was
        await refusal(transport, "die", {"counter": str(died)})
        assert (await refusal(transport, "echo")).delivery == "not_sent"
        await transport.list_tools()
        await transport.call(build_intent("echo"), None)


async def test_a_server_that_says_that_it_changed_is_asked_before_the_next_call(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    async with made() as transport:
        await transport.list_tools()
        await transport.call(build_intent("changed"), None)
        assert text(await transport.call(build_intent("changed"), None)) == "changed"


async def test_an_answer_past_the_limit_is_refused_and_the_process_lives_on(
    made: Callable[..., Any],
) -> None:
    async with made(limits=Limits(result_max_bytes=100_000)) as transport:
        error = await refusal(transport, "huge", {"bytes": 300_000})
        assert (error.code, error.delivery) == ("result_too_large", "sent")
        assert text(await transport.call(build_intent("echo"), None))


@pytest.mark.parametrize(
    ("tool", "code"), [("other_id", "upstream_protocol"), ("input", "unsupported_result")]
)
async def test_an_unusable_answer_was_sent(made: Callable[..., Any], tool: str, code: str) -> None:
    async with made() as transport:
        error = await refusal(transport, tool)
        assert (error.code, error.delivery) == (code, "sent")


async def test_a_slow_call_ends_unknown_and_is_cancelled(made: Callable[..., Any]) -> None:
    async with made() as transport:
        await transport.start()
        error = await refusal(transport, "wait", deadline_ms=50)
        assert (error.code, error.delivery) == ("upstream_timeout", "unknown")
        assert text(await transport.call(build_intent("release"), None)) == "released"


async def test_no_more_processes_than_allowed(made: Callable[..., Any], clock: HandClock) -> None:
    limits = StdioLimits(processes_max=1, idle_s=10)
    async with made(stdio_limits=limits) as transport:
        await transport.call(build_intent("echo", run_id="a"), None)
        refused = await refusal(transport, "echo", run_id="b")
        assert (refused.delivery, refused.retryable) == ("not_sent", True)
        clock.pass_s(11)
        await transport.call(build_intent("echo", run_id="b"), None)
        assert transport.processes == 1


async def test_a_run_that_has_ended_makes_room_for_another(made: Callable[..., Any]) -> None:
    async with made(stdio_limits=StdioLimits(processes_max=1)) as transport:
        pid = int(text(await transport.call(build_intent("pid", run_id="a"), None)))
        transport.end_run("nobody")
        transport.end_run("a")
        await transport.call(build_intent("echo", run_id="b"), None)
        assert transport.processes == 1
    assert not is_running(pid)


async def test_a_run_that_has_ended_does_not_cut_off_what_is_in_flight(
    made: Callable[..., Any],
) -> None:
    async with made() as transport:
        heard = asyncio.Event()
        intent = build_intent("wait", run_id="a")
        waiting = asyncio.create_task(transport.call(intent, lambda _: heard.set()))
        await heard.wait()
        transport.end_run("a")
        await transport.call(build_intent("release", run_id="a"), None)
        assert text(await waiting).startswith("released")


async def test_an_idle_process_is_ended(clock: HandClock) -> None:
    naps = asyncio.Queue[float]()
    wake = asyncio.Event()

    async def sleep(seconds: float) -> None:
        naps.put_nowait(seconds)
        await wake.wait()
        wake.clear()

    transport = McpStdioTransport("srv", COMMAND, limits=Limits(), clock=clock, sleep=sleep)
    await transport.start()
    await transport.start()
    pid = int(text(await transport.call(build_intent("pid"), None)))
    assert await naps.get() == 75.0
    clock.pass_s(299)
    wake.set()
    await naps.get()
    assert transport.processes == 2
    clock.pass_s(2)
    wake.set()
    await naps.get()
    assert transport.processes == 0
    assert not is_running(pid)
    await transport.close()


async def test_closing_leaves_no_process_behind_however_stubborn(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.stdio_process.GRACE_S", 0.05)
    async with made(shared=True) as transport:
        pids = [
            int(text(await transport.call(build_intent(tool), None))) for tool in ("pid", "child")
        ]
        await transport.call(build_intent("stubborn"), None)
        assert all(is_running(pid) for pid in pids)
    assert not any(is_running(pid) for pid in pids)


async def test_a_call_in_flight_at_the_close_ends_unknown(made: Callable[..., Any]) -> None:
    async with made() as transport:
        said = asyncio.Event()
        waiting = asyncio.create_task(transport.call(build_intent("wait"), lambda _: said.set()))
        await said.wait()
    with pytest.raises(UpstreamError) as caught:
        await waiting
    assert caught.value.delivery == "unknown"
    assert (await refusal(transport, "echo")).delivery == "not_sent"


async def test_a_close_during_the_start_leaves_no_process_behind(
    made: Callable[..., Any],
) -> None:
    async with made() as transport:
        waiting = asyncio.create_task(transport.call(build_intent("pid"), None))
        await asyncio.sleep(0)
        assert transport.processes == 1
    with pytest.raises(UpstreamError) as caught:
        await waiting
    assert caught.value.delivery == "not_sent"


async def test_a_close_during_a_start_that_hangs_leaves_no_process_behind(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("connectors.stdio_process.GRACE_S", 0.1)
    told = tmp_path / "pid"
    async with made("--never", str(told)) as transport:
        waiting = asyncio.create_task(transport.call(build_intent("pid"), None))
        while not (told.is_file() and told.read_text(encoding="ascii")):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
    with pytest.raises(UpstreamError) as caught:
        await waiting
    assert caught.value.delivery == "not_sent"
    assert not is_running(int(told.read_text(encoding="ascii")))


async def test_a_caller_that_gives_up_does_not_end_the_process_for_others(
    made: Callable[..., Any],
) -> None:
    async with made() as transport:
        waiting = asyncio.create_task(transport.call(build_intent("pid"), None))
        await asyncio.sleep(0)
        assert transport.processes == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert text(await transport.call(build_intent("pid"), None))
        assert transport.processes == 1


async def test_a_start_that_fails_says_what_the_server_said(made: Callable[..., Any]) -> None:
    async with made("--refuse") as transport:
        with pytest.raises(UpstreamError, match="no licence found") as caught:
            await transport.start()
        assert caught.value.delivery == "not_sent"


async def test_a_command_or_folder_that_there_is_not_is_named(
    clock: HandClock, tmp_path: Path
) -> None:
    for command, cwd in (([str(tmp_path / "none")], None), (COMMAND, tmp_path / "none")):
        transport = McpStdioTransport("srv", command, limits=Limits(), clock=clock, cwd=cwd)
        with pytest.raises(UpstreamError, match=f"No such file or directory: `{tmp_path}/none`"):
            await transport.start()
        await transport.close()


async def test_a_server_of_an_unknown_version_is_not_used(made: Callable[..., Any]) -> None:
    async with made("--ancient") as transport:
        with pytest.raises(UpstreamError, match="no version of MCP"):
            await transport.list_tools()
