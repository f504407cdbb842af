"""What an app has on its own machine: a callback, and a document that describes it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import queue
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@contextmanager
def listening(answer: Any, tls: ssl.SSLContext | None = None) -> Iterator[str]:  # noqa: ANN401
    """Serve `answer(path) -> (status, type, body)` on loopback; yield the origin."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, media_type, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


class Callback:
    """Where the browser comes back to."""

    def __init__(self) -> None:
        self._came: queue.Queue[dict[str, str]] = queue.Queue()
        self.url = ""

    def answer(self, path: str) -> tuple[int, str, bytes]:
        parts = urlsplit(path)
        if parts.path == "/callback":
            self._came.put(dict(parse_qsl(parts.query)))
        return 200, "text/plain", b"back at the app"

    def wait(self) -> dict[str, str]:
        return self._came.get(timeout=30)


@contextmanager
def listening_for_codes() -> Iterator[Callback]:
    callback = Callback()
    with listening(callback.answer) as origin:
        callback.url = f"{origin}/callback"
        yield callback


def make_certificate(folder: Path, host: str = "") -> tuple[Path, ssl.SSLContext]:
    """Make a certificate that signs itself, for a host's name, or else for 127.0.0.1.

    Returns its file and what serves it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    served: x509.GeneralName = x509.DNSName(host) if host else address
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([served]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


def describe(url: str, *redirect_uris: str, **more: object) -> bytes:
    """Return a Client ID Metadata Document."""
    said = {"client_id": url, "client_name": "SDK", "redirect_uris": list(redirect_uris)}
    return json.dumps(said | more).encode()
