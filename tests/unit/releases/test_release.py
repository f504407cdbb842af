from __future__ import annotations

import hashlib
import json

import pytest

from gateway.core.errors import RequestError
from gateway.core.releases.archive import pack
from gateway.core.releases.opa_signature import sign_bundle
from gateway.core.releases.release import name_files, read_archive, read_files, write_archive
from tests.unit.releases.made import PIA, release

pytestmark = pytest.mark.req("POL-07")


def test_the_revision_is_the_hash_of_the_sorted_paths_and_hashes() -> None:
    made = release()
    listing = [[p, hashlib.sha256(c).hexdigest()] for p, c in sorted(made.files.items())]
    text = json.dumps(listing, separators=(",", ":")).encode()
    assert made.revision == f"sha256:{hashlib.sha256(text).hexdigest()}"
    assert name_files(reversed(list(made.files.items()))) == made.revision


def test_a_release_holds_policies_manifests_endpoints_and_roles() -> None:
    found = read_archive(write_archive(release()))
    assert found.signature is None
    assert found.release == release()
    assert set(found.release.policy_files) == {
        "countersign/main.rego",
        "data.json",
        "policies/house.rego",
    }
    assert found.release.manifests == {"shop": b"id: shop\n"}
    assert found.release.endpoints["prod"]["shop"]["url"] == "https://shop.example/mcp"
    assert set(found.release.roles["prod"]) == {"humans", "clients"}


def test_the_manifest_of_the_bundle_says_what_opa_wants_to_know() -> None:
    manifest = json.loads(release().bundle()[".manifest"])
    assert manifest == {
        "revision": release().revision,
        "rego_version": 1,
        "roots": ["countersign", "limits", "policies"],
        "metadata": {"countersign": {"release": 1}},
    }


def test_a_signature_travels_in_the_archive() -> None:
    token = sign_bundle(PIA, release().bundle())
    assert read_archive(write_archive(release(), token)).signature == token


@pytest.mark.parametrize("path", ["policies/house.rego", "manifests/shop.yaml", "data.json"])
def test_a_file_that_was_changed_after_the_build_is_refused(path: str) -> None:
    files = release().bundle()
    files[path] += b" "
    with pytest.raises(RequestError, match=r"not those that `\.manifest` names"):
        read_archive(pack(files))


@pytest.mark.parametrize(
    "path", [".manifest", "data.json", "deployment/endpoints.json", "deployment/roles.json"]
)
def test_a_release_without_one_of_its_parts_is_refused(path: str) -> None:
    files = release().bundle()
    del files[path]
    with pytest.raises(RequestError):
        read_files(files)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("readme.md", "no place"),
        ("manifests/shop.json", "no place"),
        ("deployment/secrets.json", "no place"),
        ("policies/more/data.json", "one `data.json`"),
        ("policies/data.yaml", "one `data.json`"),
    ],
)
def test_a_file_without_a_place_is_refused(path: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        read_files({**release().bundle(), path: b"{}"})


@pytest.mark.parametrize("document", [b"[]", b"{", b'{"a":1,"a":2}'])
def test_data_that_is_no_object_is_refused(document: bytes) -> None:
    with pytest.raises(RequestError, match=r"data\.json"):
        read_files({**release().bundle(), "data.json": document})


@pytest.mark.parametrize(
    "document", [b"[]", b'{"signatures":[]}', b'{"signatures":["a","b"]}', b'{"signatures":[1]}']
)
def test_signatures_in_another_form_are_refused(document: bytes) -> None:
    with pytest.raises(RequestError, match="signatures"):
        read_files({**release().bundle(), ".signatures.json": document})
