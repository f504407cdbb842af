"""Signatures of bundles, held against a real OPA: what it makes we read, what we make it reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.adapters.policy.policy_bundle import default_pack, load_bundle_dir
from gateway.adapters.releases.release_keys import create_key, load_key
from gateway.core.errors import RequestError
from gateway.core.releases.archive import pack
from gateway.core.releases.opa_files import hash_file
from gateway.core.releases.opa_signature import check_bundle, sign_bundle
from gateway.core.releases.publisher_keys import PrivateKey, public_of
from gateway.core.releases.release import Release, build_release, read_signature, write_archive
from tests.effort import share
from tests.opa_server import NO_OPA, OPA

pytestmark = [
    pytest.mark.req("POL-07"),
    pytest.mark.skipif(OPA is None, reason=NO_OPA),
]

SCOPE: Final = "countersign:prod"
ALGORITHMS: Final = ("EdDSA", "ES256")


@pytest.fixture(scope="module", params=ALGORITHMS)
def signer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / f"{request.param}.pem"
    create_key(path, request.param)
    return path


@pytest.fixture(scope="module")
def release() -> Release:
    return build_release(
        dict(load_bundle_dir(default_pack()).files),
        manifests={"shop": b"id: shop\ntransport: http\ntools: []\n"},
        endpoints={"prod": {}},
        roles={"prod": {}},
    )


def opa(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    assert OPA is not None
    return subprocess.run(
        [OPA, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


def load_in_opa(archive: Path, key: Path, scope: str = SCOPE) -> str:
    """Let OPA load a signed bundle; return what it complains of."""
    private = load_key(key)
    done = opa(
        *("build", "--bundle", str(archive), "--output", "out.tar.gz"),
        *("--verification-key", f"{key}.pub", "--verification-key-id", public_of(private).kid),
        *("--signing-alg", public_of(private).alg, "--scope", scope),
        cwd=archive.parent,
    )
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def lay_out(files: dict[str, bytes], folder: Path) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def sign_with_opa(folder: Path, key: Path, alg: str, scope: str = SCOPE) -> str:
    claims = folder.parent / "claims.json"
    claims.write_text(json.dumps({"scope": scope}))
    done = opa(
        *("sign", "--signing-key", str(key), "--signing-alg", alg, "--claims-file", str(claims)),
        *("--bundle", ".", "--output-file-path", str(folder.parent)),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    token = read_signature((folder.parent / ".signatures.json").read_bytes())
    assert token is not None
    return token


def test_a_real_opa_loads_what_we_signed_and_for_this_environment_only(
    release: Release, signer: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "r.tar.gz"
    token = sign_bundle(load_key(signer), release.bundle(), scope=SCOPE)
    archive.write_bytes(write_archive(release, token))
    assert load_in_opa(archive, signer) == ""
    assert "scope mismatch" in load_in_opa(archive, signer, "countersign:dev")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("policies/reads.rego", b"package policies.reads\n"),
        ("data.json", b"{}"),
        ("manifests/shop.yaml", b"id: other\n"),
        ("policies/more.rego", b"package policies.more\n"),
        ("policies/runs.rego", None),
    ],
)
def test_what_we_refuse_of_a_changed_bundle_a_real_opa_refuses_too(
    release: Release, signer: Path, tmp_path: Path, path: str, content: bytes | None
) -> None:
    private = load_key(signer)
    token = sign_bundle(private, release.bundle(), scope=SCOPE)
    files = release.bundle(token)
    if content is None:
        del files[path]
    else:
        files[path] = content
    with pytest.raises(RequestError):
        check_bundle(token, files, public_of(private), scope=SCOPE)
    archive = tmp_path / "r.tar.gz"
    archive.write_bytes(pack(files))
    assert load_in_opa(archive, signer) != ""


def test_what_opa_signed_is_believed_and_refused_when_it_was_changed(
    release: Release, signer: Path, tmp_path: Path
) -> None:
    private = load_key(signer)
    public = public_of(private)
    files = release.bundle()
    token = sign_with_opa(lay_out(files, tmp_path / "bundle"), signer, public.alg)
    check_bundle(token, files, public, scope=SCOPE)
    with pytest.raises(RequestError, match="not for"):
        check_bundle(token, files, public, scope="countersign:dev")
    with pytest.raises(RequestError, match="was changed"):
        check_bundle(token, {**files, "data.json": b"{}"}, public, scope=SCOPE)


def test_what_opa_signed_with_a_shared_secret_is_refused(
    release: Release, tmp_path: Path, signer: Path
) -> None:
    files = release.bundle()
    folder = lay_out(files, tmp_path / "bundle")
    done = opa(
        *("sign", "--signing-key", "secret", "--signing-alg", "HS256", "--bundle", "."),
        *("--output-file-path", str(tmp_path)),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    token = read_signature((tmp_path / ".signatures.json").read_bytes())
    assert token is not None
    with pytest.raises(RequestError, match="`HS256` is not the algorithm"):
        check_bundle(token, files, public_of(load_key(signer)), scope="")


NUMBERS = st.sampled_from(
    ["0", "-0", "1.0", "1.50", "1e3", "1E+3", "-0.0", "0.1", "12345678901234567890", "1e400"]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LEAVES = st.one_of(
    NUMBERS,
    TEXTS.map(json.dumps),
    TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(["true", "false", "null", '"<&>\u2028\u2029"', '"\\/\\b\\f"']),
)


def _object(members: dict[str, str]) -> str:
    return "{ " + " ,".join(f"{json.dumps(key)}: {item}" for key, item in members.items()) + " }"


DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(TEXTS, inner, max_size=4).map(_object),
    ),
    max_leaves=12,
)


@settings(max_examples=share(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(TEXTS, DOCUMENTS, max_size=4).map(_object), min_size=1, max_size=8))
def test_json_documents_are_hashed_to_the_byte_as_opa_hashes_them(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str]
) -> None:
    """Every document that we hash at all has OPA's hash."""
    place = tmp_path_factory.mktemp("hashed")
    key: PrivateKey
    create_key(place / "key.pem", "EdDSA")
    files = {f"d{n}/data.json": text.encode() for n, text in enumerate(documents)}
    token = sign_with_opa(lay_out(files, place / "bundle"), place / "key.pem", "EdDSA", "")
    key = load_key(place / "key.pem")
    check_bundle(token, files, public_of(key), scope="")
    assert all(hash_file(path, text, "SHA-256") for path, text in files.items())
