"""`countersign policy keygen|build|sign|verify|diff`: releases as files (POL-07)."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.releases.release_keys import load_key
from gateway.cli import build
from gateway.core.errors import ConfigurationError
from gateway.core.releases.publisher_keys import public_of
from gateway.core.releases.release import read_archive
from tests.unit.releases.test_config_parts import write

pytestmark = pytest.mark.req("POL-07")

HOUSE = """package policies.house

permit contains {"code": "reads"} if input.resource.effect == "read"
"""


class Bench:
    """A deployment's folder and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write(folder)
        (folder / "policies" / "house.rego").write_text(HOUSE)
        authority = {"policies": {"house": ["*"]}}
        (folder / "policies" / "authority.json").write_text(json.dumps(authority))

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        done = CliRunner().invoke(build("policy"), ["policy", *map(str, words)])
        return done.exit_code, done.stdout, done.stderr

    def build(self, name: str) -> Path:
        path = self.folder / name
        config = self.folder / "countersign.yaml"
        code, out, err = self.run("build", self.folder / "policies", "-o", path, "--config", config)
        assert code == 0, err
        assert out.strip() == read_archive(path.read_bytes()).release.revision
        return path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("kind", ["ed25519", "es256"])
def test_a_key_is_made_for_its_owner_alone_and_never_over_another(bench: Bench, kind: str) -> None:
    path = bench.folder / "pia.pem"
    code, out, _ = bench.run("keygen", path, "--alg", kind)
    assert code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_of(load_key(path)).text in out
    assert "PRIVATE" not in out
    code, _, err = bench.run("keygen", path)
    assert code == 1
    assert "exists; name another file" in err
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_key(path)


def test_a_key_that_cannot_be_read_or_is_no_key_is_told(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_key(bench.folder / "none.pem")
    path = bench.folder / "text.pem"
    path.write_text("no key")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="policy keygen"):
        load_key(path)
    assert "cannot be written" in bench.run("keygen", bench.folder / "no" / "folder.pem")[2]


def test_the_same_files_are_built_to_the_same_bytes(bench: Bench) -> None:
    assert bench.build("one.tar.gz").read_bytes() == bench.build("two.tar.gz").read_bytes()


def test_policies_that_do_not_pass_the_gate_are_not_built(bench: Bench) -> None:
    (bench.folder / "policies" / "house.rego").write_text("package {{{")
    config = bench.folder / "countersign.yaml"
    out = bench.folder / "r.tar.gz"
    code, _, err = bench.run("build", bench.folder / "policies", "-o", out, "--config", config)
    assert code == 1
    assert "house.rego" in err
    assert not out.exists()


def test_a_signed_release_is_verified_for_its_environment_and_no_other(bench: Bench) -> None:
    key, signed = bench.folder / "pia.pem", bench.folder / "signed.tar.gz"
    bench.run("keygen", key)
    archive = bench.build("r.tar.gz")
    words = ("sign", archive, "--key", key, "--environment", "prod", "-o", signed)
    assert bench.run(*words)[0] == 0
    check = ("verify", signed, "--verification-key", f"{key}.pub", "--scope")
    code, out, _ = bench.run(*check, "countersign:prod")
    assert (code, out.startswith("ok: ")) == (0, True)
    code, _, err = bench.run(*check, "countersign:dev")
    assert (code, "not for `countersign:dev`" in err) == (8, True)
    code, _, err = bench.run("verify", archive, "--verification-key", f"{key}.pub")
    assert (code, "nobody signed it" in err) == (8, True)
    changed = bytearray(signed.read_bytes())
    changed[600] ^= 1
    signed.write_bytes(changed)
    assert bench.run(*check, "countersign:prod")[0] == 8


def test_two_releases_are_compared_for_people_and_for_programs(bench: Bench) -> None:
    before = bench.build("before.tar.gz")
    house = bench.folder / "policies" / "house.rego"
    house.write_text(HOUSE + "\n# more\n")
    after = bench.build("after.tar.gz")
    code, out, _ = bench.run("diff", before, after)
    assert code == 0
    assert out.startswith("changed rego policies/house.rego\n")
    assert out.endswith("1 differences\n")
    found = json.loads(bench.run("diff", before, after, "-o", "json")[1])
    assert [(one["kind"], one["place"]) for one in found] == [("rego", "policies/house.rego")]
    assert bench.run("diff", before, before)[1] == "no differences\n"
    code, _, err = bench.run("diff", before, bench.folder / "none.tar.gz")
    assert (code, "No such file" in err) == (2, True)


@pytest.mark.parametrize("span", ["10", "0m", "ten minutes", "10y"])
def test_a_time_in_the_shadow_that_is_none_is_refused(bench: Bench, span: str) -> None:
    key = bench.folder / "pia.pem"
    bench.run("keygen", key)
    archive = bench.build("r.tar.gz")
    code, _, err = bench.run("publish", archive, "--key", key, "--shadow", span)
    assert (code, "such as `10m`" in err) == (2, True)


def test_several_keys_are_for_offline(bench: Bench) -> None:
    keys = [bench.folder / name for name in ("pia.pem", "paul.pem")]
    for key in keys:
        bench.run("keygen", key)
    archive = bench.build("r.tar.gz")
    code, _, err = bench.run("publish", archive, "--key", keys[0], "--key", keys[1])
    assert (code, "`--offline`" in err) == (2, True)


def test_offline_a_key_of_nobody_publishes_nothing(bench: Bench) -> None:
    key = bench.folder / "pia.pem"
    bench.run("keygen", key)
    archive = bench.build("r.tar.gz")
    config = bench.folder / "countersign.yaml"
    words = ("publish", archive, "--key", key, "--offline", "--config", config)
    code, _, err = bench.run(*words)
    assert (code, "none of `policy.publishers`" in err) == (1, True)
