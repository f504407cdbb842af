"""`countersign agents`: who acts through the gateway, over the admin REST API."""

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

app = typer.Typer(name="agents", help="Register, stop and retire agents.", no_args_is_help=True)

NamesOption = list[str] | None
OwnerOption = Annotated[str, typer.Option(help="Who answers for it; may not approve its calls.")]


@app.command()
def create(  # noqa: PLR0917 - options of a command
    member_id: IdArgument,
    owner: OwnerOption = "",
    role: Annotated[NamesOption, typer.Option(help="What policies may know it by.")] = None,
    grant: GrantOption = None,
    delegate_to: Annotated[
        NamesOption, typer.Option(help="An agent that it may hand authority to.")
    ] = None,
    dpop: Annotated[bool, typer.Option("--dpop", help="Bind its tokens to a key.")] = False,
    secret: Annotated[bool, typer.Option("--secret", help="Generate a secret, told once.")] = False,
    secret_hash: HashOption = "",
    jwks: KeysOption = None,
    environment: Annotated[str, typer.Option(help="Refused unless it is this one's.")] = "",
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Register an agent. Without a secret it acts in launched runs only."""
    body: dict[str, Any] = {
        "id": member_id,
        "owner": owner,
        "roles": role or [],
        "grants": read_grants(grant),
        "may_delegate_to": delegate_to or [],
        "dpop": dpop,
        "secret": secret,
        "secret_hash": secret_hash,
        "reason": reason,
    }
    if environment:
        body["environment"] = environment
    if (keys := read_keys(jwks)) is not None:
        body["jwks"] = keys
    tell(ask("POST", "/v1/agents", body=body), output)


@app.command()
def update(  # noqa: PLR0917 - options of a command
    member_id: IdArgument,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    role: Annotated[NamesOption, typer.Option(help="Its roles, in place of all.")] = None,
    grant: GrantOption = None,
    jwks: KeysOption = None,
    no_grants: Annotated[bool, typer.Option("--no-grants", help="Take all grants.")] = False,
    dpop: Annotated[bool | None, typer.Option(help="Bind its tokens to a key.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Change what an agent is; what is given takes the place of what there was."""
    given = {
        "owner": owner,
        "roles": role,
        "grants": [] if no_grants else read_grants(grant) or None,
        "jwks": read_keys(jwks),
        "dpop": dpop,
    }
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        fail(Exit.USAGE, "say what changes, such as --owner, --role, --grant or --jwks")
    tell(ask("PATCH", route("agents", member_id), body=body), output)


add_reading(
    app,
    "agents",
    ("OWNER", "ROLES", "DELEGATES TO"),
    lambda one: (one["owner"], ", ".join(one["roles"]), ", ".join(one["may_delegate_to"])),
)
add_life(app, "agents")
add_edges(app, "agents", "an agent to hand a part of its authority to")
