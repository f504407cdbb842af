from __future__ import annotations

import gzip
import io
import struct
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import RequestError
from gateway.core.releases import archive as archives
from gateway.core.releases.archive import pack, unpack
from gateway.core.releases.opa_signature import sign_bundle
from gateway.core.releases.release import read_archive, write_archive
from tests.effort import share
from tests.unit.releases.made import PIA, release

pytestmark = pytest.mark.req("POL-07")

ARCHIVE = write_archive(release())
SIGNED = write_archive(release(), sign_bundle(PIA, release().bundle(), scope="countersign:prod"))
HUGE = 4 << 30
NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,3}", fullmatch=True)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar.gz as another program could pack it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


@settings(max_examples=share(30))
@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=8))
def test_what_was_packed_is_unpacked_and_the_same_files_give_the_same_bytes(
    files: dict[str, bytes],
) -> None:
    packed = pack(files)
    assert unpack(packed) == files
    assert pack(dict(reversed(files.items()))) == packed


def test_any_tar_and_gzip_read_an_archive() -> None:
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(ARCHIVE))) as file:
        assert file.getnames() == sorted(release().bundle())


def test_a_large_file_is_packed_in_several_blocks() -> None:
    files = {"data.json": bytes(range(256)) * 1_000}
    assert unpack(pack(files)) == files


@pytest.mark.parametrize("whole", [ARCHIVE, SIGNED], ids=["unsigned", "signed"])
@settings(max_examples=share(150))
@given(data=st.data())
def test_an_archive_with_any_byte_changed_is_refused(whole: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    with pytest.raises(RequestError) as refused:
        read_archive(changed)
    assert refused.value.code == "release_invalid"


@settings(max_examples=share(50))
@given(st.integers(0, len(ARCHIVE) - 1))
def test_an_archive_that_was_cut_off_is_refused(end: int) -> None:
    with pytest.raises(RequestError):
        read_archive(ARCHIVE[:end])


@pytest.mark.parametrize("more", [b"\0", b"x", ARCHIVE], ids=["zero", "byte", "another"])
def test_bytes_behind_the_end_are_refused(more: bytes) -> None:
    with pytest.raises(RequestError, match="behind its end"):
        read_archive(ARCHIVE + more)


def test_an_archive_of_the_same_files_from_another_program_is_refused() -> None:
    members = [(tarfile.TarInfo(name), body) for name, body in release().bundle().items()]
    with pytest.raises(RequestError, match="packed by another program"):
        read_archive(tar(*members))


@pytest.mark.parametrize(
    "name", ["../up", "a/../../b", "a//b", "a/./b", "...", "with space", "ü", "-" * 201, "a\\b"]
)
def test_a_path_that_leads_elsewhere_or_reads_differently_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="no path for a release"):
        unpack(tar((tarfile.TarInfo(name), b"")))
    with pytest.raises(RequestError, match="no path for a release"):
        pack({name: b""})


def test_a_path_that_a_tar_cannot_hold_is_refused() -> None:
    with pytest.raises(RequestError, match="too long a path"):
        pack({"a" * 150: b""})


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
)
def test_links_and_devices_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("data.json")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(RequestError, match="no plain file"):
        unpack(tar((info, b"")))


def test_a_file_that_stands_there_twice_is_refused() -> None:
    twice = [(tarfile.TarInfo(name), b"{}") for name in ("data.json", "./data.json")]
    with pytest.raises(RequestError, match="stands twice"):
        unpack(tar(*twice))


def test_names_as_other_tools_write_them_are_read() -> None:
    folder = tarfile.TarInfo("policies")
    folder.type = tarfile.DIRTYPE
    found = unpack(tar((folder, b""), (tarfile.TarInfo("/data.json"), b"{}")))
    assert found == {"data.json": b"{}"}


def test_a_few_bytes_that_become_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(bytes(1 << 20))
    monkeypatch.setattr(archives, "ARCHIVE_MAX_BYTES", 1 << 16)
    assert len(bomb) < 1 << 16
    with pytest.raises(RequestError, match="too large"):
        unpack(bomb)
    with pytest.raises(RequestError, match="larger than"):
        unpack(bytes(1 << 17))


def with_gnu_holes(*, is_extended: bool = False) -> bytes:
    """Return a tar.gz of one file of 4 GiB, of which one byte is stored."""
    info = tarfile.TarInfo("data.json")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 1
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (HUGE - 1, 1)
    header[482:495] = b"%c%012o" % (is_extended, HUGE)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    rest = b"" if is_extended else b"x".ljust(512, b"\0") + bytes(1024)
    return gzip.compress(bytes(header) + rest)


def with_pax(headers: dict[str, str], content: bytes = b"x", *, is_global: bool = False) -> bytes:
    """Return a tar.gz of one file with these PAX headers, before it or before all files."""
    out = io.BytesIO()
    info = tarfile.TarInfo("data.json")
    info.size, info.pax_headers = len(content), {} if is_global else headers
    before = headers if is_global else {}
    with tarfile.open(
        fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers=before
    ) as file:
        file.addfile(info, io.BytesIO(content))
    return out.getvalue()


HOLES = {
    "gnu": with_gnu_holes(),
    "pax 0.0": with_pax({"GNU.sparse.size": str(HUGE), "GNU.sparse.numblocks": "0"}),
    "pax 0.1": with_pax({"GNU.sparse.size": str(HUGE), "GNU.sparse.map": f"{HUGE - 1},1"}),
    "pax 1.0": with_pax(
        {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(HUGE),
        },
        f"1\n{HUGE - 1}\n1\n".encode().ljust(512, b"\0") + b"x",
    ),
    "pax for all": with_pax({"GNU.sparse.size": "1"}, is_global=True),
}


def refuse_to_read(*_: object) -> None:
    pytest.fail("a file was read before all headers were checked")


@pytest.mark.parametrize("archive", HOLES.values(), ids=HOLES)
def test_a_file_with_holes_is_refused_before_anything_is_read(
    archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile.TarFile, "extractfile", refuse_to_read)
    assert len(archive) < 2_000
    with pytest.raises(RequestError, match=r"`data\.json` has holes") as refused:
        unpack(archive)
    assert refused.value.code == "release_invalid"


def test_the_holes_of_these_tests_are_what_a_tar_reader_takes_for_gigabytes() -> None:
    for name in ("gnu", "pax 0.0", "pax 0.1", "pax 1.0"):
        with tarfile.open(fileobj=io.BytesIO(HOLES[name])) as file:
            (member,) = file.getmembers()
        assert member.isreg()
        assert member.issparse()
        assert member.size == HUGE


def test_a_map_of_holes_that_is_cut_off_is_refused() -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        unpack(with_gnu_holes(is_extended=True))


@pytest.mark.parametrize("size", [str(HUGE), "-1"])
def test_files_that_claim_too_many_bytes_are_refused_before_anything_is_read(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile.TarFile, "extractfile", refuse_to_read)
    with pytest.raises(RequestError, match="files are larger than"):
        unpack(with_pax({"size": size}, is_global=True))


def test_the_files_of_an_archive_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar(*((tarfile.TarInfo(name), bytes(600)) for name in ("a", "b")))
    monkeypatch.setattr(archives, "_inflate", gzip.decompress)
    monkeypatch.setattr(archives, "ARCHIVE_MAX_BYTES", 1_200)
    assert unpack(archive) == {"a": bytes(600), "b": bytes(600)}
    monkeypatch.setattr(archives, "ARCHIVE_MAX_BYTES", 1_199)
    with pytest.raises(RequestError, match="files are larger than 1199 bytes"):
        unpack(archive)


def test_too_many_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FILES_MAX", 1)
    with pytest.raises(RequestError, match="more than 1 files"):
        unpack(pack({"a": b"", "b": b""}))


@pytest.mark.parametrize("content", [b"", b"{}", gzip.compress(b"no tar", mtime=0)])
def test_what_is_no_archive_is_refused(content: bytes) -> None:
    with pytest.raises(RequestError):
        read_archive(content)


def test_the_trailer_says_what_the_blocks_hold() -> None:
    _, size = struct.unpack("<II", ARCHIVE[-8:])
    assert size == len(gzip.decompress(ARCHIVE))


def test_headers_upon_headers_are_refused() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0
    deep = info.tobuf(tarfile.USTAR_FORMAT) * 5_000
    with pytest.raises(RequestError):
        unpack(gzip.compress(deep))
