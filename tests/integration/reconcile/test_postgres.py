"""PostgreSQL as the system of record: what is done behind the gateway's back is found."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Struct

from gateway.cli.exits import Exit
from tests.e2e.callers import Agent
from tests.e2e.served import Served
from tests.e2e.site import list_over_http
from tests.integration.reconcile import bank_server
from tests.integration.reconcile.bank import MAP, Bank, BankSite, run
from tests.integration.reconcile.postgres import Cluster, is_installed

pytestmark = [
    pytest.mark.network,
    pytest.mark.allow_hosts(["127.0.0.1", "::1"]),
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed(), reason="no PostgreSQL server; install postgresql-15"),
]

PAID: Final = 170
TOO_MUCH, A_LOT = 200_000, 60_000


class World(Struct):
    """A bank, its database, and the log of a gateway that has ended."""

    database: Cluster
    folder: Path
    audit: Path
    kek: Path
    records: list[dict[str, Any]]

    @property
    def map(self) -> Path:
        return self.folder / "payments.map.yaml"

    def words(self, *more: object) -> tuple[object, ...]:
        return ("--map", self.map, "--log", self.audit, "--kek", self.kek, *more)

    def ops(self, kind: str, **fields: str) -> list[str]:
        """Return the operations that a record of this type and these fields tells of."""
        found = [
            record["op"]
            for record in self.records
            if record["type"] == kind
            and all(value in _texts(record.get(name)) for name, value in fields.items())
        ]
        assert found, f"the day had no {kind} with {fields}"
        return found


def _texts(value: Any) -> list[Any]:  # noqa: ANN401 - JSON has any type
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.ask(bank_server.SCHEMA)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def world(database: Cluster, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Let agents work for a while, with everything that can go wrong on the way."""
    folder = tmp_path_factory.mktemp("bank")
    bank = Bank(folder, database.url, lives=3)
    try:
        bank.start()
        listings = {"bank": list_over_http(bank.url)}
        site = BankSite(tmp_path_factory.mktemp("site"), urls={"bank": bank.url}, listings=listings)
        served = Served(site).wait_ready()
        try:
            work(served, bank)
        finally:
            assert served.stop() == 0
    finally:
        bank.stop()
    found = World(database, folder, site.audit, site.folder / "keys" / "kek", served.records())
    found.map.write_text(MAP)
    # What others than the gateway book, which the map names as such.
    database.ask(
        "INSERT INTO payments (recipient, amount, urgent, source)"
        " SELECT 'staff', g, false, 'import' FROM generate_series(1, 20) g"
    )
    return found


def work(served: Served, bank: Bank) -> None:
    agent, dice = served.agent(), random.Random(14)  # noqa: S311 - no secret
    orders = [
        {"to": f"it's {n} é", "amount_cents": dice.choice([1, 10, 999, 5000, 12_345, 50_000])}
        | ({"urgent": dice.random() < 0.5} if n % 3 else {})
        for n in range(PAID)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda order: pay(agent, **order), orders))
    for _ in range(15):
        pay(agent, to="mallory", amount_cents=TOO_MUCH)
    for _ in range(8):
        pay(agent, to="ann", amount_cents="much")
        pay(agent, to="ann", amount_cents=bank_server.UNLUCKY)
        agent.call("bank__balance")
    for _ in range(4):
        agent.call("bank__nothing")
    held = [agent.hold("bank__pay", {"to": "h", "amount_cents": A_LOT + n}) for n in range(6)]
    dana = served.person("dana")
    for number, one in enumerate(held[:4]):
        dana.vote(one, "approve" if number % 2 else "deny")
        agent.status(one, wait_seconds=10)
    for amount in (bank_server.DIES_AFTER, bank_server.DIES_BEFORE):
        pay(agent, to="gone", amount_cents=amount)
        bank.wait_dead()
        for number in range(3):
            pay(agent, to="nobody", amount_cents=number + 1)
        bank.start()
        pay(agent, to="again", amount_cents=77)


def pay(agent: Agent, **arguments: object) -> None:
    agent.call("bank__pay", arguments)


def classes(report: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Return how often each class was found for each operation."""
    return Counter((one["kind"], one["op"]) for one in report["findings"])


@pytest.mark.req("AUD-14")
def test_an_honest_day_is_explained_to_the_last_row(world: World) -> None:
    assert len({record["op"] for record in world.records if record["type"][:4] == "call"}) >= 200

    said = run(world.database.url, *world.words("-o", "json"))

    assert said.report["findings"] == []
    assert said.code == Exit.OK
    counts = said.report["counts"]
    assert counts["ignored"] == [{"column": "source", "why": "the nightly import", "rows": 20}]
    assert counts["explained"] == int(world.database.ask("SELECT count(*) FROM payments")) - 20
    assert said.report["compared"] == counts["explained"] == PAID + 2 + 2 + 1
    assert counts["unresolved"] == 1  # the bank died before it paid
    assert counts["without_effect_rightly"] == 15 + 8 + 8 + 4 + 6


class Planter:
    """Changes rows behind the gateway's back, and notes what must be found."""

    def __init__(self, world: World) -> None:
        self.world, self.expected = world, Counter[tuple[str, str]]()
        self._untouched = world.ops("call.outcome", status="ok")
        self._untouched = [op for op in self._untouched if self._rows(op)]

    def _rows(self, op: str) -> str:
        return self.world.database.ask(f"SELECT id FROM payments WHERE operation_id = '{op}'")  # noqa: S608 - from the log

    def take(self) -> str:
        """Return the operation of an honest row that nobody has changed yet."""
        return self._untouched.pop(len(self._untouched) // 2)

    def insert(self, op: str | None, kind: str, source: str = "bank") -> None:
        values = f"{bank_server.literal(op)}, 'mallory', 1, false, '{source}'"
        self.world.database.ask(f"{INSERT} VALUES ({values})")
        self.expected[kind, op or ""] += 1

    def change(self, what: str, kind: str = "effect_differs") -> None:
        op = self.take()
        self.world.database.ask(f"UPDATE payments SET {what} WHERE operation_id = '{op}'")  # noqa: S608 - from the log
        if kind:
            self.expected[kind, op] += 1

    def delete(self, op: str) -> None:
        self.world.database.ask(f"DELETE FROM payments WHERE operation_id = '{op}'")  # noqa: S608 - from the log
        self.expected["intent_without_effect", op] += 1

    def copy(self, op: str, *, amount: str = "amount", source: str = "source") -> None:
        row = f"operation_id, recipient, {amount}, urgent, {source}"
        honest = f"FROM payments WHERE operation_id = '{op}' LIMIT 1"
        self.world.database.ask(f"{INSERT} SELECT {row} {honest}")
        self.expected["effect_twice", op] = 1
        self.expected["effect_differs", op] += amount != "amount"


INSERT: Final = "INSERT INTO payments (operation_id, recipient, amount, urgent, source)"


@pytest.fixture(scope="module")
def planted(world: World) -> Counter[tuple[str, str]]:
    """Do what an insider with the database's password might do."""
    planter = Planter(world)
    for number in range(5):
        planter.insert(None, "effect_without_intent")
        planter.insert(f"00000000-invented-{number}", "effect_without_intent")
        planter.insert(None, "effect_without_intent", source="IMPORT")
        planter.change("amount = amount + 0.01")
    for op in world.ops("call.intent", tool="bank.balance"):
        planter.insert(op, "effect_without_intent")
    plant_refused(planter)
    for _ in range(3):
        planter.change("recipient = 'mallory'")
        planter.change("urgent = NOT urgent")
        planter.change("recipient = 'mallory', amount = 1000000")
        planter.change("source = 'import'", kind="")  # hides nothing, so changes nothing
        planter.copy(planter.take())
        planter.copy(planter.take(), amount="amount * 2")
        planter.copy(planter.take(), source="'import'")
        planter.delete(planter.take())
    for op in world.ops("approval.grant"):
        planter.delete(op)
    return +planter.expected


def plant_refused(planter: Planter) -> None:
    """Let calls that went nowhere have had an effect."""
    ops = planter.world.ops
    for reason in ("too_much", "arguments_invalid", "tool_unknown"):
        for op in ops("call.refused", reason=reason)[:3]:
            planter.insert(op, "effect_despite_refusal")
    for op in ops("approval.deny"):
        planter.insert(op, "effect_despite_refusal")
        planter.insert(op, "effect_despite_refusal", source="import")
    for op in ops("call.outcome", delivery="not_sent")[:3]:
        planter.insert(op, "effect_not_sent")
    for op in ops("call.outcome", status="tool_error")[:3]:
        planter.insert(op, "effect_despite_error")


@pytest.mark.req("AUD-14")
@pytest.mark.parametrize("how", ["query", "csv", "jsonl", "stdin"])
def test_every_change_behind_its_back_is_found_and_nothing_else(
    world: World, planted: Counter[tuple[str, str]], how: str
) -> None:
    copy = world.database.ask
    query = "SELECT * FROM payments ORDER BY recipient, id"
    export, given = str(world.folder / f"payments.{how}"), None
    match how:
        case "query":
            export = world.database.url
        case "csv":
            Path(export).write_text(copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)") + "\n")
        case "jsonl":
            Path(export).write_text(copy(f"SELECT to_json(p) FROM ({query}) p"))  # noqa: S608 - written above
        case _:
            export = "-"
            given = copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)").encode()
            world.map.write_text(MAP + "format: csv\n")

    said = run(export, *world.words("-o", "json"), given=given)

    assert planted.total() >= 60
    assert classes(said.report) == planted
    assert said.code == Exit.VERIFICATION_FAILED
    assert said.report["not_comparable"] == 0


@pytest.mark.req("AUD-14")
def test_people_are_told_in_words_and_never_a_value(
    world: World, planted: Counter[tuple[str, str]]
) -> None:
    said = run(world.database.url, *world.words())
    assert f"NOT RECONCILED: {planted.total()} findings" in said.out
    assert "(/to, /amount_cents)" in said.out
    assert "mallory" not in said.out + said.err


@pytest.mark.req("AUD-14")
def test_without_the_key_nothing_is_said_of_arguments(
    world: World, planted: Counter[tuple[str, str]]
) -> None:
    said = run(world.database.url, "--map", world.map, "--log", world.audit, "-o", "json")
    without = Counter({one: n for one, n in planted.items() if one[0] != "effect_differs"})
    assert classes(said.report) == without
    assert said.report["compared"] == 0
    assert said.report["not_comparable"] == said.report["counts"]["explained"]


def test_a_query_that_fails_is_told_in_the_servers_words(world: World, tmp_path: Path) -> None:
    for query, words in (
        ("SELECT * FROM nothing", 'relation "nothing" does not exist'),
        ("DELETE FROM payments RETURNING *", "read-only"),
        ("SELECT 1 AS other", "no column `operation_id`"),
        ("SELECT operation_id, 1/(id - 30) FROM payments", "division by zero"),
    ):
        file = tmp_path / "map.yaml"
        text = f"tools: [{{name: bank.pay}}]\noperation_id: operation_id\nquery: {query}\n"
        file.write_text(text)
        said = run(world.database.url, "--map", file, "--log", world.audit)
        assert (said.code, words in said.err) == (Exit.ERROR, True), said.err
    assert run("postgresql:///x?host=/nowhere", *world.words()).code == Exit.ERROR
