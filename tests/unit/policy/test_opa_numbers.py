"""Numbers as they are sent to an OPA, which keeps how each was written."""

from __future__ import annotations

import json

import pytest

from gateway.adapters.opa.opa_asking import plain_numbers

pytestmark = pytest.mark.req("POL-05")


@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        ('{"n":1.0}', '{"n":1}'),
        ('{"n":[1e2,-0.0,-0]}', '{"n":[100,0,0]}'),
        ('{"n":0.10}', '{"n":0.1}'),
        ('{"n":{"m":1.50E3}}', '{"n":{"m":1500}}'),
        ('{"n":1E300,"m":1.0}', '{"n":1E300,"m":1}'),
        ('{"n":1767225600123456789,"t":"a 1.0 \\" é","e":1.5}', None),
        ('{ "n" : 12 }', None),
    ],
)
def test_a_number_is_written_as_the_embedded_engine_reads_it(sent: str, asked: str | None) -> None:
    assert plain_numbers(sent.encode()).decode() == (sent if asked is None else asked)
    assert json.loads(plain_numbers(sent.encode())) == json.loads(sent)
