"""`countersign policy new`: a package to begin with, with its tests."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, get_args

import typer

from gateway.adapters.policy.policy_bundle import AUTHORITY_FILE, Bundle, gate_folder
from gateway.adapters.policy.policy_package import DECISION_SETS
from gateway.cli.exits import Exit
from gateway.cli.policy_folder import Directory, usage
from gateway.cli.policy_question import server_of
from gateway.core.catalog import Effect

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ROLE: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")

_POLICY: Final = """\
# METADATA
# title: {title}
# description: >-
#   Say in a sentence or two who may do what, and why. People read it before they change this.
# custom:
#   applies_to:
#     tools: [{tool}]
#     phases: [list, call, resume]
package policies.{name}

# It is heard about nothing but what `applies_to` names, so its rules need not say it again.
asked if input.phase in {{"call", "resume"}}

# What an agent may know of. Whether it may do it is judged when it is called.
permit contains {{"code": "{name}_listed"}} if input.phase == "list"

# Who may. A role may permit, never limit: an agent that was handed authority may lack it.
# Check the type of an argument before you compare it:
#   is_number(input.context.args.amount); input.context.args.amount <= 100
permit contains {{"code": "{name}_permitted"}} if {{
	asked
	"{role}" in input.subject.roles
}}
"""
_TEST: Final = """\
package {name}_test

import data.policies.{name}

# An input as the gateway asks it; the schema names every member (rego/schemas/input.v1.json).
question(phase, roles, args) := {{
	"version": 1,
	"phase": phase,
	"environment": "test",
	"subject": {{"type": "agent", "id": "tester", "roles": roles, "on_behalf_of": null}},
	"action": {{"name": "tools/call"}},
	"resource": {{
		"type": "tool", "id": "{tool}", "server": "{server}"{effect},
		"labels": [], "sensitive": [], "sinks": [], "sums": [],
	}},
	"context": {{
		"args": args,
		"now_ns": 1700049600000000000, # a Wednesday, 12:00 UTC
		"token": {{"scopes": ["tools:call", "tools:list"], "constraints": []}},
		"run": {{"calls": 0, "counts": {{}}, "sums": {{}}, "labels": []}},
		"family": {{"counts": {{}}, "sums": {{}}, "last_24h": {{"counts": {{}}, "sums": {{}}}}}},
		"claimed": {{}},
	}},
}}

# What all packages say together: `decision("call", ["{role}"], {{}}).outcome == "permit"`.
decision(phase, roles, args) := answer if {{
	answer := data.countersign.decision with input as question(phase, roles, args)
}}

test_it_is_listed if {{
	count({name}.permit) == 1 with input as question("list", [], {{}})
}}

test_who_has_the_role_may if {{
	count({name}.permit) == 1 with input as question("call", ["{role}"], {{}})
}}

# By this package.
test_nobody_else_may[note] if {{
	some note, roles in {{"no role": [], "another role": ["intern"]}}
	count({name}.permit) == 0 with input as question("call", roles, {{}})
}}
"""

Tool = Annotated[str, typer.Option("--tool", metavar="ID", help="The tool: `billing.refund`.")]
EffectOption = Annotated[
    str, typer.Option("--effect", help="What its manifest says it does: `read`, `money`, …")
]
Role = Annotated[str, typer.Option("--role", help="Who may; by default a role of its own name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(new)


def new(
    directory: Directory,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The package: `refunds`.")],
    tool: Tool,
    effect: EffectOption = "",
    role: Role = "",
) -> None:
    """Write a package, its tests and its authority; they load and pass as they are."""
    server = server_of(tool)
    if effect not in {"", *get_args(Effect)}:
        raise usage(f"`{effect}` is none of {', '.join(get_args(Effect))}")
    if role and _ROLE.fullmatch(role) is None:
        raise usage(f"`{role}` is no role; use letters, digits and `._@-`")
    if _NAME.fullmatch(name) is None:
        raise usage(f"`{name}` is not `[a-z][a-z0-9_]*` of at most 64 characters; rename it")
    title = name.replace("_", " ").capitalize()
    known = {"name": name, "tool": tool, "server": server, "role": role or name, "title": title}
    known["effect"] = f', "effect": "{effect}"' if effect else ""
    files = {
        directory / f"{name}.rego": _POLICY.format(**known),
        directory / f"{name}_test.rego": _TEST.format(**known),
    }
    for path in files:
        if path.exists():
            typer.echo(f"error: {path} is there already; choose another name", err=True)
            raise typer.Exit(Exit.CONFLICT)
    authority = _add_authority(directory / AUTHORITY_FILE, name, server)
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in (*files.items(), (directory / AUTHORITY_FILE, authority)):
        path.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {path}")
    for line in _tell_others(directory, name, (tool, server, effect)):
        typer.echo(line)
    typer.echo(f"next: countersign policy test {shlex.quote(str(directory))} -r {name}")


def _tell_others(directory: Path, name: str, about: tuple[str, str, str]) -> Iterator[str]:
    """Yield which packages of the folder are heard about the tool besides, and what they may say.

    A newcomer takes the new package for the only one.
    """
    found = gate_folder(directory)
    if not about[2] or not isinstance(found, Bundle):
        return
    heard = {
        package.name: ", ".join(each for each in DECISION_SETS if each in package.sets)
        for package in found.packages.values()
        if package.name != name
        and package.name not in found.silent
        and package.sets
        and (package.scope is None or package.scope.matches(*about, "call"))
    }
    if heard:
        yield f"also heard about `{about[0]}`: " + "; ".join(
            f"{other} ({sets})" for other, sets in heard.items()
        )
    permitting = [other for other in ("reads", "writes") if "permit" in heard.get(other, "")]
    if permitting:
        yield f"so `{permitting[0]}` may permit it too; to refuse somebody, write a `deny`"
    if "hold" in heard.get("high_risk", "") and not _is_left_out(found, about[0]):
        yield (
            "so people are asked about it, unless `high_risk` leaves it out: write "
            f'{{"settings": {{"high_risk": {{"except": ["{about[0]}"]}}}}}} into '
            f"{directory / 'data.json'}"
        )


def _is_left_out(bundle: Bundle, tool: str) -> bool:
    settings = json.loads(bundle.data).get("settings")
    named = settings.get("high_risk") if isinstance(settings, dict) else None
    left_out = named.get("except") if isinstance(named, dict) else None
    return isinstance(left_out, list) and tool in left_out


def _add_authority(path: Path, name: str, server: str) -> str:
    """Return authority.json with a line more. It says who may permit on which server."""
    try:
        value = json.loads(path.read_bytes()) if path.exists() else {"policies": {}}
        if "owners" in value:
            _add_to_owner(value["owners"], name, server)
        else:
            value["policies"].setdefault(name, [server])
    except (ValueError, KeyError, TypeError, AttributeError):
        typer.echo(f"error: {path} cannot be read; mend it: see docs/policies.md", err=True)
        raise typer.Exit(Exit.ERROR) from None
    if "owners" in value:
        return json.dumps(value, indent=2) + "\n"
    lines = ",\n".join(
        f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value["policies"].items()
    )
    return f'{{\n  "policies": {{\n{lines}\n  }}\n}}\n'


def _add_to_owner(owners: dict[str, dict[str, list[str]]], name: str, server: str) -> None:
    """Give a package to the one team that may permit on its server."""
    having = [each for each in owners.values() if {server, "*"} & set(each["servers"])]
    if len(having) != 1:
        raise usage(f"authority.json has {len(having)} owners for `{server}`; name one there first")
    if name not in having[0]["packages"]:
        having[0]["packages"].append(name)
