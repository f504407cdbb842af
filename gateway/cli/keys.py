"""`countersign keys`: the keys that sign the audit log, over the admin REST API or offline.

Those that sign access tokens are under `countersign keys tokens`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from gateway.cli import token_keys
from gateway.cli.admin_api import Output, OutputOption, ask, print_json
from gateway.cli.offline import DEFAULT_FILE, ConfigFile, OfflineOption, run_offline

if TYPE_CHECKING:
    from gateway.wiring.audit import Offline

app = typer.Typer(
    name="keys", help="Signing keys of the audit log, and of tokens.", no_args_is_help=True
)
app.add_typer(token_keys.app)

_ROUTE = "/v1/keys"
_US = 1_000_000


@app.command("list")
def list_(
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the verifier key of each epoch, oldest first; the last one signs now."""
    _print(run_offline(config, _view) if offline else ask("GET", _ROUTE), output)


@app.command()
def rotate(
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let a new key sign from now on; the old one is destroyed."""
    _print(run_offline(config, _rotate) if offline else ask("POST", _ROUTE), output)


async def _view(offline: Offline) -> dict[str, Any]:
    return offline.view_keys()


async def _rotate(offline: Offline) -> dict[str, Any]:
    await offline.rotate_key()
    return offline.view_keys()


def _print(keys: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(keys)
        return
    since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(keys["since_us"] // _US))
    hours = keys["max_age_h"]
    for one in keys["keys"]:
        in_use = one["epoch"] == keys["epoch"]
        print(f"{one['epoch']:>5}  {one['key']}" + (f"  in use since {since}" if in_use else ""))
    print(f"a new key takes over after {hours} h" if hours else "keys change on command only")
