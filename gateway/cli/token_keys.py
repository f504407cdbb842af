"""`countersign keys tokens`: the keys that sign access tokens, over the admin API or offline."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from gateway.cli.admin_api import Output, OutputOption, ask, fail, print_json, print_rows
from gateway.cli.config import read_config
from gateway.cli.exits import Exit
from gateway.cli.offline import DEFAULT_FILE, ConfigFile, OfflineOption, run_offline

if TYPE_CHECKING:
    from gateway.adapters.keys.key_keeper import TokenKeys
    from gateway.wiring.audit import Offline

app = typer.Typer(name="tokens", help="Keys that sign access tokens.", no_args_is_help=True)

_ROUTE: Final = "/v1/token-keys"
_STAMPS: Final = {
    "next": "published_at",
    "active": "activated_at",
    "retired": "retired_at",
    "gone": "gone_at",
}
_DUE: Final = {"next": "takes over", "retired": "goes"}

Work = Callable[["TokenKeys", str], Awaitable[dict[str, Any]]]


@app.command("list")
def list_(
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the keys with their states, in the order in which they came."""
    _print(_with_keys(config, _view) if offline else ask("GET", _ROUTE), output)


@app.command()
def rotate(
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have the next key take over as soon as every cache of the key set knows it."""
    _print(_with_keys(config, _rotate) if offline else ask("POST", _ROUTE), output)


def _with_keys(config: Path, work: Work) -> dict[str, Any]:
    """Do `work` on the keys of a gateway that is stopped."""
    settings = read_config(config)

    async def run(offline: Offline) -> dict[str, Any]:
        # Loads everything; the other commands need not.
        from gateway.wiring.keys import build_token_keys  # noqa: PLC0415

        clock, ids = offline.clock, offline.ids
        keys = build_token_keys(settings, log=offline.log, clock=clock, ids=ids)
        try:
            await keys.open()
            return await work(keys, offline.by)
        finally:
            await keys.close()

    with contextlib.redirect_stdout(sys.stderr):  # what is logged on the way is no data
        return run_offline(config, run)


async def _view(keys: TokenKeys, _by: str) -> dict[str, Any]:
    return keys.view()


async def _rotate(keys: TokenKeys, by: str) -> dict[str, Any]:
    declined = await keys.rotate(by)
    if declined is not None:
        fail(Exit.CONFLICT, declined.why)
    return keys.view()


def _print(view: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(view)
        return
    print_rows([("KEY", "STATE", "SINCE", "NEXT STEP", "SOURCE"), *map(_row, view["keys"])])
    hours = view["max_age_h"]
    print(f"the next key takes over after {hours} h" if hours else "keys change on command only")


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    state = key["state"]
    due = f"{_DUE[state]} {_tell(key['due_at'])}" if key["due_at"] else ""
    return key["kid"], state, _tell(key[_STAMPS[state]]), due, key["source"]


def _tell(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
