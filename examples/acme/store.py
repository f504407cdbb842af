"""Acme's database: the rules of the shop over SQLite.

Every method is one transaction on a connection of its own, so worker threads may call freely.
Raises `Refused` for what the shop does not do; anything else that goes wrong is a fault.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from examples.acme.records import (
    Customer,
    CustomerFile,
    CustomerMatches,
    Email,
    Note,
    NoteAdded,
    Order,
    OrderLine,
    OrderList,
    OrderSummary,
    Refund,
)

HERE = Path(__file__).parent
BUSY_TIMEOUT_S = 5.0

_SUMMARY = """
  SELECT o.id, o.customer_id, o.status, o.total_cents, o.placed_at,
         o.total_cents - coalesce(sum(r.amount_cents), 0) AS refundable_cents
  FROM orders o LEFT JOIN refunds r ON r.order_id = o.id
"""


class Refused(Exception):  # noqa: N818 - an answer of the shop, not a fault
    """The shop does not do this. The text is for the caller."""


@dataclass(frozen=True)
class Trace:
    """What lets a repeated call be recognised, and an auditor find it.

    `key`: the caller's idempotency key. `operation_id`: the gateway's, from `_meta`.
    """

    key: str | None = None
    operation_id: str | None = None

    @property
    def once(self) -> str | None:
        """Under which a call takes effect at most once, or None if nothing was given."""
        return self.key or self.operation_id


def create_database(path: Path) -> None:
    """Make the database with its seed rows. Raises `FileExistsError` if `path` exists."""
    if path.exists():
        raise FileExistsError(f"`{path}` exists: choose another path or delete it")
    with sqlite3.connect(path) as connection:
        connection.executescript((HERE / "schema.sql").read_text(encoding="utf-8"))
        connection.executescript((HERE / "seed.sql").read_text(encoding="utf-8"))
    connection.close()


class Store:
    """The shop's records in the SQLite file at `path`, which must exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def search_customers(self, text: str, limit: int) -> CustomerMatches:
        """Find customers whose name, company or e-mail address contains `text`."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT * FROM customers WHERE instr(lower(name || char(10) || company || char(10)"
                " || email), lower(?)) > 0 ORDER BY created_at, id LIMIT ?",
                (text, limit + 1),
            ).fetchall()
        found = [Customer(**row) for row in rows[:limit]]
        return CustomerMatches(customers=found, truncated=len(rows) > limit)

    def customer_file(self, customer_id: str) -> CustomerFile:
        """Return a customer and the notes on file, oldest first."""
        with self._transaction() as db:
            customer = _known_customer(db, customer_id)
            rows = db.execute(
                "SELECT id, body, created_at FROM notes WHERE customer_id = ? ORDER BY id",
                (customer_id,),
            ).fetchall()
        return CustomerFile(customer=customer, notes=[Note(**row) for row in rows])

    def order(self, order_id: str) -> Order:
        """Return one order with its lines."""
        with self._transaction() as db:
            summary = _known_order(db, order_id)
            rows = db.execute(
                "SELECT sku, title, quantity, unit_cents FROM order_lines WHERE order_id = ?"
                " ORDER BY sku",
                (order_id,),
            ).fetchall()
        return Order(**summary.model_dump(), lines=[OrderLine(**row) for row in rows])

    def orders(self, customer_id: str | None, status: str | None, limit: int) -> OrderList:
        """Return orders, newest first; None means any."""
        with self._transaction() as db:
            rows = db.execute(
                _SUMMARY + "WHERE (?1 IS NULL OR o.customer_id = ?1) AND (?2 IS NULL OR"
                " o.status = ?2) GROUP BY o.id ORDER BY o.placed_at DESC, o.id LIMIT ?3",
                (customer_id, status, limit),
            ).fetchall()
        return OrderList(orders=[OrderSummary(**row) for row in rows])

    def cancel_order(self, order_id: str, reason: str) -> Order:
        """Cancel an order that has not left the warehouse. Cancelling twice changes nothing."""
        with self._transaction() as db:
            order = _known_order(db, order_id)
            if order.status not in {"paid", "cancelled"}:
                raise Refused(f"order `{order_id}` is already {order.status}: offer a refund")
            db.execute(
                "UPDATE orders SET status = 'cancelled', cancelled_at = ?, cancel_reason = ?"
                " WHERE id = ? AND status = 'paid'",
                (_now(), reason, order_id),
            )
        return self.order(order_id)

    def create_refund(self, order_id: str, amount_cents: int, reason: str, trace: Trace) -> Refund:
        """Pay back part of an order, never more than is left of it, at most once per key."""
        with self._transaction() as db:
            order = _known_order(db, order_id)
            if earlier := _earlier(db, "refunds", trace):
                if (earlier["order_id"], earlier["amount_cents"]) != (order_id, amount_cents):
                    raise Refused("this idempotency key was used for another refund: use a new one")
                return _refund(earlier, order.refundable_cents, replayed=True)
            if amount_cents > order.refundable_cents:
                raise Refused(
                    f"order `{order_id}` has {order.refundable_cents} cents left to refund,"
                    f" not {amount_cents}"
                )
            row = db.execute(
                "INSERT INTO refunds (order_id, amount_cents, reason, idempotency_key,"
                " operation_id, created_at) VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
                (order_id, amount_cents, reason, trace.once, trace.operation_id, _now()),
            ).fetchone()
        return _refund(row, order.refundable_cents - amount_cents, replayed=False)

    def queue_email(self, to: str, subject: str, body: str, trace: Trace) -> Email:
        """Put a message in the outbox, at most once per key."""
        with self._transaction() as db:
            if earlier := _earlier(db, "email_outbox", trace):
                if (earlier["recipient"], earlier["subject"]) != (to, subject):
                    raise Refused("this idempotency key was used for another mail: use a new one")
                return _email(earlier, replayed=True)
            row = db.execute(
                "INSERT INTO email_outbox (recipient, subject, body, idempotency_key,"
                " operation_id, queued_at) VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
                (to, subject, body, trace.once, trace.operation_id, _now()),
            ).fetchone()
        return _email(row, replayed=False)

    def add_note(self, customer_id: str, body: str, trace: Trace) -> NoteAdded:
        """Write a note into a customer's file."""
        with self._transaction() as db:
            _known_customer(db, customer_id)
            row = db.execute(
                "INSERT INTO notes (customer_id, body, operation_id, created_at)"
                " VALUES (?, ?, ?, ?) RETURNING *",
                (customer_id, body, trace.operation_id, _now()),
            ).fetchone()
        return NoteAdded(
            note_id=f"note_{row['id']}", customer_id=customer_id, created_at=row["created_at"]
        )

    def orders_of_month(self, month: str) -> list[OrderSummary]:
        """Return the orders placed in `month` (`2026-11`), oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                _SUMMARY + "WHERE substr(o.placed_at, 1, 7) = ? GROUP BY o.id ORDER BY o.placed_at",
                (month,),
            ).fetchall()
        return [OrderSummary(**row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction that holds the write lock from its first statement.

        IMMEDIATE, because a refund reads what is left and then pays: two of them must not both
        read before either pays.
        """
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
        )
        try:
            connection.row_factory = _as_dict
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()


def _as_dict(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _known_customer(db: sqlite3.Connection, customer_id: str) -> Customer:
    row = db.execute("SELECT * FROM customers WHERE id = ?", (customer_id,)).fetchone()
    if row is None:
        raise Refused(f"no customer `{customer_id}`: find one with customers_search")
    return Customer(**row)


def _known_order(db: sqlite3.Connection, order_id: str) -> OrderSummary:
    row = db.execute(_SUMMARY + "WHERE o.id = ? GROUP BY o.id", (order_id,)).fetchone()
    if row is None:
        raise Refused(f"no order `{order_id}`: find one with orders_list")
    return OrderSummary(**row)


def _earlier(db: sqlite3.Connection, table: str, trace: Trace) -> dict[str, Any] | None:
    """Return what an earlier call under the same key wrote. `table` is one of ours, never input."""
    if trace.once is None:
        return None
    row: dict[str, Any] | None = db.execute(
        f"SELECT * FROM {table} WHERE idempotency_key = ?",  # noqa: S608 - a constant
        (trace.once,),
    ).fetchone()
    return row


def _refund(row: dict[str, Any], refundable_cents: int, *, replayed: bool) -> Refund:
    return Refund(
        refund_id=f"re_{row['id']}",
        order_id=row["order_id"],
        amount_cents=row["amount_cents"],
        refundable_cents=refundable_cents,
        created_at=row["created_at"],
        replayed=replayed,
    )


def _email(row: dict[str, Any], *, replayed: bool) -> Email:
    return Email(
        email_id=f"em_{row['id']}",
        to=row["recipient"],
        queued_at=row["queued_at"],
        replayed=replayed,
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
