"""A release as one file: a tar.gz whose bytes follow from its content, and from nothing else.

The compressed form of one text differs between versions of zlib, so nothing is compressed: the
gzip members are stored blocks (RFC 1951 §3.2.4). Any gzip and any tar reads them.
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from gateway.core.errors import RequestError

CODE: Final = "release_invalid"
ARCHIVE_MAX_BYTES: Final = 64 << 20
FILES_MAX: Final = 20_000
_STORED_MAX: Final = 0xFFFF
_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_PATH: Final = re.compile(r"[A-Za-z0-9._@+-]+(/[A-Za-z0-9._@+-]+)*")
_PATH_MAX: Final = 200
_PLAIN: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)
_UNREADABLE: Final = (
    RecursionError,  # headers upon headers
    tarfile.TarError,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    IndexError,  # a map of holes that is cut off
)


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the archive of these files (path → content). The same files give the same bytes.

    Raises `RequestError` (`release_invalid`) for a path that an archive may not have.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(files.items()):
            info = tarfile.TarInfo(_checked(path))
            info.size, info.mode = len(content), 0o644
            try:
                tar.addfile(info, io.BytesIO(content))
            except ValueError:
                raise _invalid(f"`{path}` is too long a path; shorten it") from None
    return _stored(out.getvalue())


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive, also of one that another program packed.

    Nothing is written anywhere. Raises `RequestError` (`release_invalid`) for what is no tar.gz, a
    link or device, a file with holes, a path that leads elsewhere or stands twice, and what is too
    large.
    """
    if len(archive) > ARCHIVE_MAX_BYTES:
        raise _invalid(f"the archive is larger than {ARCHIVE_MAX_BYTES} bytes; split the data")
    try:
        with tarfile.open(fileobj=io.BytesIO(_inflate(archive)), mode="r:") as tar:
            return _read_members(tar)
    except _UNREADABLE as error:
        raise _invalid(
            f"the archive cannot be read ({type(error).__name__}); build it anew"
        ) from None


def _read_members(tar: tarfile.TarFile) -> dict[str, bytes]:
    # Nothing is read before every header was checked.
    found: dict[str, bytes] = {}
    for path, member in _members(tar).items():
        content = tar.extractfile(member)
        found[path] = b"" if content is None else content.read()
    return found


def _members(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    total = 0
    for member in tar:
        if member.isdir():
            continue
        _check_plain(member)
        # 3. `../` and absolute paths would land outside when somebody unpacks it.
        path = _checked(member.name.removeprefix("./").removeprefix("/"))
        # 4. Of two files of one name, one reader takes the first and another the last.
        if path in found:
            raise _invalid(f"`{path}` stands twice in the archive; keep one")
        if len(found) >= FILES_MAX:
            raise _invalid(f"the archive has more than {FILES_MAX} files; join some")
        # 5. Headers may claim the same bytes for many files; a size below zero would hide another.
        total += member.size
        if member.size < 0 or total > ARCHIVE_MAX_BYTES:
            raise _invalid(f"the files are larger than {ARCHIVE_MAX_BYTES} bytes; split the data")
        found[path] = member
    return found


def _check_plain(member: tarfile.TarInfo) -> None:
    # 1. A hole of gigabytes takes a few bytes in the archive, and is filled when it is read.
    has_map = member.type == tarfile.GNUTYPE_SPARSE or member.sparse is not None
    if has_map or any(key.startswith("GNU.sparse.") for key in member.pax_headers):
        raise _invalid(f"`{member.name[:64]}` has holes; pack it as a plain file")
    # 2. A link or a device would be read as something that nobody signed.
    if member.type not in _PLAIN:
        raise _invalid(f"`{member.name[:64]}` is no plain file; leave it out")


def _inflate(archive: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    plain = inflater.decompress(archive, ARCHIVE_MAX_BYTES + 1)
    # 6. A few bytes that become gigabytes; and bytes behind the end, which some readers append.
    if len(plain) > ARCHIVE_MAX_BYTES or not inflater.eof or inflater.unused_data:
        raise _invalid("the archive is cut off, too large, or has something behind its end")
    return plain


def _stored(plain: bytes) -> bytes:
    trailer = struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFFFFFF)
    return _HEADER + b"".join(_blocks(plain)) + trailer


def _blocks(plain: bytes) -> Iterator[bytes]:
    for start in range(0, len(plain), _STORED_MAX):
        part = plain[start : start + _STORED_MAX]
        is_last = start + _STORED_MAX >= len(plain)
        yield struct.pack("<BHH", is_last, len(part), len(part) ^ _STORED_MAX) + part


def _checked(path: str) -> str:
    is_plain = _PATH.fullmatch(path) and len(path) <= _PATH_MAX
    if not is_plain or any(part.strip(".") == "" for part in path.split("/")):
        raise _invalid(
            f"`{path[:64]}` is no path for a release; use letters, digits and `._@+-`, "
            f"at most {_PATH_MAX}"
        )
    return path


def _invalid(why: str) -> RequestError:
    return RequestError(why, code=CODE)
