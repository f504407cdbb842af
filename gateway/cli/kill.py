"""`countersign kill`: stop agents, people, tools or everything, over the admin API or offline."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_reason,
    fail,
    print_json,
    print_rows,
    visible,
)
from gateway.cli.exits import Exit
from gateway.cli.offline import DEFAULT_FILE, ConfigFile, OfflineOption, run_offline
from gateway.core.approvals.declined import Declined
from gateway.core.kills.kill import EVERYTHING, Kind

if TYPE_CHECKING:
    from gateway.wiring.audit import Offline

app = typer.Typer(
    name="kill",
    help="The kill switch: stop agents, people, tools or everything, at once.",
    no_args_is_help=True,
)

_ROUTE: Final = "/v1/kills"
_SPAN: Final = re.compile(r"([1-9][0-9]{0,8})([smhd]?)")
_FOR_MAX_S: Final = 31_536_000
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

AgentOption = Annotated[str, typer.Option("--agent", help="Id of an agent.")]
ClientOption = Annotated[str, typer.Option("--client", help="Id of a launcher.")]
HumanOption = Annotated[str, typer.Option("--human", help="Id of a person.")]
RunOption = Annotated[str, typer.Option("--run", help="Id of a run.")]
ToolOption = Annotated[str, typer.Option("--tool", help="A tool, as `server.tool`.")]
ServerOption = Annotated[str, typer.Option("--server", help="Id of a server.")]
CredentialOption = Annotated[
    str, typer.Option("--credential", help="Reference of an upstream credential, `env:NAME`.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every call of every agent.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the log.")]


@app.command()
def on(  # noqa: PLR0917 - options of a command
    reason: ReasonOption,
    agent: AgentOption = "",
    client: ClientOption = "",
    human: HumanOption = "",
    run: RunOption = "",
    tool: ToolOption = "",
    server: ServerOption = "",
    credential: CredentialOption = "",
    everything: AllOption = False,
    span: Annotated[
        str, typer.Option("--for", help="`90s`, `30m`, `2h`, `7d`; else until it is lifted.")
    ] = "",
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop one target; done when it is in force, durable and on record."""
    given = _given(agent, client, human, run, tool, server, credential, everything=everything)
    kind, target = _one(given)
    check_reason(reason)
    for_s = _read_span(span)
    if offline:
        done = run_offline(config, _kill(kind, target, reason, for_s))
    else:
        body: dict[str, str | int] = {"reason": reason, **_body(kind, target)}
        done = ask("POST", _ROUTE, body=body if for_s is None else {**body, "for_s": for_s})
    if not done.get("known", True):
        print(
            f"warning: no {kind} `{visible(target)}` is known here; it is stopped all the same",
            file=sys.stderr,
        )
    _print([done], output, done)


@app.command()
def off(  # noqa: PLR0917 - options of a command
    reason: ReasonOption,
    agent: AgentOption = "",
    client: ClientOption = "",
    human: HumanOption = "",
    run: RunOption = "",
    tool: ToolOption = "",
    server: ServerOption = "",
    credential: CredentialOption = "",
    everything: AllOption = False,
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let one target go on, whoever stopped it; that is on record before anything does."""
    given = _given(agent, client, human, run, tool, server, credential, everything=everything)
    kind, target = _one(given)
    check_reason(reason)
    if offline:
        done = run_offline(config, _lift(kind, target, reason))
    else:
        done = ask("POST", f"{_ROUTE}/lift", body={"reason": reason, **_body(kind, target)})
    if output is Output.JSON:
        print_json(done)
    else:
        for one in done["lifted"]:
            print(f"lifted: {one['kind']} {visible(one['target'])}")


@app.command()
def status(
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """List what is stopped, oldest first."""
    found = run_offline(config, _view) if offline else ask("GET", _ROUTE)
    _print(found["kills"], output, found)
    if found["stale"]:
        print(
            "warning: the gateway does not know what other processes stopped; it refuses effects",
            file=sys.stderr,
        )


def _given(  # noqa: PLR0917 - one for each kind
    agent: str,
    client: str,
    human: str,
    run: str,
    tool: str,
    server: str,
    credential: str,
    *,
    everything: bool,
) -> dict[Kind, str]:
    return {
        "agent": agent,
        "client": client,
        "human": human,
        "run": run,
        "tool": tool,
        "server": server,
        "credential": credential,
        "all": EVERYTHING if everything else "",
    }


def _one(given: Mapping[Kind, str]) -> tuple[Kind, str]:
    """Return the one target that was given; exits for none and for several."""
    named = [(kind, target) for kind, target in given.items() if target]
    if len(named) != 1:
        names = ", ".join(f"--{kind}" for kind in given)
        fail(Exit.USAGE, f"name one of {names}")
    return named[0]


def _body(kind: Kind, target: str) -> dict[str, str]:
    return {"kind": kind} if kind == "all" else {"kind": kind, "target": target}


def _read_span(span: str) -> int | None:
    """Return how many seconds a text such as `2h` says; None for an empty one."""
    if not span:
        return None
    found = _SPAN.fullmatch(span)
    if found is None:
        fail(Exit.USAGE, "`--for` is a number with `s`, `m`, `h` or `d`, such as `2h`")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > _FOR_MAX_S:
        fail(Exit.USAGE, "`--for` is at most `365d`; leave it out, and lift it when it is over")
    return seconds


def _kill(
    kind: Kind, target: str, reason: str, for_s: int | None
) -> Callable[[Offline], Awaitable[dict[str, Any]]]:
    async def work(offline: Offline) -> dict[str, Any]:
        return await offline.kill(kind, target, reason, for_s)

    return work


def _lift(kind: Kind, target: str, reason: str) -> Callable[[Offline], Awaitable[dict[str, Any]]]:
    async def work(offline: Offline) -> dict[str, Any]:
        done = await offline.lift(kind, target, reason)
        if isinstance(done, Declined):
            fail(Exit.NOT_FOUND, done.why)
        return done

    return work


async def _view(offline: Offline) -> dict[str, Any]:
    return offline.view_kills()


def _print(kills: list[Mapping[str, Any]], output: Output, whole: object) -> None:
    if output is Output.JSON:
        print_json(whole)
        return
    rows = [("KIND", "TARGET", "SINCE", "UNTIL", "BY", "REASON")]
    rows += [
        (
            one["kind"],
            visible(one["target"]),
            _time(one["at"]),
            "until lifted" if one["until"] is None else _time(one["until"]),
            visible(one["by"]),
            visible(one["reason"]),
        )
        for one in kills
    ]
    print_rows(rows)


def _time(moment_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment_s))
