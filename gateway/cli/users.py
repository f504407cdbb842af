"""`countersign users`: people and their roles, over the admin REST API.

Who decides (admin, approver, policy_publisher) is changed by two people once there are two admins.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Any

import typer

from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_id,
    print_json,
    print_rows,
    visible,
)
from gateway.cli.registry import (
    HashOption,
    IdArgument,
    ReasonOption,
    add_life,
    add_reading,
    route,
    tell,
    when,
)

app = typer.Typer(name="users", help="Register people, and give them roles.", no_args_is_help=True)

_PROPOSALS = "/v1/registry/proposals"
RolesArgument = Annotated[list[str], typer.Argument(metavar="ROLE…", help="Roles.")]
GroupOption = Annotated[
    bool, typer.Option("--group", help="Groups that policies ask to approve, not roles.")
]
ProposalArgument = Annotated[
    str, typer.Argument(metavar="PROPOSAL", help="Id, from `users proposals`.")
]


@app.command()
def create(  # noqa: PLR0917 - options of a command
    member_id: IdArgument,
    role: Annotated[list[str] | None, typer.Option(help="A role; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group; repeatable.")] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Generate a secret, told once (not for who decides).")
    ] = False,
    secret_hash: HashOption = "",
    reason: ReasonOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Register a person."""
    body: dict[str, Any] = {
        "id": member_id,
        "roles": role or [],
        "groups": group or [],
        "secret": secret,
        "secret_hash": secret_hash,
        "reason": reason,
    }
    tell(ask("POST", "/v1/users", body=body), output)


@app.command("new-secret")
def new_secret(output: OutputOption = Output.TABLE) -> None:
    """Make a secret of your own, here; tell an admin its hash, and nobody the secret."""
    made = secrets.token_urlsafe(32)
    digest = "sha256:" + hashlib.sha256(made.encode()).hexdigest()
    if output is Output.JSON:
        print_json({"secret": made, "secret_hash": digest})
    else:
        print(f"secret {made}\nsecret_hash {digest}")


@app.command()
def claim(member_id: IdArgument, output: OutputOption = Output.TABLE) -> None:
    """Make a code with which a person sets their first password; hand it over yourself."""
    found = ask("POST", "/v1/sign-in/claims", body={"person": member_id})
    if output is Output.JSON:
        print_json(found)
    else:
        print(f"open once, until {when(found['expires_at'])}: {visible(str(found['url']))}")


@app.command("grant-role")
def grant_role(
    member_id: IdArgument,
    role: RolesArgument,
    group: GroupOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Give a person roles."""
    body = {"add_groups" if group else "grant": role}
    tell(ask("POST", route("users", member_id, "roles"), body=body), output)


@app.command("revoke-role")
def revoke_role(
    member_id: IdArgument,
    role: RolesArgument,
    group: GroupOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take roles from a person."""
    body = {"remove_groups" if group else "revoke": role}
    tell(ask("POST", route("users", member_id, "roles"), body=body), output)


@app.command()
def proposals(output: OutputOption = Output.TABLE) -> None:
    """List what waits for a second admin, oldest first."""
    found = ask("GET", _PROPOSALS)["proposals"]
    if output is Output.JSON:
        print_json(found)
        return
    rows = [("PROPOSAL", "ENTRY", "CHANGE", "ASKED BY", "UNTIL", "WHAT WOULD HOLD")]
    print_rows([*rows, *(_row(one) for one in found)])


@app.command()
def confirm(proposal: ProposalArgument, output: OutputOption = Output.TABLE) -> None:
    """Let a proposal come into force, as the second admin."""
    tell(ask("POST", f"{_PROPOSALS}/{_check(proposal)}/confirm"), output)


@app.command()
def withdraw(proposal: ProposalArgument, output: OutputOption = Output.TABLE) -> None:
    """Take a proposal back."""
    tell(ask("POST", f"{_PROPOSALS}/{_check(proposal)}/withdraw"), output)


def _check(proposal: str) -> str:
    return check_id(proposal, "countersign users proposals")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    after = one.get("after", {})
    would = [one["state"], ",".join((*after.get("roles", ()), *after.get("groups", ())))]
    changes = [*(f"+{name}" for name in one.get("granted", ()))]
    changes += [f"-{name}" for name in one.get("revoked", ())]
    if after.get("secret"):
        would.append(f"secret {after['secret']}…")
    if opened := one.get("account_opened"):
        told = f"{', '.join(opened['by'])}, last at {when(opened['at'])}"
        would.append(f"(account opened by a claim or secret of {told})")
    change = " ".join([one["action"], *changes])
    cells = (one["proposal"], one["id"], change, one["asked_by"], when(one["expires_at"]))
    return tuple(visible(cell) for cell in (*cells, " ".join(filter(None, would))))


add_reading(
    app,
    "users",
    ("ROLES", "GROUPS"),
    lambda one: (", ".join(one["roles"]), ", ".join(one["groups"])),
)
add_life(app, "users")
