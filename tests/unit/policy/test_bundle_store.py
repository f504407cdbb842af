from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.adapters.policy.bundle_store import load_bundle, save_bundle
from gateway.adapters.policy.policy_bundle import default_pack, load_bundle_dir
from gateway.core.errors import PolicyError

pytestmark = pytest.mark.req("GW-11")
BUNDLE = load_bundle_dir(default_pack())


def test_a_saved_bundle_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "bundles", BUNDLE)
    assert folder.name == BUNDLE.revision.removeprefix("sha256:")
    assert load_bundle(tmp_path / "bundles", BUNDLE.revision) == BUNDLE


def test_saving_twice_changes_nothing(tmp_path: Path) -> None:
    first = save_bundle(tmp_path, BUNDLE)
    assert save_bundle(tmp_path, BUNDLE) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize("revision", ["sha256:" + "0" * 64, "latest", "sha256:../../etc"])
def test_an_unknown_revision_is_missing(tmp_path: Path, revision: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_bundle(tmp_path, revision)
    assert caught.value.code == "policy_bundle_missing"


@pytest.mark.parametrize("change", ["edit", "add", "delete"])
def test_an_altered_bundle_is_refused(tmp_path: Path, change: str) -> None:
    folder = save_bundle(tmp_path, BUNDLE)
    file = folder / "policies" / "reads.rego"
    if change == "edit":
        file.write_bytes(file.read_bytes().replace(b"read", b"send"))
    elif change == "add":
        (folder / "policies" / "more.rego").write_text("package policies.more\n")
    else:
        file.unlink()
    with pytest.raises(PolicyError) as caught:
        load_bundle(tmp_path, BUNDLE.revision)
    assert caught.value.code == "policy_bundle_altered"


def test_a_store_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError) as caught:
        save_bundle(tmp_path / "file" / "bundles", BUNDLE)
    assert caught.value.code == "policy_bundle_unwritable"


def test_a_bundle_saved_by_another_process_meanwhile_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    folder = tmp_path / "bundles" / BUNDLE.revision.removeprefix("sha256:")
    rename = os.rename

    def win(self: Path, target: Path) -> Path:
        rename(save_bundle_elsewhere(other), folder)
        raise FileExistsError(17, "exists")

    def save_bundle_elsewhere(place: Path) -> Path:
        monkeypatch.undo()
        return save_bundle(place, BUNDLE)

    monkeypatch.setattr(Path, "rename", win)
    assert save_bundle(tmp_path / "bundles", BUNDLE) == folder
    assert load_bundle(tmp_path / "bundles", BUNDLE.revision) == BUNDLE
