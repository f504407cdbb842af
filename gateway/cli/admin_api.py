"""How commands speak to the admin REST API of a running gateway.

`COUNTERSIGN_URL` names the gateway. `COUNTERSIGN_TOKEN` is the person's own credential; where it is
not set, it is what `countersign login` keeps for that gateway.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, NoReturn

import httpx
import typer

from gateway.cli.credentials import load_credential
from gateway.cli.exits import Exit
from gateway.core.seen import is_seen

TIMEOUT_S: Final = 30.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_NO_GATEWAY: Final = "the answer is not from a gateway; check COUNTERSIGN_URL"
_NO_PATH: Final = (
    "the gateway knows no such path; COUNTERSIGN_URL is its address alone, and it may be older"
)
_EXITS: Final[Mapping[int, Exit]] = {
    401: Exit.AUTH,
    403: Exit.DENIED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    410: Exit.NOT_FOUND,
}


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]


def ask(
    method: str,
    path: str,
    *,
    params: Sequence[tuple[str, str]] = (),
    body: Mapping[str, Any] | None = None,
    url: str | None = None,
    token_from: str = "COUNTERSIGN_TOKEN",  # noqa: S107 - the name of a variable
    timeout_s: float = TIMEOUT_S,
) -> Any:  # noqa: ANN401 - the JSON of the answer
    """Return the answer of a route, such as `/v1/keys`. Exits with the code that fits an error.

    `url` overrides `COUNTERSIGN_URL`. Give `token_from` with the `url` of a second gateway: a
    credential is for one, and another one is not shown it.
    """
    url, token = _settings(url, token_from)
    try:
        response = httpx.request(
            method,
            f"{url}{path}",
            params=list(params),
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            trust_env=httpx.URL(url).host not in _LOOPBACK,  # no proxy stands before loopback
        )
        answer = response.json()
    except httpx.HTTPError as error:
        fail(Exit.ERROR, f"the gateway cannot be reached ({type(error).__name__}); is it running?")
    except UnicodeEncodeError:
        fail(Exit.USAGE, "an option holds bytes that are no text; write it in UTF-8")
    except ValueError:
        fail(Exit.ERROR, _NO_GATEWAY)
    if response.status_code != httpx.codes.OK:
        if not isinstance(answer, dict) or "code" not in answer:
            fail(Exit.ERROR, _NO_GATEWAY)
        if answer["code"] == "path_unknown":
            fail(Exit.ERROR, _NO_PATH)
        detail = answer.get("detail", "no detail")
        if response.is_server_error:  # which says nothing by itself of what is wrong there
            hint = answer.get("hint", "see the gateway's log")
            detail = f"{detail} ({answer['code']}); {hint}"
        fail(_EXITS.get(response.status_code, Exit.ERROR), visible(str(detail)))
    return answer


def _settings(given: str | None, token_from: str) -> tuple[str, str]:
    url = check_url(given)
    token = os.environ.get(token_from, "")
    if not token:
        kept = load_credential(url)
        token = "" if kept is None else kept["token"]
    if not token:
        fail(
            Exit.AUTH,
            f"run `countersign login --url {url}`, or set {token_from} to your credential there",
        )
    if not token.isascii() or not token.isprintable():
        fail(Exit.AUTH, f"{token_from} holds a character that no credential has")
    return url, token


def check_url(given: str | None) -> str:
    """Return the gateway's address, `COUNTERSIGN_URL` unless given; exits where it is none."""
    url = (given or os.environ.get("COUNTERSIGN_URL", "")).rstrip("/")
    try:
        parsed = httpx.URL(url)
        named = parsed.host and not parsed.query and not parsed.fragment
    except (httpx.InvalidURL, UnicodeError):
        parsed, named = httpx.URL(""), ""
    if parsed.scheme not in {"http", "https"} or not named:
        fail(Exit.USAGE, "set COUNTERSIGN_URL to the gateway's address, such as https://gateway")
    if parsed.scheme == "http" and not is_loopback_url(url):
        fail(Exit.USAGE, "COUNTERSIGN_URL must be https; a credential is not sent in the clear")
    return url


def is_loopback_url(url: str) -> bool:
    """Whether a gateway is on this machine."""
    return httpx.URL(url).host in _LOOPBACK


def check_id(text: str, source: str) -> str:
    """Return an id that can stand in a path; exits for any other text. `source`: where it is."""
    if not text.isalnum():
        fail(Exit.USAGE, f"an id is letters and digits; copy it from `{source}`")
    return text


def check_reason(reason: str) -> None:
    """Exit where a reason says nothing."""
    if not reason.strip():
        fail(Exit.USAGE, "say why with `--reason`")


def fail(code: Exit, message: str) -> NoReturn:
    """Say what went wrong and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


def visible(text: str) -> str:
    r"""Return `text` with every character that could deceive a reader written as `\u….`.

    Control characters move a terminal's cursor, bidirectional and zero-width ones make text read
    as another: an agent chooses the arguments that an approver sees.
    """
    return "".join(char if is_seen(char) else escape(char) for char in text)


def escape(char: str) -> str:
    r"""Return a character as `\u…`."""
    number = ord(char)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"  # noqa: PLR2004 - BMP


def print_json(value: object) -> None:
    """Print data for programs."""
    print(json.dumps(value, indent=2))


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns, the first row being their heads."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
