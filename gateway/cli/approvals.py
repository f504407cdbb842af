"""`countersign approvals`: what waits for people, and their votes, over the admin REST API.

`COUNTERSIGN_URL` names the gateway, `COUNTERSIGN_TOKEN` is the person's own credential.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_id,
    check_reason,
    escape,
    fail,
    print_json,
    print_rows,
    visible,
)
from gateway.cli.exits import Exit

app = typer.Typer(name="approvals", help="Decide held calls.", no_args_is_help=True)

_ROUTE = "/v1/approvals"
_PAGE = "500"
_VOTES = {True: "vote", False: "void vote"}
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the held call.")]
WordsOption = Annotated[
    str, typer.Option(help="Vote only if the binding reads as these words, from `show`.")
]


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None, typer.Option(help="Only these states; repeat for more. `all` for all.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List held calls, oldest first; those that wait for votes unless told otherwise."""
    wanted = [name.upper() for name in state or ["PENDING"]]
    params = [] if "ALL" in wanted else [("state", name) for name in wanted]
    found = _find(params)
    if output is Output.JSON:
        print_json(found)
    else:
        _print_list(found)


@app.command()
def show(id_: IdArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything that a vote on one held call is about."""
    found = ask("GET", _path(id_))
    if output is Output.JSON:
        print_json(found)
    else:
        print("\n".join(_lines(found)))


@app.command()
def approve(
    id_: IdArgument,
    reason: Annotated[str, typer.Option(help="Why, for the log.")],
    words: WordsOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Vote for a held call, on exactly what is shown."""
    _vote("approve", id_, reason, words, output)


@app.command()
def deny(
    id_: IdArgument,
    reason: Annotated[str, typer.Option(help="Why, for the requester and the log.")],
    words: WordsOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Vote against a held call."""
    _vote("deny", id_, reason, words, output)


@app.command()
def cancel(
    id_: IdArgument,
    reason: Annotated[str, typer.Option(help="Why, for the log.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back a held call that was not dispatched yet (operators)."""
    check_reason(reason)
    _tell(ask("POST", _path(id_) + "/cancel", body={"reason": reason}), output)


@app.command()
def resolve(
    id_: IdArgument,
    ran: Annotated[bool, typer.Option("--ran/--not-ran", help="What the tool's records say.")],
    reason: Annotated[str, typer.Option(help="How you know, for the log.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether a call in state UNKNOWN ran (operators)."""
    check_reason(reason)
    _tell(ask("POST", _path(id_) + "/resolve", body={"ran": ran, "reason": reason}), output)


def _vote(decision: str, id_: str, reason: str, words: str, output: Output) -> None:
    check_reason(reason)
    seen = ask("GET", _path(id_))
    print("\n".join(_lines(seen)), file=sys.stderr)
    if words and words != seen["binding_words"]:
        fail(Exit.CONFLICT, "the binding reads otherwise; look at the request again")
    # The vote is for what was just shown: the gateway refuses it if the request is another by now.
    body = {"decision": decision, "reason": reason, "binding": seen["binding"]}
    _tell(ask("POST", _path(id_) + "/votes", body=body), output)


def _tell(after: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(after)
    else:
        print(f"{visible(after['id'])} {visible(after['state'])}")


def _path(id_: str) -> str:
    return f"{_ROUTE}/{check_id(id_, 'countersign approvals list')}"


def _find(params: Sequence[tuple[str, str]]) -> list[Mapping[str, Any]]:
    """Return every held call that fits: whoever asks for many hides nobody else's."""
    found: list[Mapping[str, Any]] = []
    more = True
    while more:
        after = [("after", found[-1]["id"])] if found else []
        answer = ask("GET", _ROUTE, params=[*params, *after, ("limit", _PAGE)])
        found += answer["approvals"]
        # An older gateway tells one page, and not whether there is another.
        more = bool(answer["approvals"]) and answer.get("more", False)
    return found


def _print_list(requests: Sequence[Mapping[str, Any]]) -> None:
    rows = [("ID", "STATE", "AGENT", "TOOL", "EXPIRES", "REASONS")]
    rows += [
        (
            visible(one["id"]),
            visible(one["state"]),
            visible(one["agent"]),
            visible(one["tool"]),
            _when(one["expires_at"]),
            ", ".join(visible(reason["code"]) for reason in one["reasons"]),
        )
        for one in requests
    ]
    print_rows(rows)


def _lines(view: Mapping[str, Any]) -> list[str]:
    """One held call for a person: the raw arguments first, as nobody summarised them."""
    arguments = _plain(view["arguments"])
    pairs = [
        ("arguments", arguments),
        # Letters that look like others, or that turn those beside them around, as what they are.
        *((("in ASCII", _in_ascii(arguments)),) if not arguments.isascii() else ()),
        ("tool", view["tool"]),
        ("agent", view["agent"]),
        # Who handed it the authority: part of what a vote is about.
        *(("by way of", one) for one in view.get("actor_chain", ())[1:]),
        ("on behalf of", view["on_behalf_of"] or "nobody"),
        ("launched by", view["launcher"]),
        ("run", view["run_id"]),
        *(("reason", _reason(reason)) for reason in view["reasons"]),
        ("state", f"{view['state']}: {view['outcome']}" if view["outcome"] else view["state"]),
        ("stages met", f"{view['stages_met']} of {len(view['stages'])}"),
        *((_VOTES[vote.get("counts", True)], _vote_line(vote)) for vote in view["votes"]),
        ("may vote", ", ".join(view["who_may_vote"]) or "nobody"),
        ("expires", _when(view["expires_at"])),
    ]
    lines = [f"{name:<13} {_plain(str(value))}" for name, value in pairs]
    return [*lines, visible(f"binding       {view['binding_words']}  {view['binding']}")]


def _plain(text: str) -> str:
    """Return text in which nothing is unseen, and no row of spaces makes columns like ours."""
    return visible(text).replace("  ", " \\u0020")


def _in_ascii(text: str) -> str:
    return "".join(char if char.isascii() else escape(char) for char in text)


def _vote_line(vote: Mapping[str, Any]) -> str:
    return f"{vote['decision']} by {vote['voter']}: {vote['reason']}"


def _reason(reason: Mapping[str, str]) -> str:
    said = f"{reason['code']}: {reason['message']}" if reason.get("message") else reason["code"]
    return f"{said} ({reason['policy']})" if reason.get("policy") else said


def _when(expires_at: int) -> str:
    left = expires_at - int(time.time())
    at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(expires_at))
    return f"{at} (in {left // 60} min {left % 60} s)" if left > 0 else f"{at} (over)"
