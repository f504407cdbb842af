from __future__ import annotations

import pytest

from gateway.adapters.opa.opa_endpoint import OpaEndpoint, read_endpoint

pytestmark = pytest.mark.req("POL-05")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("opa://127.0.0.1:8181", OpaEndpoint("127.0.0.1", 8181)),
        ("opa://opa.internal", OpaEndpoint("opa.internal", 8181)),
        ("opas://[::1]:443/", OpaEndpoint("::1", 443, tls=True)),
        ("opa+unix:///run/opa.sock", OpaEndpoint(socket="/run/opa.sock")),
    ],
)
def test_a_place_is_read(url: str, endpoint: OpaEndpoint) -> None:
    assert read_endpoint(url) == endpoint


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:8181", "begins with none of"),
        ("opa://", "no `host:port`"),
        ("opa://host/path", "no `host:port`"),
        ("opa://user:secret@host", "token_from"),
        ("opa://host?x=1", "token_from"),
        ("opa+unix://", "names no socket"),
        ("opa+unix://host/x", "names no socket"),
        ("opa://host:none", "Port"),
    ],
)
def test_what_is_no_place_is_told(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_endpoint(url)


def test_a_place_is_shown_as_it_is_written() -> None:
    for url in ("opa://a:1", "opas://a:2", "opa+unix:///run/opa.sock"):
        assert str(read_endpoint(url)) == url
