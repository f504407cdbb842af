"""`countersign clients`: who creates runs for agents, over the admin REST API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli.admin_api import Output, OutputOption, ask, fail
from gateway.cli.exits import Exit
from gateway.cli.registry import (
    GrantOption,
    HashOption,
    IdArgument,
    KeysOption,
    ReasonOption,
    add_edges,
    add_life,
    add_reading,
    read_grants,
    read_keys,
    route,
    tell,
)

app = typer.Typer(name="clients", help="Register, stop and retire launchers.", no_args_is_help=True)

NamesOption = list[str] | None


@app.command()
def create(  # noqa: PLR0917 - options of a command
    member_id: IdArgument,
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    launch: Annotated[NamesOption, typer.Option(help="An agent that it may launch.")] = None,
    human: Annotated[
        NamesOption, typer.Option(help="Whom it may act for; `*` for anybody.")
    ] = None,
    grant: GrantOption = None,
    secret_hash: HashOption = "",
    jwks: KeysOption = None,
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Register a launcher; its secret is told here once."""
    body: dict[str, Any] = {
        "id": member_id,
        "owner": owner,
        "may_launch": launch or [],
        "humans": human or [],
        "grants": read_grants(grant),
        "secret_hash": secret_hash,
        "reason": reason,
    }
    if (keys := read_keys(jwks)) is not None:
        body["jwks"] = keys
    tell(ask("POST", "/v1/clients", body=body), output)


@app.command()
def update(  # noqa: PLR0917 - options of a command
    member_id: IdArgument,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    human: Annotated[NamesOption, typer.Option(help="Whom it may act for, all of them.")] = None,
    grant: GrantOption = None,
    jwks: KeysOption = None,
    no_grants: Annotated[bool, typer.Option("--no-grants", help="Take all grants.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change what a launcher may do; what is given takes the place of what there was."""
    given = {
        "owner": owner,
        "humans": human,
        "grants": [] if no_grants else read_grants(grant) or None,
        "jwks": read_keys(jwks),
    }
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        fail(Exit.USAGE, "say what changes, such as --owner, --human, --grant or --jwks")
    tell(ask("PATCH", route("clients", member_id), body=body), output)


add_reading(
    app,
    "clients",
    ("OWNER", "MAY LAUNCH", "FOR"),
    lambda one: (one["owner"], ", ".join(one["may_launch"]), ", ".join(one["humans"])),
)
add_life(app, "clients")
add_edges(app, "clients", "a launcher to launch")
