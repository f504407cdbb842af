from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import orjson
import pytest

from connectors.mcp_stdio import McpStdioTransport
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from tests.unit.connectors.calls import HandClock, build_intent

SERVER = Path(__file__).with_name("sdk_server.py")


@pytest.mark.req("GW-09")
async def test_an_official_server_killed_in_the_middle_of_a_call_leaves_it_unknown(
    tmp_path: Path,
) -> None:
    counter, pid_file = tmp_path / "counter", tmp_path / "pid"
    command = ["/bin/sh", "-c", f"echo $$ > {pid_file}; exec {sys.executable} {SERVER}"]
    transport = McpStdioTransport("slow", command, limits=Limits(), clock=HandClock())
    started = asyncio.Event()
    intent = build_intent("slow", {"counter": str(counter)}, progress_token=1, deadline_ms=30_000)
    call = asyncio.create_task(transport.call(intent, lambda _: started.set()))
    await started.wait()
    os.kill(int(pid_file.read_text(encoding="ascii")), signal.SIGKILL)
    with pytest.raises(UpstreamError) as caught:
        await call
    assert (caught.value.delivery, caught.value.retryable) == ("unknown", False)
    answer = await transport.call(build_intent("echo", {"text": "again"}), None)
    assert orjson.loads(answer.result or b"")["content"][0]["text"] == "again"
    assert counter.read_text(encoding="utf-8") == "x"
    await transport.close()
