"""`countersign policy shadow`: what other policies would decide on live traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.adapters.policy.policy_bundle import DATA_PATH, load_bundle_dir
from gateway.cli.admin_api import Output, OutputOption, ask, fail, print_json, visible
from gateway.cli.audit_announce import UrlOption
from gateway.cli.exits import Exit
from gateway.core.errors import ConfigurationError

_PATH: Final = "/v1/policy/shadow"
_POLICIES: Final = "policies/"
_KINDS: Final = ("newly_denied", "newly_held", "newly_permitted")

app = typer.Typer(
    name="shadow", help="Try other policies on live traffic, to no effect.", no_args_is_help=True
)


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.add_typer(app)


@app.command()
def start(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The candidate.")],
    label: Annotated[str, typer.Option(help="What to call it.")] = "",
    url: UrlOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Begin to evaluate a folder's policies beside those in use; with `dev: true`."""
    try:
        files = dict(load_bundle_dir(directory).files)
    except ConfigurationError as error:
        fail(Exit.ERROR, "\nerror: ".join(str(error).splitlines()))
    sources = {
        path.removeprefix(_POLICIES): content.decode()
        for path, content in files.items()
        if path.startswith(_POLICIES)
    }
    data = json.loads(files[DATA_PATH])
    data.pop("applies_to", None)  # the gateway reads it from the annotations
    body = {"sources": sources, "data": data, "label": label or directory.name}
    _show(ask("POST", _PATH, body=body, url=url or None), output)


@app.command()
def status(url: UrlOption = "", output: OutputOption = Output.TABLE) -> None:
    """Print what the candidate would have decided so far."""
    _show(ask("GET", _PATH, url=url or None), output)


@app.command()
def stop(url: UrlOption = "", output: OutputOption = Output.TABLE) -> None:
    """End the evaluation and print what was seen."""
    _show(ask("DELETE", _PATH, url=url or None), output)


def _show(found: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(found)
        return
    if found["state"] == "none":
        print("no candidate is or was evaluated")
        return
    print(f"candidate  {visible(found['label'])}  {found['revision']}  {found['state']}")
    seen = ("observed", "compared", "dropped", "changed")
    print("  ".join(f"{name} {found[name]:,}" for name in seen))
    if faults := found.get("faults"):
        print(
            f"broke      {faults:,} times (`{visible(found['fault'])}`); what it missed is dropped"
        )
    for kind, count in found["counts"].items():
        print(f"{kind.replace('_', ' '):<20}{count:>10,}")
        if kind in _KINDS:
            for member in ("by_rule", "by_tool", "by_agent"):
                told = found[member].get(kind, {})
                top = ", ".join(
                    f"{visible(name)} {times:,}" for name, times in list(told.items())[:5]
                )
                print(f"    {member.replace('_', ' ')}: {top}")
    for code, count in found["errors"].items():
        print(f"no answer `{code}`{count:>10,}")
