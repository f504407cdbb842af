"""`countersign audit open|redact|hold`: what people do to the log, over the admin REST API."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_id,
    fail,
    print_json,
    print_rows,
    visible,
)
from gateway.cli.exits import Exit
from gateway.cli.offline import DEFAULT_FILE, ConfigFile, OfflineOption, run_offline
from gateway.core.approvals.declined import Declined
from gateway.core.records.audit_admin import Basis

if TYPE_CHECKING:
    from gateway.wiring.audit import Offline

hold = typer.Typer(
    name="hold",
    help="Legal holds: what may not be erased; two people set and release one.",
    no_args_is_help=True,
)

_HOLDS = "/v1/audit/holds"
_REFUSED = {"redact_held": Exit.CONFLICT, "subject_not_found": Exit.NOT_FOUND}
HoldArgument = Annotated[str, typer.Argument(metavar="HOLD", help="Id, from `audit hold list`.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the log.")]


def open_(
    seq: Annotated[int, typer.Argument(min=0, help="Number of the record.")],
    path: Annotated[
        str, typer.Argument(help="The commitment in it, such as `args` or `policy.input`.")
    ],
    purpose: Annotated[str, typer.Option(help="What for; it goes on record before you see it.")],
    unmasked: Annotated[
        bool, typer.Option("--unmasked", help="Sensitive parts too (admins).")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one value that a record commits to. That you do, and why, is on record first."""
    body: dict[str, str | int | bool] = {"seq": seq, "path": path, "purpose": purpose}
    found = ask("POST", "/v1/audit/openings", body={**body, "unmasked": unmasked})
    if output is Output.JSON:
        print_json(found)
        return
    print(visible(found["value"]))
    how = "" if found["encoding"] == "utf-8" else f", in {found['encoding']}"
    masked = ", masked" if found["masked"] else ""
    print(
        f"{found['commitment']['bytes']} bytes{how}{masked}; commitment "
        f"{found['commitment']['c']}; on record as {found['record']}",
        file=sys.stderr,
    )


def redact(  # noqa: PLR0917 - options of a command
    subject: Annotated[str, typer.Option(help="Id of the person (or agent) to erase.")],
    basis: Annotated[Basis, typer.Option(help="Why it is done.")],
    reason: ReasonOption,
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Erase a data subject for good: its key is destroyed, the chain stays as it is."""
    if offline:
        done = run_offline(config, lambda gateway: _redact(gateway, subject, basis, reason))
    else:
        body = {"subject": subject, "basis": basis, "reason": reason}
        done = ask("POST", "/v1/audit/redactions", body=body)
    if output is Output.JSON:
        print_json(done)
    else:
        print(f"erased: {done['openings']} openings of {done['subject']}, record {done['record']}")


async def _redact(offline: Offline, subject: str, basis: Basis, reason: str) -> dict[str, Any]:
    if not subject or not reason.strip():
        fail(Exit.USAGE, "say whom with `--subject` and why with `--reason`")
    done = await offline.custody.redact(offline.by, subject, basis, reason)
    if isinstance(done, Declined):
        fail(_REFUSED.get(done.code, Exit.DENIED), done.why)
    found: dict[str, Any] = msgspec.to_builtins(done)
    return found


@hold.command("set")
def set_(
    reason: ReasonOption,
    subject: Annotated[str, typer.Option(help="Id of the person (or agent) to protect.")] = "",
    everybody: Annotated[bool, typer.Option("--all", help="Protect everybody.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Protect from erasure at once; a second person makes it last within 24 hours."""
    if bool(subject) == everybody:
        fail(Exit.USAGE, "say whom: `--subject ID` or `--all`")
    body: dict[str, str | bool] = {"reason": reason, "everybody": everybody}
    _tell(ask("POST", _HOLDS, body=body if everybody else {**body, "subject": subject}), output)


@hold.command()
def confirm(hold_id: HoldArgument, output: OutputOption = Output.TABLE) -> None:
    """Make a hold last, as the second person."""
    _tell(ask("POST", f"{_path(hold_id)}/confirm"), output)


@hold.command()
def release(
    hold_id: HoldArgument, reason: ReasonOption, output: OutputOption = Output.TABLE
) -> None:
    """Ask for the end of a hold; it protects until a second person confirms."""
    _tell(ask("POST", f"{_path(hold_id)}/release", body={"reason": reason}), output)


@hold.command("confirm-release")
def confirm_release(hold_id: HoldArgument, output: OutputOption = Output.TABLE) -> None:
    """End a hold, as the second person."""
    _tell(ask("POST", f"{_path(hold_id)}/confirm-release"), output)


@hold.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """List legal holds, oldest first, ended ones too."""
    found = ask("GET", _HOLDS)["holds"]
    if output is Output.JSON:
        print_json(found)
        return
    rows = [("HOLD", "STATE", "SUBJECT", "WAITS FOR A SECOND PERSON")]
    print_rows([*rows, *((one["hold"], one["state"], one["subject"], _wait(one)) for one in found)])


def _wait(one: Mapping[str, Any]) -> str:
    if "asked_by" not in one:
        return ""
    until = time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(one["lapses_at"]))
    return visible(f"until {until}; asked by {one['asked_by']}: {one['reason']}")


def _tell(one: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(one)
    else:
        waits = _wait(one)
        print(f"{one['hold']} {one['state']}" + (f", waits {waits}" if waits else ""))


def _path(hold_id: str) -> str:
    return f"{_HOLDS}/{check_id(hold_id, 'countersign audit hold list')}"
