-- Acme Outfitters, back office. Money is in euro cents; times are RFC 3339 in UTC.
-- `operation_id` is what a caller's gateway sends in `_meta`: an auditor joins it to the audit log.
PRAGMA journal_mode = WAL;

CREATE TABLE customers (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  company    TEXT NOT NULL,
  email      TEXT NOT NULL UNIQUE,
  tier       TEXT NOT NULL CHECK (tier IN ('standard', 'silver', 'gold')),
  created_at TEXT NOT NULL
) STRICT;

CREATE TABLE orders (
  id           TEXT PRIMARY KEY,
  customer_id  TEXT NOT NULL REFERENCES customers (id),
  status       TEXT NOT NULL CHECK (status IN ('paid', 'shipped', 'delivered', 'cancelled')),
  total_cents  INTEGER NOT NULL CHECK (total_cents > 0),
  placed_at    TEXT NOT NULL,
  cancelled_at TEXT,
  cancel_reason TEXT
) STRICT;
CREATE INDEX orders_by_customer ON orders (customer_id, placed_at);

CREATE TABLE order_lines (
  order_id   TEXT NOT NULL REFERENCES orders (id),
  sku        TEXT NOT NULL,
  title      TEXT NOT NULL,
  quantity   INTEGER NOT NULL CHECK (quantity > 0),
  unit_cents INTEGER NOT NULL CHECK (unit_cents > 0),
  PRIMARY KEY (order_id, sku)
) STRICT;

CREATE TABLE refunds (
  id              INTEGER PRIMARY KEY,
  order_id        TEXT NOT NULL REFERENCES orders (id),
  amount_cents    INTEGER NOT NULL CHECK (amount_cents > 0),
  reason          TEXT NOT NULL,
  idempotency_key TEXT UNIQUE,
  operation_id    TEXT,
  created_at      TEXT NOT NULL
) STRICT;
CREATE INDEX refunds_by_order ON refunds (order_id);

CREATE TABLE email_outbox (
  id              INTEGER PRIMARY KEY,
  recipient       TEXT NOT NULL,
  subject         TEXT NOT NULL,
  body            TEXT NOT NULL,
  idempotency_key TEXT UNIQUE,
  operation_id    TEXT,
  queued_at       TEXT NOT NULL
) STRICT;

CREATE TABLE notes (
  id           INTEGER PRIMARY KEY,
  customer_id  TEXT NOT NULL REFERENCES customers (id),
  body         TEXT NOT NULL,
  operation_id TEXT,
  created_at   TEXT NOT NULL
) STRICT;
