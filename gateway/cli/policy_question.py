"""`countersign policy question`: a complete input to try policies on."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, TypeVar, get_args

import orjson
import typer

from gateway.adapters.policy.policy_sample import build_sample
from gateway.cli.option_groups import OptionGroup, spread
from gateway.cli.policy_folder import usage
from gateway.core import strict_json
from gateway.core.calls.provenance import WORST_LAST
from gateway.core.catalog import Effect
from gateway.core.errors import RequestError
from gateway.core.names import is_server_id
from gateway.core.policy.decision import Phase

NOON: Final = dt.datetime(2023, 11, 15, 12, tzinfo=dt.UTC)
"""A Wednesday, at noon: within anybody's business hours."""

_Value = TypeVar("_Value")
_TOOL: Final = re.compile(r"([a-z0-9-]+)\.([A-Za-z0-9_.-]+)")
_COUNT_MAX: Final = 1_000_000
_RECENT_MAX: Final = 50
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)")


class Call(OptionGroup, frozen=True, kw_only=True):
    """Who calls with what, and when policy is asked."""

    phase: Annotated[str, typer.Option(help="When policy is asked.")] = "call"
    effect: Annotated[str, typer.Option(help="What its manifest says it does.")] = "read"
    roles: Annotated[
        list[str] | None, typer.Option("--role", help="One of its roles. Repeatable.")
    ] = None
    args: Annotated[str, typer.Option(metavar="JSON", help="The arguments of the call.")] = "{}"
    now: Annotated[str, typer.Option(metavar="TIME", help="When: `2026-11-21T18:30:00+01:00`.")] = (
        ""
    )


class Past(OptionGroup, frozen=True, kw_only=True):
    """What the run has done before."""

    counts: Annotated[
        list[str] | None,
        typer.Option(
            "--count",
            metavar="[TOOL=]N",
            help="The run has called this tool, or TOOL, N times before. Repeatable.",
        ),
    ] = None
    sums: Annotated[
        list[str] | None,
        typer.Option(
            "--sum",
            metavar="[TOOL#]POINTER=N",
            help="What the run has spent: `/amount=500`, `bank.pay#/amount=500`. Repeatable.",
        ),
    ] = None
    repeats: Annotated[
        int, typer.Option(min=0, help="The run has made this very call N times before.")
    ] = 0


class Flow(OptionGroup, frozen=True, kw_only=True):
    """What the run has read, and where the values of this call were seen."""

    labels: Annotated[
        list[str] | None,
        typer.Option("--label", help="The run has read such data. Repeatable."),
    ] = None
    sinks: Annotated[
        list[str] | None,
        typer.Option(
            "--sink",
            metavar="POINTER=CLASS",
            help="Where the value of a sink was seen: `/to=untrusted`. Repeatable.",
        ),
    ] = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(question)


@spread(Call)
@spread(Past)
@spread(Flow)
def question(
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The tool: `billing.refund`.")],
    *,
    call: Call,
    past: Past,
    flow: Flow,
) -> None:
    """Print a complete policy input, for `policy eval --input`."""
    server = server_of(tool)
    for given, known in ((call.phase, get_args(Phase)), (call.effect, get_args(Effect))):
        if given not in known:
            raise usage(f"`{given}` is none of {', '.join(known)}")
    document = orjson.loads(build_sample(call.phase))
    document["environment"] = "test"
    document["subject"] |= {"id": "tester", "roles": call.roles or []}
    context = document["context"]
    context["now_ns"] = _read_time(call.now)
    if call.phase != "issue":
        document["resource"] |= {"id": tool, "server": server, "effect": call.effect}
        _put_history(context, tool, past)
        own = (key.partition("#") for key in context["run"]["sums"])
        document["resource"]["sums"] = sorted(pointer for name, _, pointer in own if name == tool)
        _put_flow(document, flow)
    if call.phase not in {"issue", "list"}:
        context["args"] = _read_args(call.args)
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def server_of(tool: str) -> str:
    """Return the server of a tool id; end where it is none."""
    found = _TOOL.fullmatch(tool)
    if found is None or not is_server_id(found[1]):
        raise usage(f"`{tool}` is no tool id; write server and tool: `billing.refund`")
    return found[1]


def _read_time(text: str) -> int:
    """Return a time in ns since the epoch, and tell it: hours and freezes depend on it."""
    moment = NOON
    if text:
        try:
            moment = dt.datetime.fromisoformat(text if _DATE.fullmatch(text) else "")
        except ValueError:
            raise usage(
                f"`--now {text}` is no time; write date, time, and `Z` or an offset: "
                "`2026-11-21T18:30:00Z`"
            ) from None
    said = f"asked at {moment.isoformat().replace('+00:00', 'Z')}, a {moment:%A}"
    typer.echo(f"note: {said}" + ("" if text else "; `--now` sets another time"), err=True)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1) * 1000


def _read_args(text: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(text.encode(), max_depth=64)
    except RequestError as error:
        raise usage(f"`--args` cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise usage("`--args` is no JSON object; write `{}` around it")
    return value


def _put_history(context: dict[str, Any], tool: str, past: Past) -> None:
    """Say what the run has done before: the same of its family, and of the last 24 hours."""
    made = _pairs("--count", past.counts or (), lambda name: name or tool, _whole)
    if past.repeats:
        made[tool] = max(made.get(tool, 0), past.repeats)
    spent = _pairs(
        "--sum", past.sums or (), lambda name: name if "#" in name else f"{tool}#{name}", _number
    )
    for key in spent:
        if not key.partition("#")[2].startswith("/"):
            raise usage(
                f"`--sum {key.removeprefix(f'{tool}#')}=…` names no argument; write its JSON "
                "Pointer: `/amount=500`, or `bank.pay#/amount=500`"
            )
    calls = sum(made.values())
    recent = [name for name, count in made.items() for _ in range(min(count, _RECENT_MAX))]
    context["run"] |= {
        "calls": calls,
        "step": calls + 1,
        "counts": made,
        "sums": spent,
        "repeats": past.repeats,
        "recent": recent[-_RECENT_MAX:],
    }
    context["family"] = {
        "counts": made,
        "sums": spent,
        "last_minute": 0,
        "last_24h": {"counts": made, "sums": spent},
    }


def _put_flow(document: dict[str, Any], flow: Flow) -> None:
    """Say what the run has read, and where the values of this call were seen."""
    document["context"]["run"]["labels"] = flow.labels or []
    classes = _pairs("--sink", flow.sinks or (), lambda name: name, str)
    for pointer, found in classes.items():
        if not pointer.startswith("/") or found not in WORST_LAST:
            raise usage(
                f"`--sink {pointer}={found}` is not POINTER=CLASS; write `/to=` and one of "
                f"{', '.join(WORST_LAST)}"
            )
    if classes:
        document["resource"]["sinks"] = sorted(classes)
        document["context"]["run"]["provenance"] = classes


def _pairs(
    option: str, given: Iterable[str], name: Callable[[str], str], read: Callable[[str], _Value]
) -> dict[str, _Value]:
    found = {}
    for each in given:
        left, _, right = each.rpartition("=")
        try:
            found[name(left)] = read(right)
        except (TypeError, ValueError, RequestError):
            raise usage(f"`{option} {each}` cannot be read; see `--help`") from None
    return found


def _whole(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _COUNT_MAX:
        raise ValueError(text)
    return number


def _number(text: str) -> int | float:
    value = strict_json.parse(text.encode(), max_depth=1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(text)
    return value
