"""`countersign policy search`: looks for a run that breaks a statement about the policies."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from msgspec import Struct, structs, to_builtins
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gateway.adapters.audit.audit_query import Found, find_records
from gateway.adapters.audit.replay_inputs import Decisions, Inputs
from gateway.adapters.authoring.replay_memo import Candidate
from gateway.adapters.authoring.search import Finding, Ground, Search, Seed
from gateway.adapters.authoring.search_constants import find_constants
from gateway.adapters.authoring.search_engine import SearchEngine
from gateway.adapters.authoring.search_minimise import Minimiser
from gateway.adapters.authoring.search_runs import World
from gateway.adapters.policy.policy_bundle import Bundle, load_bundle_dir
from gateway.cli.audit_announce import Announcer, UrlOption
from gateway.cli.audit_filters import Asked, fail, span_of
from gateway.cli.exits import Exit
from gateway.cli.log_places import Where
from gateway.cli.option_groups import spread
from gateway.cli.policy_config import find_config
from gateway.cli.policy_folder import write_input
from gateway.cli.policy_replay import count_workers
from gateway.cli.search_ground import SEEDS_MAX, Tools, build_ground, load_tools, read_seed
from gateway.core.errors import ConfigurationError, CountersignError
from gateway.core.policy.sentences import TEMPLATES, read_sentence
from gateway.core.policy.statement import Statement, StatementError, read_statement

_SHOWN: Final = 12


StatementOption = Annotated[
    list[str],
    typer.Option("--statement", "-s", metavar="TEXT|FILE", help="A sentence, or a YAML file."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Take manifests and environment from here; where no manifest is given, by default "
        "COUNTERSIGN_CONFIG, or countersign.yaml here or above DIR, if these are its policies.",
    ),
]
ManifestOption = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="A manifest; repeatable.")
]
DefinitionsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="SERVER=FILE", help="What a server answers to `tools/list`."),
]
EnvironmentOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Where the run may be; repeatable.")
]
RecordedOption = Annotated[
    bool, typer.Option(help="Start from recorded calls, too: `--config`, or `--dir`, `--kek`.")
]


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


class Searched(Struct, frozen=True, kw_only=True):
    """What became of one statement."""

    statement: Statement
    tries: int
    decisions: int
    tools: tuple[str, ...]
    finding: Finding | None = None
    steps_before: int = 0
    files: tuple[str, ...] = ()
    is_cut: bool = False
    is_reached: bool = True
    unmet: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()


class Limits(Struct, frozen=True):
    """How far to look."""

    tries: int
    seconds: float
    seed: int


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(search)


@spread(Where, "log", "kek")
@spread(Asked, "since")
def search(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of policies.")],
    *,
    statement: StatementOption,
    all_: Annotated[
        bool, typer.Option("--all", help="Go on after the first counterexample.")
    ] = False,
    config: ConfigOption = None,
    manifest: ManifestOption = None,
    definitions: DefinitionsOption = None,
    environment: EnvironmentOption = None,
    recorded: RecordedOption = False,
    where: Where,
    asked: Asked,
    url: UrlOption = "",
    purpose: Annotated[str, typer.Option(help="Why, for the log, with `--recorded`.")] = "",
    tries: Annotated[int, typer.Option(min=1, help="At most so many runs.")] = 20_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="At most so long.")] = 60.0,
    seed: Annotated[int, typer.Option(help="The same seed tries the same runs.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the inputs of a counterexample below this."),
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print.")] = Output.TABLE,
) -> None:
    """Search for a run that breaks a statement; exit with 9 when there is one."""
    statements = _read_statements(statement)
    try:
        config, manifests, own = _from_config(directory, config, is_asked=not manifest)
    except CountersignError as error:
        raise fail(str(error), Exit.ERROR) from None
    if where.log is None:
        where = structs.replace(where, config=config)
    seeds = _read_seeds(where, asked, url, purpose) if recorded else ()
    try:
        tools = load_tools([*manifests, *(manifest or [])], _pairs(definitions or []))
        bundle = load_bundle_dir(directory)
    except CountersignError as error:
        raise fail(str(error), Exit.ERROR) from None
    _check_tools(tools)
    candidate = Candidate(bundle, workers=count_workers())
    ground = build_ground(
        SearchEngine(candidate),
        tools,
        find_constants(bundle),
        statements,
        environments=tuple(environment or own or ["prod"]),
        seeds=seeds,
    )
    limits = Limits(tries, seconds, seed)
    found = asyncio.run(_search(candidate, ground, statements, limits, all_=all_))
    _finish(found, _Told(ground, bundle, directory, out, limits), output)


def _check_tools(tools: Tools) -> None:
    if not tools.tools:
        raise fail("there are no tools; name a `--config`, or each `--manifest`", Exit.USAGE)
    for id_ in tools.unknown:
        typer.echo(f"note: the schema of `{id_}` is not known; see `--definitions`", err=True)
    for id_, tool in tools.tools.items():
        if tool.review.effect == "money" and not tool.review.sums:
            typer.echo(f"note: `{id_}` has no `sums`: what it moves is not seen", err=True)


async def _search(
    candidate: Candidate,
    ground: Ground,
    statements: Sequence[Statement],
    limits: Limits,
    *,
    all_: bool,
) -> list[Searched]:
    found: list[Searched] = []
    try:
        await candidate.start()
        for statement in statements:
            found.append(await _search_one(ground, statement, limits))
            if found[-1].finding is not None and not all_:
                break
    except StatementError as error:
        raise fail(str(error), Exit.USAGE) from None
    except CountersignError as error:
        raise fail(str(error), Exit.ERROR) from None
    finally:
        await candidate.stop()
    return found


async def _search_one(ground: Ground, statement: Statement, limits: Limits) -> Searched:
    stage = ground.stage
    run = Search(ground, statement, limits.seed)
    before = stage.decided
    finding = await run.run(limits.tries, limits.seconds)
    decisions = stage.decided - before
    steps = 0 if finding is None else len(finding.scenario.steps)
    if finding is not None:
        finding = await Minimiser(run, stage).minimise(finding)
    return Searched(
        statement=statement,
        tries=run.tries,
        decisions=decisions,
        tools=run.tools,
        finding=finding,
        steps_before=steps,
        is_cut=run.is_cut,
        is_reached=run.premise.is_reached,
        unmet=run.premise.unmet(),
        orphans=run.premise.orphans,
    )


# --- what was asked -----------------------------------------------------------------------------


def _read_statements(given: Sequence[str]) -> list[Statement]:
    found: list[Statement] = []
    try:
        for each in given:
            path = Path(each)
            is_file = False
            with suppress(OSError):  # a sentence can be longer than a name of a file
                is_file = path.is_file()
            for item in _load(path) if is_file else [each]:
                found.append(_read_statement(item, len(found) + 1))
    except StatementError as error:
        raise fail(str(error), Exit.USAGE) from None
    return found


def _read_statement(item: object, number: int) -> Statement:
    if isinstance(item, str):
        return read_sentence(item, _slug(item) or f"statement-{number}")
    if isinstance(item, dict) and set(item) == {"id", "text"}:
        return read_sentence(str(item["text"]), str(item["id"]))
    return read_statement(item, f"statement-{number}")


def _load(path: Path) -> list[Any]:
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError):
        raise StatementError(f"`{path}` is no YAML file that can be read") from None
    if isinstance(value, dict) and set(value) == {"statements"}:
        value = value["statements"]
    if not isinstance(value, list) or not value:
        raise StatementError(
            f"`{path}` has no list of statements; write sentences, or `never:` in full\n"
            + "\n".join(f"  {words}" for words in TEMPLATES)
        )
    return value


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]


def _from_config(
    directory: Path, config: Path | None, *, is_asked: bool
) -> tuple[Path | None, list[Path], list[str]]:
    """Return the configuration, its manifests and its environment; `is_asked`: to look for one."""
    notes: list[str] = []
    named = os.environ.get("COUNTERSIGN_CONFIG", "")
    if config is None and not is_asked:
        return None, [], []
    given = config or (Path(named) if named else None)
    found = find_config(directory, given, notes)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if found is None:
        return None, [], []
    read, path = found
    if config is None:
        typer.echo(f"note: tools and environment are those of {path}", err=True)
    return path, [server.manifest for server in read.servers.values()], [read.environment]


def _pairs(given: Sequence[str]) -> dict[str, Path]:
    found = {}
    for each in given:
        server, equals, path = each.partition("=")
        if not equals:
            raise ConfigurationError(f"`{each}` is not SERVER=FILE")
        found[server] = Path(path)
    return found


def _read_seeds(where: Where, asked: Asked, url: str, purpose: str) -> tuple[Seed, ...]:
    """Return recorded calls, the last ones, once the reading of them is recorded."""
    places = where.find()
    vault = places.open_vault()

    def find() -> Iterator[Found]:
        return find_records(places.log, Decisions(asked.select()))

    announcer = Announcer(url, purpose or "policy search", asked.said())
    if announcer.is_recorded:
        announcer.read("opening", span_of(find()))
    seeds: dict[bytes, Seed] = {}
    for recorded in Inputs(places.log, vault).read(find()):
        found = None if recorded.asked is None else read_seed(recorded.asked.document)
        if found is not None:
            seeds[orjson.dumps(to_builtins(found.step), option=orjson.OPT_SORT_KEYS)] = found
    return tuple(seeds.values())[-SEEDS_MAX:]


# --- what is told -------------------------------------------------------------------------------


class _Told(Struct, frozen=True):
    ground: Ground
    bundle: Bundle
    directory: Path
    out: Path | None
    limits: Limits


def _finish(found: Sequence[Searched], told: _Told, output: Output) -> None:
    described = []
    for each in found:
        files = _write(each, told.out)
        described.append(_describe(each, told, files))
        if output is Output.TABLE:
            _print(each, told, files)
    if output is Output.JSON:
        typer.echo(orjson.dumps(described, option=orjson.OPT_INDENT_2))
    if any(each.finding is not None for each in found):
        raise typer.Exit(Exit.TEST_FAILED)


def _write(each: Searched, out: Path | None) -> list[Path]:
    """Write the input of every decision of a counterexample, the breaking one last."""
    if each.finding is None or out is None:
        return []
    folder = out / (_slug(each.statement.id) or "statement")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = []
    for number, moment in enumerate(each.finding.moments, 1):
        file = folder / f"{number:02d}-{moment.phase}.json"
        text = orjson.dumps(orjson.loads(moment.document), option=orjson.OPT_INDENT_2)
        write_input(file, text)
        files.append(file)
    return files


def _over(each: Searched, told: _Told) -> str:
    ground = told.ground
    others = [id_ for id_ in ground.stage.tools if id_ not in each.tools]
    return (
        f"{each.tries:,} runs ({each.decisions:,} decisions, seed {told.limits.seed}) of "
        f"{_list(each.tools)}{f', also after {_list(others)},' if others else ''} in "
        f"{', '.join(ground.environments)}, around {len(ground.pool.numbers)} numbers and "
        f"{len(ground.pool.strings)} strings, from {len(ground.seeds)} recorded calls"
    )


def _list(tools: Sequence[str]) -> str:
    more = len(tools) - _SHOWN
    return ", ".join(tools[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _say_limits(each: Searched, limits: Limits) -> Iterator[str]:
    """Yield what a search that found nothing leaves open, beyond that it proves nothing."""
    if each.is_cut:
        yield (
            f"`--seconds {limits.seconds:g}` ended it after {each.tries:,} of {limits.tries:,} "
            "runs; give it more"
        )
    if not each.is_reached:
        unmet = "; ".join(f"none with `{said}`" for said in each.unmet) or "never all at once"
        yield f"no tried call met all of its conditions ({unmet}), so it was not put to the test"
    for label in () if each.is_reached else each.orphans:
        yield f"no manifest gives the label `{label}`; a policy's `add_label` would have to"


def _say_world(world: World) -> str:
    roles = f"with the roles {', '.join(world.roles)}" if world.roles else "without roles"
    parts = [f"agent `{world.agent}` {roles}", f"in {world.environment}"]
    parts += [f"of the owner {world.owner}"] if world.owner else []
    parts += [f"for {world.human}"] if world.human else []
    if world.allowed_values:
        values = [value for each in world.allowed_values.values() for value in each]
        parts.append(f"the launcher named {orjson.dumps(values).decode()}")
    return ", ".join(parts)


def _print(each: Searched, told: _Told, files: Sequence[Path]) -> None:
    text = each.statement.text
    if each.finding is None:
        typer.echo(f"none found: {text}\n  tried {_over(each, told)}; that proves nothing")
        for line in _say_limits(each, told.limits):
            typer.echo(f"  {line}")
        return
    typer.echo(f"counterexample: {text}")
    typer.echo(
        f"  run {each.tries:,}; {each.steps_before} calls, minimised to "
        f"{len(each.finding.scenario.steps)}; {_say_world(each.finding.scenario.world)}"
    )
    for number, moment in enumerate(each.finding.moments):
        args = orjson.dumps(each.finding.scenario.steps[moment.step].args).decode()
        reasons = ", ".join(moment.reasons)
        name = files[number].name if files else f"{number + 1:02d}-{moment.phase}"
        typer.echo(f"  {name}  {moment.tool} {args}  {moment.goes}  {reasons}")
    if files:
        typer.echo(f"  countersign policy eval {told.directory} --input {files[-1]}")
    else:
        typer.echo("  (the input of each decision, for `policy eval`: `--out DIR`)")


def _describe(each: Searched, told: _Told, files: Sequence[Path]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": each.statement.id,
        "statement": each.statement.text,
        "found": each.finding is not None,
        "policies": told.bundle.revision,
        "tries": each.tries,
        "decisions": each.decisions,
        "over": _over(each, told),
        "premise_reached": each.is_reached,
        "ended": "found" if each.finding else "seconds" if each.is_cut else "tries",
        "notes": [] if each.finding else list(_say_limits(each, told.limits)),
    }
    if each.finding is not None:
        steps = each.finding.scenario.steps
        found["world"] = to_builtins(each.finding.scenario.world)
        found["moments"] = [
            {
                "phase": moment.phase,
                "tool": moment.tool,
                "args": steps[moment.step].args,
                "goes": moment.goes,
                "reasons": list(moment.reasons),
                "input": str(files[number]) if files else None,
            }
            for number, moment in enumerate(each.finding.moments)
        ]
    return found
