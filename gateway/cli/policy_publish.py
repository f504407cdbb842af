"""`countersign policy publish|rollback|promote|withdraw|history|status`: what decides, by whom."""

from __future__ import annotations

import base64
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from gateway.cli.admin_api import (
    Output,
    OutputOption,
    ask,
    check_url,
    fail,
    print_json,
    print_rows,
    visible,
)
from gateway.cli.exits import Exit
from gateway.cli.impact_table import print_impact, say_impact
from gateway.cli.login import say
from gateway.cli.offline import DEFAULT_FILE, ConfigFile, OfflineOption, run_offline
from gateway.cli.policy_keys import AsOption, KeysOption, Signer, choose_key, find_signers
from gateway.cli.policy_release import ROUTE, Archive, fetch, told
from gateway.core import canonical
from gateway.core.approvals.approval import person
from gateway.core.approvals.declined import Declined
from gateway.core.records import impact_told
from gateway.core.releases.opa_signature import scope_of, sign_bundle
from gateway.core.releases.publisher_keys import PrivateKey
from gateway.core.releases.release import Release, read_archive, write_archive
from gateway.core.releases.statement import Act, Statement
from gateway.core.releases.statement import sign as sign_statement

if TYPE_CHECKING:
    from gateway.config.settings import Config
    from gateway.wiring.audit import Offline

_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

FROM_TOKEN: Final = "COUNTERSIGN_FROM_TOKEN"  # noqa: S105 - the name of a variable
_PATIENCE_S: Final = 120.0
"""Trying a release out and measuring what it would change takes a gateway longer than an answer."""

YesOption = Annotated[
    bool, typer.Option("--yes", help="Ask nothing before signing; needed without a terminal.")
]
ImpactOption = Annotated[
    Path | None,
    typer.Option("--impact", metavar="FILE", help="Write all that it would change here, as JSON."),
]
Revision = Annotated[str, typer.Argument(metavar="REVISION", help="`sha256:…`, of `history`.")]
ShadowOption = Annotated[
    str, typer.Option("--shadow", help="How long it runs beside what decides, such as `10m`.")
]


def publish(
    archive: Archive,
    key: KeysOption = None,
    as_: AsOption = None,
    *,
    shadow: ShadowOption = "",
    impact: ImpactOption = None,
    yes: YesOption = False,
    offline: OfflineOption = False,
    config: ConfigFile = DEFAULT_FILE,
    output: OutputOption = Output.TABLE,
) -> None:
    """Sign a release for the gateway's environment. The second publisher's word makes it decide.

    Who comes second is shown first what it would have changed. Exits with 7 while a second
    publisher is waited for.
    """
    content = told(archive.read_bytes)
    release = told(lambda: read_archive(content).release)
    seconds, agree = _read_span(shadow), _Agree(impact, yes=yes)
    if offline:
        done = _publish_offline(config, content, release, (key, as_), seconds, agree=agree)
        _tell(done, output)
        return
    head = ask("GET", ROUTE)
    signer = choose_key(head, key, as_)
    _publish(head, signer, release, seconds, agree=agree, output=output)


def rollback(
    revision: Revision,
    key: KeysOption = None,
    as_: AsOption = None,
    *,
    impact: ImpactOption = None,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Go back to a release that decided here before."""
    head = ask("GET", ROUTE)
    signer = choose_key(head, key, as_)
    known = _known(head, revision)
    if known == head["replaces"]:
        when = "right now" if known == head["active"] else "from the next restart on"
        fail(Exit.CONFLICT, f"`{known}` decides {when}; name an older one of `policy history`")
    waiting = _find_waiting(head, signer, known, 0)
    body = _word(head, signer.key, "rollback", known, 0) | _seen(waiting, _Agree(impact, yes=yes))
    _tell(ask("POST", ROUTE, body=body, timeout_s=_PATIENCE_S), output)


def promote(
    revision: Revision,
    source: Annotated[str, typer.Option("--from", help="The gateway where it decides now.")],
    key: KeysOption = None,
    as_: AsOption = None,
    *,
    shadow: ShadowOption = "",
    impact: ImpactOption = None,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Publish a release of another environment here: the same content, signed anew for this one.

    There you are who `countersign login --url URL` signed in, or `COUNTERSIGN_FROM_TOKEN`.
    """
    url = check_url(source)
    there = ask("GET", ROUTE, url=url, token_from=FROM_TOKEN)
    if there["active"] is None or not _is_named(there["active"], revision):
        fail(Exit.CONFLICT, f"`{visible(revision)}` does not decide at {url}; promote what does")
    content = fetch(there["active"], url, FROM_TOKEN)
    release = told(lambda: read_archive(content).release)
    if release.revision != there["active"]:
        fail(Exit.VERIFICATION_FAILED, f"{url} sent another release than `{there['active']}`")
    head = ask("GET", ROUTE)
    signer = choose_key(head, key, as_)
    agree = _Agree(impact, yes=yes)
    _publish(head, signer, release, _read_span(shadow), agree=agree, output=output)


def withdraw(
    proposal: Annotated[str, typer.Argument(metavar="PROPOSAL", help="Its release, or its id.")],
    key: KeysOption = None,
    as_: AsOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back what was proposed, by you or another publisher: it can decide no more."""
    head = ask("GET", ROUTE)
    signer = choose_key(head, key, as_)
    named = (one for one in head["proposals"] if one["id"] == proposal)
    found = list(named) or [
        one for one in head["proposals"] if _is_named(one["revision"], proposal)
    ]
    said = {(one["revision"], one["shadow_s"], one["again"]) for one in found}
    if len(said) != 1:
        why = "name one by its id" if said else "see `countersign policy history`"
        fail(Exit.NOT_FOUND, f"`{visible(proposal[:80])}` is not one proposal here; {why}")
    revision, shadow_s, again = said.pop()
    body = _word(head, signer.key, "withdraw", revision, shadow_s, again=again)
    _tell(ask("POST", f"{ROUTE}/withdrawals", body=body), output)


def history(output: OutputOption = Output.TABLE) -> None:
    """List what was published or withdrawn, newest first, and what waits for a second publisher."""
    found = ask("GET", ROUTE)
    if output is Output.JSON:
        print_json(found)
        return
    ids = {one["key"]: one["id"] for one in found["publishers"]}
    rows: list[tuple[str, ...]] = [("NUMBER", "STATE", "ACTION", "WHEN", "REVISION", "BY")]
    rows += [_row(one, _waits(one), ids) for one in found["proposals"]]
    row = [*found["releases"], *found["withdrawals"]]
    for one in sorted(row, key=lambda one: (one["number"], one["at"]), reverse=True):
        rows.append(_row(one, one.get("state", "withdrawn"), ids))
    print_rows(rows)
    for one in found["proposals"]:
        print(f"\n{one['revision']}, proposed: {say_impact(one['impact'])}")


def status(output: OutputOption = Output.TABLE) -> None:
    """Say which release decides, and whether the files beside it are others."""
    found = ask("GET", ROUTE)
    if output is Output.JSON:
        print_json(found)
        return
    print(f"{found['environment']}: {_say_mode(found)}")
    if found["waits_for_restart"]:
        print(f"published: {found['replaces']}; it decides from the next restart on")
    if found["gate"] == "refused":
        print("the gate of this version refuses it; see `release_refused_by_gate` in the log")
    if faults := found.get("watch", {}).get("faults"):
        print(f"comparing it with the release before broke {faults} times; a halt may come late")
    for place in found["differs"]:
        print(f"folder differs from the active release: {visible(place)}")


def register(app: typer.Typer) -> None:
    """Add the commands to `countersign policy`."""
    for command in (publish, rollback, promote, withdraw, history, status):
        app.command()(command)


class _Agree:
    """Asks whoever comes second, before they sign, and shows them what they sign."""

    def __init__(self, file: Path | None, *, yes: bool) -> None:
        """`file`: gets the whole table. `yes`: ask nothing."""
        self._file: Final = file
        self._yes: Final = yes

    def ask(self, told: Mapping[str, Any] | None, whole: Mapping[str, Any] | None) -> None:
        """Exit unless they agree. `told`: what the record says of `whole`."""
        if whole is not None:
            more = "all with `--impact FILE`" if self._file is None else f"all in `{self._file}`"
            self._write(whole)
            print_impact(whole, err=True, more=more)
        say(f"before you sign: {say_impact(told)}")
        if self._yes:
            return
        if not is_terminal():
            fail(Exit.USAGE, "nobody can be asked here; look at what it would change, add `--yes`")
        typer.confirm("sign it?", abort=True, err=True)

    def _write(self, whole: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write_bytes(impact_told.write(whole))
        except OSError as error:
            fail(Exit.ERROR, f"`{self._file}` cannot be written: {error.strerror}")


def is_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _publish(
    head: dict[str, Any],
    signer: Signer,
    release: Release,
    shadow_s: int,
    *,
    agree: _Agree,
    output: Output,
) -> None:
    waiting = _find_waiting(head, signer, release.revision, shadow_s)
    if waiting is not None and waiting["shadow_s"] and not shadow_s:
        shadow_s = waiting["shadow_s"]
        say(f"it was proposed with {shadow_s} s in the shadow, and so you say it, too")
    body = _word(head, signer.key, "publish", release.revision, shadow_s) | _seen(waiting, agree)
    body["signature"] = _opa_signature(head, signer.key, release)
    body["archive"] = base64.b64encode(write_archive(release)).decode()
    _tell(ask("POST", ROUTE, body=body, timeout_s=_PATIENCE_S), output)


def _find_waiting(
    head: dict[str, Any], signer: Signer, revision: str, shadow_s: int
) -> dict[str, Any] | None:
    """Return another publisher's proposal of this release, of those that say it likewise first."""
    ids = {one["key"]: person(one["id"]) for one in head["publishers"]}
    found = [
        one
        for one in head["proposals"]
        if one["revision"] == revision
        and ids.get(one["key"]) not in {None, person(signer.id)}
        and time.time() < one["expires"]
    ]
    return next((one for one in found if one["shadow_s"] == shadow_s), next(iter(found), None))


def _seen(waiting: dict[str, Any] | None, agree: _Agree) -> dict[str, str]:
    """Show who comes second what it would have changed, and return that they were shown it."""
    if waiting is None:
        return {}
    impact = waiting["impact"]
    digest = "" if impact is None else str(impact.get("digest", ""))
    whole = ask("GET", f"{ROUTE}/impacts/{digest}") if digest else None
    if whole is not None and canonical.digest_of(whole) != digest:
        fail(Exit.VERIFICATION_FAILED, "the gateway shows another impact than it recorded")
    say(f"{waiting['revision']} was proposed")
    agree.ask(impact, whole)
    return {"seen": digest} if digest else {}


def _say_mode(found: dict[str, Any]) -> str:
    if found["mode"] != "required":
        return f"the files of the folder decide (`{found['mode']}`)"
    return f"{found['active']} decides, by two publishers"


def _publish_offline(
    config: Path,
    content: bytes,
    release: Release,
    at_hand: tuple[Sequence[Path] | None, Sequence[str] | None],
    shadow_s: int,
    *,
    agree: _Agree,
) -> dict[str, Any]:
    """Publish on the log of a stopped gateway, with the keys of all publishers at hand."""
    from gateway.cli.config import read_config  # noqa: PLC0415
    from gateway.http.releases_desk import Done, Word  # noqa: PLC0415
    from gateway.wiring.releases import ReleaseKeeper  # noqa: PLC0415 - loads everything

    settings: Config = read_config(config)

    async def work(offline: Offline) -> Done | Declined:
        keeper = ReleaseKeeper(settings, clock=offline.clock, ids=offline.ids)
        keeper.open_offline(offline.log)
        # Only words that are said here and now: what waits from before was to be confirmed by
        # somebody whom the gateway knows.
        keeper.history.proposals.clear()
        desk = keeper.build_desk(lambda _person, _said_at: True)
        target = keeper.history.target
        head = {
            "environment": settings.environment,
            "log": settings.audit.origin,
            "next": keeper.history.number + 1,
            "replaces": "" if target is None else target.revision,
            "withdrawn": [msgspec.to_builtins(one) for one in keeper.history.withdrawn()],
        }
        told: Done | Declined = Declined("release_invalid", "give `--key` for each publisher")
        known = [{"id": one.id, "key": kid} for kid, one in keeper.rules.publishers.items()]
        for signer in find_signers(known, *at_hand):
            word = _word(head, signer.key, "publish", release.revision, shadow_s)
            signature = _opa_signature(head, signer.key, release)
            proposed = told.impact if isinstance(told, Done) else None
            seen = str((proposed or {}).get("digest", ""))
            if proposed and proposed.get("unmeasured") != "no_decisions":
                agree.ask(proposed, keeper.store.load_impact(seen) if seen else None)
            told = await desk.publish(signer.id, Word(word["statement"], signature, content, seen))
            if isinstance(told, Declined):
                return told
        return told

    done = run_offline(config, work)
    if isinstance(done, Declined):
        fail(Exit.ERROR, done.why)
    told: dict[str, Any] = msgspec.to_builtins(done)
    return told


def _word(
    head: dict[str, Any],
    key: PrivateKey,
    act: Act,
    revision: str,
    shadow_s: int,
    *,
    again: int | None = None,
) -> dict[str, Any]:
    """Return what a publisher says, for the place in the row that the gateway is at."""
    if again is None:
        taken = [(one["revision"], one["shadow_s"]) for one in head["withdrawn"]]
        again = taken.count((revision, shadow_s))
    said = Statement(
        act=act,
        env=head["environment"],
        log=head["log"],
        number=head["next"],
        prev=head["replaces"],
        rev=revision,
        shadow_s=shadow_s,
        again=again,
    )
    return {"statement": sign_statement(key, said)}


def _opa_signature(head: dict[str, Any], key: PrivateKey, release: Release) -> str:
    return sign_bundle(key, release.bundle(), scope=scope_of(head["environment"]))


def _known(head: dict[str, Any], revision: str) -> str:
    found = {one["revision"] for one in _named(head["releases"], revision)}
    if len(found) != 1:
        fail(Exit.NOT_FOUND, f"`{revision[:80]}` is no release here; see `policy history`")
    return str(found.pop())


def _named(listed: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [one for one in listed if _is_named(one["revision"], name)]


def _is_named(revision: str, name: str) -> bool:
    """Whether a revision is meant: in full, or by the beginning of its digits."""
    digits = revision.partition(":")[2]
    return bool(name) and (revision == name or digits.startswith(name.removeprefix("sha256:")))


def _read_span(text: str) -> int:
    if not text:
        return 0
    found = _SPAN.fullmatch(text)
    if found is None:
        fail(Exit.USAGE, "`--shadow` is a number with `s`, `m`, `h` or `d`, such as `10m`")
    return int(found[1]) * _SECONDS[found[2]]


def _waits(one: dict[str, Any]) -> str:
    return "proposed" if time.time() < one["expires"] else "expired"


def _row(one: dict[str, Any], state: str, ids: dict[str, str]) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(one["at"]))
    by = (ids.get(key, key[:8]) for key in one.get("keys") or [one["key"]])
    names = visible(", ".join(by))
    return (str(one["number"]), state, one["action"], when, one["revision"], names)


def _tell(done: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(done)
    else:
        print(f"{done['revision']}: number {done['number']}, {done['state']}")
    if done["state"] == "published":
        say("it decides from the next start on")
    if done["state"] == "proposed":
        say(f"it waits for another publisher; {say_impact(done['impact'])}")
        raise typer.Exit(Exit.PENDING)
