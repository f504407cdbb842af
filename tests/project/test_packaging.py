from __future__ import annotations

import email
import email.message
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.req("GW-02")


def build_wheel(folder: Path) -> Path:
    """Build the wheel as `make wheel` does and return its path."""
    subprocess.run(
        [
            Path(sys.executable).with_name("uv"),
            *("build", "--wheel", "--quiet", "--require-hashes"),
            *("--build-constraints", "requirements-build.txt", "--out-dir", folder),
        ],
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("dist")))


def read_metadata(wheel: zipfile.ZipFile, file: str) -> str:
    (name,) = [name for name in wheel.namelist() if name.endswith(f".dist-info/{file}")]
    return wheel.read(name).decode()


def test_the_wheel_holds_every_rego_file(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT / "rego").as_posix() for path in rego_files()}
    shipped = {
        name.removeprefix("gateway/rego/")
        for name in wheel.namelist()
        if name.startswith("gateway/rego/")
    }
    assert sources <= shipped


def rego_files() -> list[Path]:
    return [path for path in (ROOT / "rego").rglob("*") if path.suffix in {".rego", ".json"}]


def test_the_wheel_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {"gateway/py.typed", "connectors/py.typed"} <= set(wheel.namelist())


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    roots = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert roots == {"gateway", "connectors"}
    assert not any("__pycache__" in name for name in wheel.namelist())


def test_the_wheel_installs_the_countersign_script(wheel: zipfile.ZipFile) -> None:
    assert "countersign = gateway.cli:main" in read_metadata(wheel, "entry_points.txt")


def test_the_wheel_carries_name_licence_and_python_version(wheel: zipfile.ZipFile) -> None:
    metadata: email.message.Message = email.message_from_string(read_metadata(wheel, "METADATA"))
    assert metadata["Name"] == "countersign"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Apache License" in read_metadata(wheel, "licenses/LICENSE")


def test_the_lock_has_a_hash_for_every_file_and_names_only_the_public_index() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    ours = [package for package in lock["package"] if "editable" in package["source"]]
    theirs = [package for package in lock["package"] if "editable" not in package["source"]]
    assert [package["name"] for package in ours] == ["countersign"]
    assert {package["source"]["registry"] for package in theirs} == {"https://pypi.org/simple"}
    files = [
        file
        for package in theirs
        for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
    ]
    assert all(file["hash"].startswith("sha256:") for file in files)
    assert all(file["url"].startswith("https://files.pythonhosted.org/") for file in files)


@pytest.mark.parametrize("name", ["requirements-bootstrap.txt", "requirements-build.txt"])
def test_what_builds_the_environment_is_pinned_by_hash(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert pins
    assert all("==" in line.split()[0] and "--hash=sha256:" in line for line in pins)
    assert "https://" not in text


def test_the_changelog_names_the_version_that_is_built(wheel: zipfile.ZipFile) -> None:
    version = email.message_from_string(read_metadata(wheel, "METADATA"))["Version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in changelog or "## [Unreleased]" in changelog


@pytest.mark.parametrize(
    "name", ["LICENSE", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "docs/architecture.md"]
)
def test_a_page_that_people_look_for_is_there(name: str) -> None:
    assert len((ROOT / name).read_text()) > 400
