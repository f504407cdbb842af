"""`countersign policy new` and `question`: a package to begin with, and an input to try it on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import orjson
import typer

from gateway.adapters.policy.policy_bundle import AUTHORITY_FILE
from gateway.adapters.policy.policy_sample import build_sample
from gateway.cli.exits import Exit
from gateway.cli.policy_folder import Directory, usage
from gateway.core import strict_json
from gateway.core.catalog import Effect
from gateway.core.errors import RequestError
from gateway.core.names import is_server_id
from gateway.core.policy.decision import Phase

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TOOL: Final = re.compile(r"([a-z0-9-]+)\.([A-Za-z0-9_.-]+)")

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

# Tests hear every package about everything, so it says itself what it is about.
mine if input.resource.id == "{tool}"

asked if {{
	mine
	input.phase in {{"call", "resume"}}
}}

# What an agent may know of. Whether it may do it is judged when it is called.
permit contains {{"code": "{name}_listed"}} if {{
	mine
	input.phase == "list"
}}

# Who may. Arguments stand in `input.context.args`; check their type before you compare them:
#   is_number(input.context.args.amount)
#   input.context.args.amount <= 100
permit contains {{"code": "{name}_permitted"}} if {{
	asked
	"{name}" in input.subject.roles
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
	"resource": {{"type": "tool", "id": "{tool}", "server": "{server}"}},
	"context": {{"args": args, "now_ns": 1700049600000000000}}, # a Wednesday, 12:00 UTC
}}

test_it_is_listed if {{
	count({name}.permit) == 1 with input as question("list", [], {{}})
}}

test_who_has_the_role_may if {{
	count({name}.permit) == 1 with input as question("call", ["{name}"], {{}})
}}

# By this package. What all packages say together, `countersign policy eval` tells.
test_nobody_else_may[note] if {{
	some note, roles in {{"no role": [], "another role": ["intern"]}}
	count({name}.permit) == 0 with input as question("call", roles, {{}})
}}
"""

Tool = Annotated[str, typer.Option("--tool", metavar="ID", help="The tool: `billing.refund`.")]
PhaseOption = Annotated[str, typer.Option("--phase", help="When policy is asked.")]
EffectOption = Annotated[str, typer.Option("--effect", help="What its manifest says it does.")]
Roles = Annotated[list[str] | None, typer.Option("--role", help="One of its roles. Repeatable.")]
Args = Annotated[str, typer.Option("--args", metavar="JSON", help="The arguments of the call.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(new)
    app.command()(question)


def new(
    directory: Directory,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The package: `refunds`.")],
    tool: Tool,
) -> None:
    """Write a package, its tests and its authority; they load and pass as they are."""
    server = _server_of(tool)
    if _NAME.fullmatch(name) is None:
        raise usage(f"`{name}` is not `[a-z][a-z0-9_]*` of at most 64 characters; rename it")
    title = name.replace("_", " ").capitalize()
    files = {
        directory / f"{name}.rego": _POLICY.format(name=name, tool=tool, title=title),
        directory / f"{name}_test.rego": _TEST.format(name=name, tool=tool, server=server),
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
    typer.echo(f"next: countersign policy test {directory} -r {name}")


def question(
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The tool: `billing.refund`.")],
    *,
    phase: PhaseOption = "call",
    effect: EffectOption = "read",
    roles: Roles = None,
    args: Args = "{}",
) -> None:
    """Print a complete policy input, for `policy eval --input`."""
    server = _server_of(tool)
    for given, known in ((phase, get_args(Phase)), (effect, get_args(Effect))):
        if given not in known:
            raise usage(f"`{given}` is none of {', '.join(known)}")
    document = orjson.loads(build_sample(phase))
    document["environment"] = "test"
    document["subject"] |= {"id": "tester", "roles": roles or []}
    if phase != "issue":
        document["resource"] |= {"id": tool, "server": server, "effect": effect}
    if phase not in {"issue", "list"}:
        document["context"]["args"] = _read_args(args)
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _server_of(tool: str) -> str:
    found = _TOOL.fullmatch(tool)
    if found is None or not is_server_id(found[1]):
        raise usage(f"`{tool}` is no tool id; write server and tool: `billing.refund`")
    return found[1]


def _read_args(text: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(text.encode(), max_depth=64)
    except RequestError as error:
        raise usage(f"`--args` cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise usage("`--args` is no JSON object; write `{}` around it")
    return value


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
