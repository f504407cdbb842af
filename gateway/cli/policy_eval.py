"""`countersign policy eval`: the decision on one input, and with `--explain` how it came about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import orjson
import typer

from gateway.adapters.authoring.policy_explain import Explanation, Heard, explain
from gateway.cli.exits import Exit
from gateway.cli.policy_folder import Directory, Format, Input, Output, ask, load, read_input
from gateway.cli.policy_telling import tell_rule
from gateway.core.approvals.seating import APPROVER
from gateway.core.policy.decision import ApprovalSpec, Decision, Deny, Hold, Stage

Explain = Annotated[
    bool, typer.Option("--explain", help="Say which rules fired, and where others stopped.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="eval")(evaluate)


def evaluate(
    directory: Directory,
    *,
    document: Input,
    explained: Explain = False,
    output: Format = Output.TABLE,
) -> None:
    """Print the decision on one input; exit with 3 when denied, with 7 when held."""
    bundle = load(directory)
    phase, raw, value = read_input(document)
    decision = ask(bundle, phase, raw)
    found = explain(bundle, value) if explained else None
    if output is Output.JSON:
        typer.echo(orjson.dumps(_describe(decision, found), option=orjson.OPT_INDENT_2))
    else:
        for line in (*_tell_decision(decision), *([] if found is None else _tell(found))):
            typer.echo(line)
    if isinstance(decision, Deny):
        raise typer.Exit(Exit.DENIED)
    if isinstance(decision, Hold):
        raise typer.Exit(Exit.PENDING)


def _describe(decision: Decision, found: Explanation | None) -> dict[str, Any]:
    outcome = type(decision).__name__.lower()
    described = {"outcome": outcome, **msgspec.to_builtins(decision)}
    return described if found is None else {"decision": described, **msgspec.to_builtins(found)}


def _tell_decision(decision: Decision) -> Iterator[str]:
    yield type(decision).__name__.lower()
    for reason in decision.reasons:
        message = f": {reason.message}" if reason.message else ""
        yield f"  {reason.code}{message}" + (f" ({reason.policy})" if reason.policy else "")
    if isinstance(decision, Deny):
        return
    if isinstance(decision, Hold):
        yield from _tell_approval(decision.approval)
    for obligation in decision.obligations:
        yield f"  obligation: {orjson.dumps(obligation.spec).decode()}"


def _tell_approval(approval: ApprovalSpec) -> Iterator[str]:
    """Yield who must agree: every stage, each by one of its alternatives."""
    for stage in approval.stages:
        yield f"  asks {', or '.join(map(_seats, stage))} within {approval.ttl_s} s"


def _seats(one: Stage) -> str:
    signed = "" if one.min_assurance == Stage().min_assurance else f" ({one.min_assurance})"
    return f"{one.approve} of {', '.join(one.groups) or APPROVER}{signed}"


def _tell(found: Explanation) -> Iterator[str]:
    # Those that say something first.
    for package in sorted(found.heard, key=lambda each: not any(r.items for r in each.rules)):
        yield ""
        yield f"policies.{package.package}"
        yield from _tell_package(package)
    if found.unheard:
        yield ""
        yield f"not concerned by this input: {', '.join(found.unheard)}"


def _tell_package(package: Heard) -> Iterator[str]:
    for traced in package.rules:
        yield from tell_rule(traced, "  ")
        if traced.rule == "permit" and traced.items and not package.owns:
            yield "    does not count: authority.json does not give this server to the package"
    if not package.rules:
        yield "  says nothing"
