"""`countersign approvals`: what waits for people, and their votes, over the admin REST API.

`COUNTERSIGN_URL` names the gateway, `COUNTERSIGN_TOKEN` is the person's own credential.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, NoReturn

import httpx
import typer

from gateway.cli.exits import Exit

app = typer.Typer(name="approvals", help="Decide held calls.", no_args_is_help=True)

TIMEOUT_S: Final = 30.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_EXITS: Final[Mapping[int, Exit]] = {
    401: Exit.AUTH,
    403: Exit.DENIED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
}


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]
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
    found = _ask("GET", "", params=params)
    if output is Output.JSON:
        _print_json(found["approvals"])
    else:
        _print_list(found["approvals"])


@app.command()
def show(id_: IdArgument, output: OutputOption = Output.TABLE) -> None:
    """Show everything that a vote on one held call is about."""
    found = _ask("GET", _path(id_))
    if output is Output.JSON:
        _print_json(found)
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
    _tell(_ask("POST", _path(id_) + "/cancel", body={"reason": reason}), output)


@app.command()
def resolve(
    id_: IdArgument,
    ran: Annotated[bool, typer.Option("--ran/--not-ran", help="What the tool's records say.")],
    reason: Annotated[str, typer.Option(help="How you know, for the log.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether a call in state UNKNOWN ran (operators)."""
    _tell(_ask("POST", _path(id_) + "/resolve", body={"ran": ran, "reason": reason}), output)


def _vote(decision: str, id_: str, reason: str, words: str, output: Output) -> None:
    seen = _ask("GET", _path(id_))
    print("\n".join(_lines(seen)), file=sys.stderr)
    if words and words != seen["binding_words"]:
        _fail(Exit.CONFLICT, "the binding reads otherwise; look at the request again")
    # The vote is for what was just shown: the gateway refuses it if the request is another by now.
    body = {"decision": decision, "reason": reason, "binding": seen["binding"]}
    _tell(_ask("POST", _path(id_) + "/votes", body=body), output)


def _tell(after: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        _print_json(after)
    else:
        print(f"{visible(after['id'])} {visible(after['state'])}")


def _path(id_: str) -> str:
    if not id_.isalnum():
        _fail(Exit.USAGE, "an id is letters and digits; copy it from `countersign approvals list`")
    return f"/{id_}"


def _ask(
    method: str,
    path: str,
    *,
    params: Sequence[tuple[str, str]] = (),
    body: Mapping[str, str | bool] | None = None,
) -> Any:  # noqa: ANN401 - the JSON of the answer
    url, token = _settings()
    try:
        response = httpx.request(
            method,
            f"{url}/v1/approvals{path}",
            params=list(params),
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            trust_env=httpx.URL(url).host not in _LOOPBACK,  # no proxy stands before loopback
        )
        answer = response.json()
    except httpx.HTTPError as error:
        _fail(Exit.ERROR, f"the gateway cannot be reached ({type(error).__name__}); is it running?")
    except ValueError:
        _fail(Exit.ERROR, "the answer is not from a gateway; check COUNTERSIGN_URL")
    if response.status_code != httpx.codes.OK:
        detail = answer.get("detail", "no detail") if isinstance(answer, dict) else "no detail"
        _fail(_EXITS.get(response.status_code, Exit.ERROR), visible(str(detail)))
    return answer


def _settings() -> tuple[str, str]:
    url = os.environ.get("COUNTERSIGN_URL", "").rstrip("/")
    token = os.environ.get("COUNTERSIGN_TOKEN", "")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        _fail(Exit.USAGE, "set COUNTERSIGN_URL to the gateway's address, such as https://gateway")
    if parsed.scheme == "http" and parsed.host not in _LOOPBACK:
        _fail(Exit.USAGE, "COUNTERSIGN_URL must be https; a credential is not sent in the clear")
    if not token:
        _fail(Exit.AUTH, "set COUNTERSIGN_TOKEN to your own credential")
    if not token.isascii() or not token.isprintable():
        _fail(Exit.AUTH, "COUNTERSIGN_TOKEN holds a character that no credential has")
    return url, token


def _fail(code: Exit, message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


def visible(text: str) -> str:
    r"""Return `text` with every character that could deceive a reader written as `\u….`.

    Control characters move a terminal's cursor, bidirectional and zero-width ones make text read
    as another: an agent chooses the arguments that an approver sees.
    """
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(number: int) -> str:
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"  # noqa: PLR2004 - BMP


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


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
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _lines(view: Mapping[str, Any]) -> list[str]:
    """One held call for a person: the raw arguments first, as nobody summarised them."""
    pairs = [
        ("arguments", view["arguments"]),
        ("tool", view["tool"]),
        ("agent", view["agent"]),
        ("on behalf of", view["on_behalf_of"] or "nobody"),
        ("launched by", view["launcher"]),
        ("run", view["run_id"]),
        *(("reason", _reason(reason)) for reason in view["reasons"]),
        ("state", view["state"]),
        ("stages met", f"{view['stages_met']} of {len(view['stages'])}"),
        *(
            ("vote", f"{vote['decision']} by {vote['voter']}: {vote['reason']}")
            for vote in view["votes"]
        ),
        ("may vote", ", ".join(view["who_may_vote"]) or "nobody"),
        ("expires", _when(view["expires_at"])),
        ("binding", f"{view['binding_words']}  {view['binding']}"),
    ]
    return [f"{name:<13} {visible(str(value))}" for name, value in pairs]


def _reason(reason: Mapping[str, str]) -> str:
    said = f"{reason['code']}: {reason['message']}" if reason.get("message") else reason["code"]
    return f"{said} ({reason['policy']})" if reason.get("policy") else said


def _when(expires_at: int) -> str:
    left = expires_at - int(time.time())
    at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(expires_at))
    return f"{at} (in {left // 60} min {left % 60} s)" if left > 0 else f"{at} (over)"
