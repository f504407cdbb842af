"""The demo: a company, its tools, an agent, an approver and an auditor, all real, in one folder.

    python -m examples.acme.demo            # tell the story, check it, leave nothing running
    python -m examples.acme.demo --keep     # leave it all up to play with

Exit codes: 0 every claim held · 1 one did not · 2 it could not be played · 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from examples.acme import demo_acts as acts
from examples.acme import demo_agent as agents
from examples.acme import demo_ground as grounds
from examples.acme.demo_audit import tell_audit
from examples.acme.demo_ground import ROOT, FolderError, Ground
from examples.acme.demo_keep import tell_how_to_play
from examples.acme.demo_processes import (
    Processes,
    StartError,
    command,
    countersign,
    find_left,
)
from examples.acme.demo_telling import Telling

START_S: Final = 30.0
"""How long a program may take until it serves; a busy machine is slow, not broken."""

INTERRUPTED: Final = 130
_POLL_S: Final = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Play the demo and return its exit code."""
    options = _read_options(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, _interrupt)
    tell = Telling(sys.stdout)
    tell.title("Countersign: an agent at work for Acme Outfitters")
    begun = time.monotonic()
    try:
        ground = grounds.lay(options.dir, options.policies)
        _perform(tell, ground, begun, keep=options.keep)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (FolderError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    left = find_left(ground.folder)
    tell.check("nothing of it is left running", not left, left)
    _sum_up(tell, begun)
    return 1 if tell.failed else 0


def _perform(tell: Telling, ground: Ground, begun: float, *, keep: bool) -> None:
    """Start, tell and stop everything. Ends by `KeyboardInterrupt` if that comes too early."""
    with Processes(ground.folder / "logs") as processes:
        try:
            asyncio.run(_play(tell, ground, processes, begun))
            if keep:
                _sum_up(tell, begun)
                tell_how_to_play(tell, ground)
                with suppress(KeyboardInterrupt):
                    signal.pause()
        finally:
            # What has to be ended is ended, however impatient somebody is.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)


def _sum_up(tell: Telling, begun: float) -> None:
    held, seconds = tell.checked - tell.failed, time.monotonic() - begun
    tell.title(f"\n{held} of {tell.checked} claims held, in {seconds:.1f} s.")


def _read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.acme.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it all up until Ctrl-C")
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="where its data goes")
    parser.add_argument(
        "--policies",
        type=Path,
        default=grounds.HERE / "policies",
        help="other policies than Acme's; some claims will not hold then",
    )
    return parser.parse_args(argv)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


async def _play(tell: Telling, ground: Ground, processes: Processes, begun: float) -> None:
    """The whole story, top to bottom."""
    await _set_up(tell, ground, processes, begun)
    run = await agents.launch(ground)
    token = await agents.fetch_token(ground)
    secret = token["access_token"]
    async with agents.connect(ground, secret) as agent:
        await acts.tell_authority(tell, ground, agent, run, token)
        await acts.tell_injection(tell, ground, agent)
        held = await acts.tell_money(tell, ground, agent)
        await acts.tell_approval(tell, ground, agent, secret, held)
        await acts.tell_repository(tell, ground, agent)
    await acts.tell_strangers(tell, ground, secret)
    await tell_audit(tell, ground, processes, secret)


async def _set_up(tell: Telling, ground: Ground, processes: Processes, begun: float) -> None:
    """Start Acme's server, pin what it and the git server offer, and start the gateway."""
    tell.say(
        "Its shop (official MCP SDK, SQLite), mcp-server-git as published, a gateway before both. "
        f"Everything is in {ground.folder}."
    )
    ready = ground.folder / "acme.url"
    server = [sys.executable, "-m", "examples.acme.server", "--db", str(ground.database)]
    processes.start("acme", [*server, "--ready-file", str(ready)], cwd=ROOT)
    await asyncio.gather(grounds.install_git_server(ground), grounds.make_repository(ground))
    await _wait(processes, "acme", ready.exists)
    grounds.write_config(ground, ready.read_text(encoding="utf-8"))
    await asyncio.gather(*(_approve_tools(ground, name) for name in ("acme", "git")))
    serve = [command("countersign"), "serve", "--config", str(ground.config)]
    processes.start("gateway", serve, cwd=ground.folder)
    await _wait(processes, "gateway", lambda: _is_ready(ground))
    seconds = time.monotonic() - begun
    tell.check(f"all is up after {seconds:.1f} s; agents call {ground.url}", _is_ready(ground))


async def _approve_tools(ground: Ground, server: str) -> None:
    """Pin the definitions of every reviewed tool, as a person does after reading them."""
    who = ("--all", "--reviewed-by", "dana", "--config", str(ground.config))
    done = await countersign("tools", "approve", server, *who)
    if done.code:
        raise StartError(f"`countersign tools approve {server}` failed:\n{done.err.strip()}")


async def _wait(processes: Processes, name: str, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + START_S
    while not ready():
        processes.require_alive(name)
        if time.monotonic() > until:
            raise StartError(f"{name} is not ready after {START_S:.0f} s:\n{processes.said(name)}")
        await asyncio.sleep(_POLL_S)


def _is_ready(ground: Ground) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", ground.port, timeout=START_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
