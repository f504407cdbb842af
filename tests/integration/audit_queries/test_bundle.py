"""Evidence that one offline command verifies, and every change of it that the command finds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html.parser
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit import evidence
from gateway.adapters.audit.audit_files import list_segments
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_keys import create_key, vkey_of
from gateway.adapters.audit.evidence import find_verifiers
from gateway.adapters.policy.bundle_store import save_bundle
from gateway.adapters.policy.policy_bundle import Bundle, default_pack, load_bundle_dir
from gateway.cli.exits import Exit
from gateway.core.entry import Entry, Opening
from gateway.core.log.evidence import Opened, page_tail, write_opened
from gateway.core.log.note import parse_vkey
from tests.integration.audit_queries.desk import ORIGIN, Desk, audit, call_of, refused

pytestmark = pytest.mark.req("AUD-09")

Files_ = dict[str, bytes]
Json = dict[str, Any]
OPEN = ("--openings", "--purpose", "case 7")
SCRIPT = find_verifiers() / "countersign_verify_bundle.py"
HOSTILE = '<script src="https://evil.example/x.js"></script>"\'\u202e'


@pytest.fixture(scope="session")
def verifier() -> ModuleType:
    """The verifier of bundles; it imports the verifier of logs from its own folder."""
    spec = importlib.util.spec_from_file_location("countersign_verify_bundle", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="session")
def policies() -> Bundle:
    return load_bundle_dir(default_pack())


@pytest.fixture
async def desk(tmp_path: Path, policies: Bundle) -> Desk:
    """A log of two epochs, with a call that policy decided and hostile texts."""
    found = Desk(tmp_path)
    save_bundle(found.audit / "bundles", policies)
    log = found.open(signer=KeyFile(tmp_path / "audit.pem"))
    await log.start()
    await found.call(log, 0)
    await log.rotate_key(Entry(type="key.rotate", op="r", fields={"why": "command"}), 1)
    await found.call(log, 1)
    decided = {
        "decision": {"outcome": "deny", "reasons": ["a:b"]},
        "policy": {"rev": policies.revision},
    }
    await log.record(
        Entry(
            type="call.refused",
            op="hostile",
            fields={"reason": "b", "stage": "decide", **call_of(HOSTILE, "shop.pay"), **decided},
            openings=(Opening("args", HOSTILE.encode(), "mallory"),),
        )
    )
    await log.close()
    return found


def keys(desk: Desk) -> list[str]:
    return (desk.audit / "log.vkey").read_text().split()


def make(desk: Desk, *options: str) -> Path:
    """Write a bundle."""
    out = desk.folder / "evidence.zip"
    result = audit("bundle", desk.audit, "--out", out, "--kek", desk.kek, *options)
    assert result.exit_code == Exit.OK, result.output
    return out


def unpack(path: Path) -> Files_:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, files: Files_, *, renew: bool = False) -> Path:
    """Write a bundle of these files; `renew`: with a manifest that fits them."""
    if renew:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in files.items()
            if name != "manifest.json"
        }
        files = {**files, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def judge(verifier: ModuleType, path: Path, *options: str) -> tuple[int, Json]:
    """Run the verifier in this process; return its exit code and what it says as JSON."""
    told = io.StringIO()
    with redirect_stdout(told):
        code = verifier.main([str(path), "--json", *options])
    return code, json.loads(told.getvalue() or "{}")


def test_a_bundle_verifies_on_a_bare_python_from_its_own_folder(desk: Desk, tmp_path: Path) -> None:
    made = make(desk, *OPEN)
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(made) as archive:
        archive.extractall(folder)
    digest = hashlib.sha256((folder / "verify" / "countersign_verify.py").read_bytes()).hexdigest()
    assert digest in (folder / "README.txt").read_text()
    command = [sys.executable, "-I", "-S", "verify/countersign_verify_bundle.py"]
    for place in (".", str(made)):
        done = subprocess.run(
            [*command, place, "--key", keys(desk)[0]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"valid: {len(desk.lines())} records stand in the log {ORIGIN}" in done.stdout
        assert "policies: 1" in done.stdout


def test_the_records_are_those_of_the_log_byte_for_byte(desk: Desk) -> None:
    files = unpack(make(desk, "--agent", "bot"))
    lines = files["records.jsonl"].splitlines()
    assert [orjson.loads(line)["type"] for line in lines] == ["call.intent", "call.outcome"]
    assert set(lines) < set(desk.lines())
    assert {name for name in files if name.startswith("proofs/")} == {
        f"proofs/{orjson.loads(line)['seq']}.tlog-proof" for line in lines
    }
    assert json.loads(files["manifest.json"])["asked"] == "agent bot"
    assert "openings.jsonl" not in files
    assert "manifest.note" not in files


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_key_of_any_epoch_suffices(desk: Desk, verifier: ModuleType, epoch: int) -> None:
    made = make(desk)
    code, told = judge(verifier, made, "--key", keys(desk)[epoch], "--require", "key")
    assert (code, told["valid"], told["key"]) == (0, True, keys(desk)[1])
    assert told["warnings"] == ["the policies `r` that decided are not in the bundle"]


def test_without_a_key_it_says_so(desk: Desk, verifier: ModuleType) -> None:
    made = make(desk)
    code, told = judge(verifier, made)
    assert (code, told["valid"]) == (0, True)
    assert told["warnings"][0].startswith("UNPINNED_KEY")
    assert judge(verifier, made, "--require", "key")[0] == 3


def test_another_key_does_not_vouch_for_it(desk: Desk, verifier: ModuleType) -> None:
    other = vkey_of(create_key(desk.folder / "other.pem"), ORIGIN)
    code, told = judge(verifier, make(desk), "--key", other)
    assert (code, told["valid"]) == (1, False)
    assert told["problems"][-1]["place"] == "checkpoint"


def test_a_pure_python_gives_the_same_answer(desk: Desk, verifier: ModuleType) -> None:
    made, tools = make(desk, *OPEN), verifier.log.Tools
    kept = tools.orjson, tools.ed25519
    try:
        plain = judge(verifier, made, "--key", keys(desk)[0], "--plain")
    finally:
        tools.orjson, tools.ed25519 = kept
    assert plain == judge(verifier, made, "--key", keys(desk)[0])
    assert plain[0] == 0


def edit(name: str, old: bytes, new: bytes) -> Callable[[Files_], None]:
    def change(files: Files_) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


def drop_first_record(files: Files_) -> None:
    files["records.jsonl"] = files["records.jsonl"].partition(b"\n")[2]


def repeat_record(files: Files_) -> None:
    files["records.jsonl"] += files["records.jsonl"].partition(b"\n")[0] + b"\n"


def swap_proofs(files: Files_) -> None:
    first, second = "proofs/3.tlog-proof", "proofs/4.tlog-proof"
    files[first], files[second] = files[second], files[first]


def forge_value(files: Files_) -> None:
    lines = [json.loads(line) for line in files["openings.jsonl"].splitlines()]
    lines[0]["value"] = base64.b64encode(b"something else").decode()
    files["openings.jsonl"] = b"".join(orjson.dumps(line) + b"\n" for line in lines)


def open_nothing(files: Files_) -> None:
    files["openings.jsonl"] += b'{"seq":0,"path":"args","salt":"AA==","value":"AA=="}\n'


def drop_policies(files: Files_) -> None:
    for name in [name for name in files if name.startswith("policies/")]:
        del files[name]


def policy_file(files: Files_) -> str:
    return next(name for name in files if name.endswith("countersign/main.rego"))


def change_policy(files: Files_) -> None:
    files[policy_file(files)] += b"\n"


def forge_rotation(files: Files_) -> None:
    """A key that the log does not know is put into the change that the old key signed."""
    line = json.loads(files["epochs.jsonl"])
    line["key"] = vkey_of(Ed25519PrivateKey.from_private_bytes(b"x" * 32), ORIGIN)
    files["epochs.jsonl"] = orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n"


TAMPERINGS: list[tuple[Callable[[Files_], None], str, str]] = [
    (edit("records.jsonl", b'"status":"ok"', b'"status":"no"'), "records.jsonl:", "not the record"),
    (edit("records.jsonl", b'"type":', b'"type" :'), "records.jsonl:1", "one form of a record"),
    (edit("records.jsonl", b"clerk", b"other"), "records.jsonl:", "not the record"),
    (drop_first_record, "proofs/0", "is gone"),
    (repeat_record, "records.jsonl:", "twice"),
    (swap_proofs, "records.jsonl:", "not the record"),
    (edit("proofs/3.tlog-proof", b"index 3", b"index 4"), "records.jsonl:4", "not the record"),
    (edit("proofs/3.tlog-proof", b"tlog-proof@v1", b"tlog-proof@v2"), "records.jsonl:4", "no c2sp"),
    (edit("checkpoint", b"\n", b"x\n"), "checkpoint", "signed"),
    (edit("checkpoint", b"\n", b"\n\n"), "checkpoint", "not a checkpoint"),
    (forge_value, "openings.jsonl:1", "not what the record commits to"),
    (open_nothing, "openings.jsonl:", "opens nothing"),
    (change_policy, "policies/", "not those that decided"),
    (drop_policies, "policies/", "are gone"),
    (forge_rotation, "epochs/", "not the record"),
    (edit("manifest.json", b'"records": ', b'"records": 1'), "manifest.json", "number of records"),
    (edit("manifest.json", b'"size": ', b'"size": 1'), "manifest.json", "another checkpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "place", "what"), TAMPERINGS)
def test_what_was_changed_is_found_though_the_manifest_was_made_anew(
    desk: Desk, verifier: ModuleType, tamper: Callable[[Files_], None], place: str, what: str
) -> None:
    files = unpack(make(desk, *OPEN))
    tamper(files)
    forged = pack(desk.folder / "forged.zip", files, renew=True)
    code, told = judge(verifier, forged, "--key", keys(desk)[0])
    assert code == 1
    assert any(
        problem["place"].startswith(place) and what in problem["what"]
        for problem in told["problems"]
    ), told["problems"]


@pytest.mark.parametrize("name", ["README.txt", "summary.html", "verify/countersign_verify.py"])
def test_every_file_is_as_the_manifest_says(
    desk: Desk, verifier: ModuleType, tmp_path: Path, name: str
) -> None:
    files = unpack(make(desk))
    for changed, what in (
        ({**files, name: files[name] + b"x"}, "not as it was"),
        ({path: data for path, data in files.items() if path != name}, "is gone"),
        ({**files, "more.txt": b"x"}, "does not know"),
    ):
        code, told = judge(verifier, pack(tmp_path / "x.zip", changed), "--key", keys(desk)[0])
        assert code == 1
        assert what in told["problems"][0]["what"]


@pytest.mark.parametrize("name", ["../up", "/root", "a/../b", "a\\b", "a b"])
def test_a_name_that_leads_elsewhere_is_refused(
    desk: Desk,
    verifier: ModuleType,
    tmp_path: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forged = pack(tmp_path / "x.zip", {**unpack(make(desk)), name: b""})
    assert verifier.main([str(forged)]) == 2
    assert "cannot be a file of a bundle" in capsys.readouterr().err


def test_what_is_no_bundle_is_answered_plainly(
    verifier: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.zip"
    other.write_bytes(b"PK nothing")
    empty = pack(tmp_path / "empty.zip", {"manifest.json": b'{"format":"x","files":{}}'})
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoint").symlink_to(other)
    for place in ("gone", "other.zip", "folder", "linked", empty.name):
        assert verifier.main([str(tmp_path / place)]) == 2
        told = capsys.readouterr().err
        assert told.startswith("countersign_verify_bundle.py: ")
        assert told.count("\n") == 1
    assert verifier.main([]) == 2
    assert verifier.main([str(other), "--key", "nonsense+"]) == 2


def test_values_are_opened_on_request_and_what_was_erased_says_so(
    desk: Desk, verifier: ModuleType
) -> None:
    asyncio.run(desk.erase("alice", signer=KeyFile(desk.folder / "audit.pem")))
    made = make(desk, *OPEN, "--type", "call.*")
    opened = [json.loads(line) for line in unpack(made)["openings.jsonl"].splitlines()]
    assert {line.get("why") for line in opened} == {None, "erased"}
    texts = {base64.b64decode(line["value"]).decode() for line in opened if "value" in line}
    assert texts == {HOSTILE, '{"phase":"call"}', '{"to":"secret of bob"}'}
    code, told = judge(verifier, made, "--key", keys(desk)[0])
    assert (code, told["openings"]) == (0, 3)


TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3"}
TAGS |= {"p", "code", "table", "tr", "th", "td", "pre"}


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.policy = ""
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "action"}]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_fetches_and_runs_nothing(desk: Desk) -> None:
    page = Page()
    raw = unpack(make(desk, *OPEN))["summary.html"].decode()
    page.feed(raw)
    assert page.tags == TAGS
    assert page.links == []
    assert page.policy.startswith("default-src 'none'; style-src 'sha256-")
    style = raw.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.policy
    assert "\u202e" not in raw
    assert "\\u{202e}" in page.text
    assert '<script src="https://evil.example/x.js">' in page.text
    assert "secret of alice" in page.text


@pytest.mark.parametrize("tiles", [True, False])
async def test_a_log_of_many_tiles_is_proven_with_and_without_them(
    tmp_path: Path, verifier: ModuleType, *, tiles: bool
) -> None:
    desk = Desk(tmp_path)
    log = desk.open(segment_max_bytes=1 << 20)
    await log.start()
    await asyncio.gather(*(log.record(refused(number)) for number in range(600)))
    await log.close()
    if not tiles:
        shutil.rmtree(desk.audit / "tile")
    made = make(desk, "--decision", "deny")
    code, told = judge(verifier, made, "--key", keys(desk)[0])
    assert (code, told["records"]) == (0, 600)


def test_a_manifest_is_signed_where_a_key_is_given(desk: Desk) -> None:
    signer = create_key(desk.folder / "sign.pem")
    files = unpack(make(desk, "--sign", str(desk.folder / "sign.pem")))
    text, _, line = files["manifest.note"].decode().partition("\n\n")
    assert text.split("\n")[1] == hashlib.sha256(files["manifest.json"]).hexdigest()
    blob = base64.b64decode(line.split(" ")[2])
    key = parse_vkey(vkey_of(signer, ORIGIN))
    assert blob[:4] == key.id
    assert key.verify(blob[4:], f"{text}\n".encode())


def test_a_log_that_does_not_add_up_gives_no_evidence(desk: Desk) -> None:
    out = desk.folder / "evidence.zip"
    segment = list_segments(desk.audit)[0]
    segment.write_bytes(segment.read_bytes().replace(b'"status":"ok"', b'"status":"no"', 1))
    for tiles in (desk.audit / "tile").rglob("*"):
        if tiles.is_file():
            tiles.unlink()
    result = audit("bundle", desk.audit, "--out", out)
    assert result.exit_code == Exit.VERIFICATION_FAILED
    assert "do not add up" in result.stderr
    assert not out.exists()
    assert not out.with_name("evidence.zip.new").exists()


def test_a_record_that_tiles_do_not_know_is_no_evidence(desk: Desk) -> None:
    segment = list_segments(desk.audit)[0]
    segment.write_bytes(segment.read_bytes().replace(b'"status":"ok"', b'"status":"no"', 1))
    result = audit("bundle", desk.audit, "--out", desk.folder / "evidence.zip")
    assert result.exit_code == Exit.VERIFICATION_FAILED


def test_records_that_no_checkpoint_covers_are_left_out(desk: Desk) -> None:
    last = desk.records()[-1]
    segment = list_segments(desk.audit)[-1]
    more = orjson.dumps({**last, "seq": last["seq"] + 1}, option=orjson.OPT_SORT_KEYS)
    segment.write_bytes(segment.read_bytes() + more + b"\n")
    result = audit("bundle", desk.audit, "--out", desk.folder / "x.zip")
    assert result.exit_code == Exit.OK
    assert "1 records are not under a checkpoint yet" in result.stderr


def test_a_long_value_is_cut_on_the_page_alone() -> None:
    long = Opened(1, "args", bytes(32), b"x" * 5_000)
    page = b"".join(page_tail([long]))
    assert b"(5000 characters in all)" in page
    assert len(page) < 3_000
    assert len(base64.b64decode(json.loads(write_opened(long))["value"])) == 5_000


def test_a_log_without_a_checkpoint_gives_no_evidence(tmp_path: Path) -> None:
    (tmp_path / f"{0:020d}.jsonl").write_bytes(b"")
    result = audit("bundle", tmp_path, "--out", tmp_path / "x.zip")
    assert result.exit_code == Exit.VERIFICATION_FAILED
    assert "no checkpoint" in result.stderr


def test_a_log_whose_start_is_gone_gives_no_evidence(desk: Desk) -> None:
    shutil.rmtree(desk.audit / "tile", ignore_errors=True)
    segment = list_segments(desk.audit)[0]
    segment.write_bytes(segment.read_bytes().partition(b"\n")[2])
    result = audit("bundle", desk.audit, "--out", desk.folder / "x.zip")
    assert result.exit_code == Exit.VERIFICATION_FAILED


def test_without_its_verifiers_no_bundle_is_made(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "find_verifiers", lambda: desk.folder)
    result = audit("bundle", desk.audit, "--out", desk.folder / "x.zip")
    assert result.exit_code == Exit.VERIFICATION_FAILED
    assert "the verifier is not installed" in result.stderr


def test_wrong_usage_is_told(desk: Desk) -> None:
    out = ("--out", desk.folder / "x.zip")
    assert audit("bundle", desk.audit, *out, "--openings").exit_code == Exit.USAGE
    assert (
        audit("bundle", desk.audit, *out, "--openings", "--kek", desk.kek).exit_code == Exit.USAGE
    )
    assert audit("bundle", desk.audit, *out, "--sign", desk.kek).exit_code == Exit.USAGE
    assert audit("bundle", desk.audit, *out, "--op", "nothing").exit_code == Exit.NOT_FOUND
    assert audit("bundle", desk.audit, "--out", desk.folder / "no" / "x").exit_code == Exit.ERROR
    assert audit("bundle", desk.folder / "nothing", *out).exit_code == Exit.NOT_FOUND
    assert not (desk.folder / "x.zip").exists()
