"""What `countersign agents|clients|users` share: paths, the life of an entry, how it is printed."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.admin_api import Output, OutputOption, ask, fail, print_json, print_rows, visible
from gateway.cli.exits import Exit

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the entry.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the log.")]
HashOption = Annotated[
    str, typer.Option(help="`sha256:…` of a secret that its owner made, in place of a new one.")
]
GrantOption = Annotated[
    list[str] | None,
    typer.Option(help='JSON, such as \'{"server": "shop", "effects": ["read"]}\'; repeatable.'),
]

KeysOption = Annotated[
    Path | None, typer.Option("--jwks", help="A JWK set of public keys, in place of a secret.")
]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
Cells = Callable[[Mapping[str, Any]], tuple[str, ...]]


def route(group: str, member_id: str, action: str = "") -> str:
    """Return the route of an entry; exits for what is no id."""
    if not _ID.fullmatch(member_id):
        fail(Exit.USAGE, f"an id is letters, digits and `._@-`; see `countersign {group} list`")
    return f"/v1/{group}/{member_id}" + (f"/{action}" if action else "")


def add_reading(app: typer.Typer, group: str, heads: Sequence[str], cells: Cells) -> None:
    """Add `list` and `show`."""

    @app.command("list")
    def list_(output: OutputOption = Output.TABLE) -> None:
        """List all of them, suspended and retired ones too."""
        found = ask("GET", f"/v1/{group}")[group]
        if output is Output.JSON:
            print_json(found)
            return
        rows = [(one["id"], one["state"], one["origin"], *cells(one)) for one in found]
        shown = [tuple(visible(cell) for cell in row) for row in rows]
        print_rows([("ID", "STATE", "ORIGIN", *heads), *shown])

    @app.command()
    def show(member_id: IdArgument, output: OutputOption = Output.TABLE) -> None:
        """Show one of them."""
        found = ask("GET", route(group, member_id))
        if output is Output.JSON:
            print_json(found)
            return
        print_rows([(name, visible(_plain(value))) for name, value in found.items()])


def add_life(app: typer.Typer, group: str) -> None:
    """Add `suspend`, `resume`, `retire` and `rotate-secret`."""

    @app.command()
    def suspend(
        member_id: IdArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
    ) -> None:
        """Stop one of them at once, until somebody lets it go on."""
        tell(ask("POST", route(group, member_id, "suspend"), body={"reason": reason}), output)

    @app.command()
    def resume(
        member_id: IdArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
    ) -> None:
        """Let one of them go on."""
        tell(ask("POST", route(group, member_id, "resume"), body={"reason": reason}), output)

    @app.command()
    def retire(
        member_id: IdArgument, reason: ReasonOption = "", output: OutputOption = Output.TABLE
    ) -> None:
        """Stop one of them for good; the id is never given again."""
        tell(ask("POST", route(group, member_id, "retire"), body={"reason": reason}), output)

    @app.command("rotate-secret")
    def rotate_secret(
        member_id: IdArgument, secret_hash: HashOption = "", output: OutputOption = Output.TABLE
    ) -> None:
        """Give one of them a new secret, told here once; the old one is void."""
        body = {"secret_hash": secret_hash} if secret_hash else {}
        tell(ask("POST", route(group, member_id, "secret"), body=body), output)


def add_edges(app: typer.Typer, group: str, words: str) -> None:
    """Add `allow-edge`. `words` say what an edge allows."""

    @app.command("allow-edge", help=f"Allow {words} an agent; `--remove` takes that back.")
    def allow_edge(
        member_id: IdArgument,
        agent: Annotated[str, typer.Argument(metavar="AGENT", help="Id of the agent.")],
        remove: Annotated[bool, typer.Option("--remove", help="Take it back.")] = False,
        output: OutputOption = Output.TABLE,
    ) -> None:
        body = {"agent": agent, "remove": remove}
        tell(ask("POST", route(group, member_id, "edges"), body=body), output)


def read_grants(texts: Sequence[str] | None) -> list[Any]:
    """Return the grants that were given as JSON; exits for what is none."""
    try:
        return [json.loads(text) for text in texts or ()]
    except ValueError:
        fail(Exit.USAGE, 'a `--grant` is JSON, such as \'{"server": "shop", "effects": ["read"]}\'')


def read_keys(path: Path | None) -> Any:  # noqa: ANN401 - JSON
    """Return the JWK set in a file, None without one; exits for what is none."""
    try:
        return None if path is None else json.loads(path.read_bytes())
    except (OSError, ValueError):
        fail(Exit.USAGE, f'`{path}` is no JWK set; write `{{"keys": […]}}`')


def tell(answer: Mapping[str, Any], output: Output) -> None:
    """Print what came of a change. Exits `PENDING` where it waits for a second person."""
    if output is Output.JSON:
        print_json(answer)
    elif answer["status"] == "applied":
        entry = answer["entry"]
        print(f"{entry['id']} {entry['state']}")
        if "secret" in answer:
            print(f"secret {answer['secret']}")
    else:
        print(f"{answer['proposal']['proposal']} {answer['status']}")
    _explain(answer)


def when(seconds: int) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(seconds))


def _explain(answer: Mapping[str, Any]) -> None:
    if answer["status"] == "proposed":
        until = when(answer["proposal"]["expires_at"])
        print(
            f"waits for a second admin until {until}: `countersign users confirm "
            f"{answer['proposal']['proposal']}`",
            file=sys.stderr,
        )
        raise typer.Exit(Exit.PENDING)
    if "secret" in answer:
        print("keep the secret now: it is told once and kept nowhere", file=sys.stderr)
    if answer.get("alone"):
        print("done alone, and on record as such: there is no second admin yet", file=sys.stderr)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
