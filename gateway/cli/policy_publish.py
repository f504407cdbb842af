"""`countersign policy publish|rollback|promote|history|status`: what decides, and who says so."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.adapters.releases.release_keys import load_key
from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_url,
    fail,
    print_json,
    print_rows,
)
from gateway.cli.exits import Exit
from gateway.cli.offline import DEFAULT_FILE, ConfigFile, OfflineOption, run_offline
from gateway.cli.policy_release import ROUTE, Archive, KeyFile, fetch, told
from gateway.core.approvals.declined import Declined
from gateway.core.releases.opa_signature import scope_of, sign_bundle
from gateway.core.releases.publisher_keys import PrivateKey, public_of
from gateway.core.releases.release import Release, read_archive
from gateway.core.releases.statement import Act, Statement
from gateway.core.releases.statement import sign as sign_statement

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.wiring_audit import Offline

_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

Keys = Annotated[list[Path], typer.Option("--key", help="Your private key; offline, two of them.")]
Revision = Annotated[str, typer.Argument(metavar="REVISION", help="`sha256:…`, of `history`.")]
ShadowOption = Annotated[
    str, typer.Option("--shadow", help="How long it runs beside what decides, such as `10m`.")
]


def publish(
    archive: Archive,
    key: Keys,
    *,
    shadow: ShadowOption = "",
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Sign a release for the gateway's environment. The second publisher's word makes it decide.

    Exits with 7 while a second publisher is waited for.
    """
    content = told(archive.read_bytes)
    release = told(lambda: read_archive(content).release)
    keys = [told(lambda path=path: load_key(path)) for path in key]  # type: ignore[misc]
    seconds = _read_span(shadow)
    if offline:
        _tell(_publish_offline(config, content, release, keys, seconds), output)
        return
    _one(keys)
    head = ask("GET", ROUTE)
    body = _word(head, keys[0], "publish", release.revision, seconds)
    body["signature"] = _opa_signature(head, keys[0], release)
    _tell(ask("POST", ROUTE, body={**body, "archive": _base64(content)}), output)


def rollback(revision: Revision, key: KeyFile, output: OutputOption = Output.TABLE) -> None:
    """Go back to a release that decided here before."""
    private = told(lambda: load_key(key))
    head = ask("GET", ROUTE)
    body = _word(head, private, "rollback", _known(head, revision), 0)
    _tell(ask("POST", ROUTE, body=body), output)


def promote(
    revision: Revision,
    source: Annotated[str, typer.Option("--from", help="The gateway where it decides now.")],
    key: KeyFile,
    shadow: ShadowOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Publish a release of another environment here: the same content, signed anew for this one."""
    private, url = told(lambda: load_key(key)), check_url(source)
    if ask("GET", ROUTE, url=url)["active"] != revision:
        fail(Exit.CONFLICT, f"`{revision}` does not decide at {url}; promote what does")
    content = fetch(revision, url)
    release = told(lambda: read_archive(content).release)
    if release.revision != revision:
        fail(Exit.VERIFICATION_FAILED, f"{url} sent another release than `{revision}`")
    head = ask("GET", ROUTE)
    body = _word(head, private, "publish", revision, _read_span(shadow))
    body["signature"] = _opa_signature(head, private, release)
    _tell(ask("POST", ROUTE, body={**body, "archive": _base64(content)}), output)


def history(output: OutputOption = Output.TABLE) -> None:
    """List what was published, newest first, and what waits for a second publisher."""
    found = ask("GET", ROUTE)
    if output is Output.JSON:
        print_json(found)
        return
    rows: list[tuple[str, ...]] = [("NUMBER", "STATE", "ACTION", "WHEN", "REVISION", "KEYS")]
    rows += [_row(one, "proposed", "") for one in found["proposals"]]
    rows += [_row(one, one["state"], one["action"]) for one in found["releases"]]
    print_rows(rows)


def status(output: OutputOption = Output.TABLE) -> None:
    """Say which release decides, and whether the files beside it are others."""
    found = ask("GET", ROUTE)
    if output is Output.JSON:
        print_json(found)
        return
    print(f"{found['environment']}: {_say_mode(found)}")
    if found["waits_for_restart"]:
        print(f"published: {found['replaces']}; it decides from the next restart on")
    for place in found["differs"]:
        print(f"folder differs from the active release: {place}")


def register(app: typer.Typer) -> None:
    """Add the commands to `countersign policy`."""
    for command in (publish, rollback, promote, history, status):
        app.command()(command)


def _say_mode(found: dict[str, Any]) -> str:
    if found["mode"] != "required":
        return f"the files of the folder decide (`{found['mode']}`)"
    return f"{found['active']} decides, by two publishers"


def _publish_offline(
    config: Path, content: bytes, release: Release, keys: list[PrivateKey], shadow_s: int
) -> dict[str, Any]:
    """Publish on the log of a stopped gateway, with the keys of all publishers at hand."""
    from gateway.cli.config import read_config  # noqa: PLC0415
    from gateway.http.releases_desk import Done, Word  # noqa: PLC0415
    from gateway.wiring_releases import ReleaseKeeper  # noqa: PLC0415 - loads everything

    settings: Config = read_config(config)

    async def work(offline: Offline) -> Done | Declined:
        keeper = ReleaseKeeper(settings, clock=offline.clock, ids=offline.ids)
        keeper.open_offline(offline.log)
        desk = keeper.build_desk(lambda _person, _at: True)
        target = keeper.history.target
        head = {
            "environment": settings.environment,
            "log": settings.audit.origin,
            "next": keeper.history.number + 1,
            "replaces": "" if target is None else target.revision,
        }
        told: Done | Declined = Declined("release_invalid", "give `--key` for each publisher")
        for key in keys:
            publisher = keeper.rules.publishers.get(public_of(key).kid)
            if publisher is None:
                return Declined("signature_invalid", "a key is none of `policy.publishers`")
            word = _word(head, key, "publish", release.revision, shadow_s)
            signature = _opa_signature(head, key, release)
            given = Word(word["statement"], signature, content)
            told = await desk.publish(publisher.id, given)
            if isinstance(told, Declined):
                return told
        return told

    done = run_offline(config, work)
    if isinstance(done, Declined):
        fail(Exit.ERROR, done.why)
    return {"revision": done.revision, "number": done.number, "state": done.state}


def _word(
    head: dict[str, Any], key: PrivateKey, act: Act, revision: str, shadow_s: int
) -> dict[str, Any]:
    """Return what a publisher says, for the place in the row that the gateway is at."""
    said = Statement(
        act=act,
        env=head["environment"],
        log=head["log"],
        number=head["next"],
        prev=head["replaces"],
        rev=revision,
        shadow_s=shadow_s,
    )
    return {"statement": sign_statement(key, said)}


def _opa_signature(head: dict[str, Any], key: PrivateKey, release: Release) -> str:
    return sign_bundle(key, release.bundle(), scope=scope_of(head["environment"]))


def _known(head: dict[str, Any], revision: str) -> str:
    known = {one["revision"] for one in head["releases"]}
    found = [one for one in known if one == revision or one.startswith(f"sha256:{revision}")]
    if len(found) != 1:
        fail(Exit.NOT_FOUND, f"`{revision[:80]}` is no release here; see `policy history`")
    return str(found[0])


def _one(keys: list[PrivateKey]) -> None:
    if len(keys) != 1:
        fail(Exit.USAGE, "one publisher, one `--key`; several are for `--offline`")


def _read_span(text: str) -> int:
    if not text:
        return 0
    found = _SPAN.fullmatch(text)
    if found is None:
        fail(Exit.USAGE, "`--shadow` is a number with `s`, `m`, `h` or `d`, such as `10m`")
    return int(found[1]) * _SECONDS[found[2]]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _row(one: dict[str, Any], state: str, action: str) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(one["at"]))
    keys = one.get("keys") or [one["key"]]
    short = ", ".join(key[:8] for key in keys)
    return (str(one["number"]), state, action, when, one["revision"], short)


def _tell(done: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(done)
    else:
        print(f"{done['revision']}: number {done['number']}, {done['state']}")
    if done["state"] == "proposed":
        raise typer.Exit(Exit.PENDING)
