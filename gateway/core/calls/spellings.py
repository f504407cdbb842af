"""How addresses, URLs, accounts and numbers are written, and found in a text."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator
from typing import Final

_PIECE_CHARS: Final = 8_192
"""So much of a text is searched at once, for nothing else runs meanwhile."""

VALUE_MAX_CHARS: Final = 256
"""A longer text is no value, but may hold some."""

# The first step or label stands before the loop: most words have none, and begin no loop then.
_LABEL: Final = r"[\w-]{1,63}+"
_STEP: Final = r"/[\w.@%+~-]{1,255}+"
_EMAIL: Final = rf"(?<![\w.%+'-])[\w.%+'-]{{1,64}}+@{_LABEL}(?:\.{_LABEL}){{1,8}}"
_URL: Final = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+://[^\s\"'<>|\\^`{}]{1,2000}+"
_IBAN: Final = r"\b[A-Z]{2}\d{2}(?>(?: ?[A-Z0-9]{4}){2,7})(?: ?[A-Z0-9]{1,3})?\b"
_NUMBER: Final = r"(?<!\w)\+?+\d(?:[ ()./-]{0,2}+\d){4,30}"
_PATH: Final = rf"(?<![\w.~/])(?:~|\.{{1,2}})?{_STEP}(?:{_STEP}){{0,31}}/?"
_DOTTED: Final = rf"(?<![\w.@-]){_LABEL}\.{_LABEL}(?:\.{_LABEL}){{0,7}}"
TOKEN: Final = re.compile(f"{_URL}|{_EMAIL}|{_IBAN}|{_NUMBER}|{_PATH}|{_DOTTED}")
_KINDS: Final = (
    (re.compile("://"), re.compile(_URL)),
    (re.compile("@"), re.compile(_EMAIL)),
    (re.compile(r"[A-Z]{2}\d\d"), re.compile(_IBAN)),
    (re.compile(r"\d"), re.compile(_NUMBER)),
    (re.compile("/"), re.compile(_PATH)),
    (re.compile(r"\w\.\w"), re.compile(_DOTTED)),
)
"""What tells that a text may hold a kind of token, and the kind."""

_QUOTED: Final = re.compile(r"'([^'\n]{1,256})'|\"([^\"\n]{1,256})\"|`([^`\n]{1,256})`")
_LINE: Final = re.compile(r"\s*(?:[-*]\s+)?(?:[\w .-]{1,64}?:\s+)?(.*?)\s*")
WORD: Final = re.compile(r"\w{1,256}")
_HOST: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,15}://(?:[^/?#]*@)?([^/?#:]+)")
_JOINTS: Final = re.compile(r"[\s,;<>()\[\]\"']*")
_ADDRESS: Final = re.compile(f"{_URL}|{_EMAIL}|{_IBAN}")
_EMAIL_ONLY: Final = re.compile(_EMAIL)
_ADDRESS_SIGN: Final = re.compile(r"@|://|[A-Z]{2}\d\d")
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_MAILBOX: Final = re.compile(
    r"(?:\"(?:[^\"\\\r\n]|\\[^\r\n])*\"|[^\"<>@,;:\\()\[\]\r\n]*)\s*"
    rf"<({_ATOM}(?:\.{_ATOM})*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)>"
)
"""One mailbox with a name before it (RFC 5322 3.4), without comments and old forms."""
_URL_ONLY: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,15}://[^/?#]*)(.*)", re.DOTALL)
_IBAN_ONLY: Final = re.compile(_IBAN)
_NUMBER_ONLY: Final = re.compile(_NUMBER)
_PARTED: Final = re.compile(r"(?<!\w)\w{1,16}+[-./]\w{1,16}+(?:[-./]\w{1,16}+){0,9}")
_DIGITS: Final = re.compile(r"\d(?:\D*\d){4}")
_DIGITS_MIN: Final = 5
_NO_DIGIT: Final = re.compile(r"[ ()./-]")
_BARE: Final = re.compile(r"(?://)?([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)\.?(?::\d+)?(?:[/?#].*)?")
"""A host, and a URL without its scheme. Names of files look alike."""

_COUNTRY: Final = 2
"""Letters of a country's domain."""
_SHARED: Final = frozenset(
    {"ac", "ad", "co", "com", "ed", "edu", "go", "gob", "gouv", "gov", "govt", "gub", "gv", "lg"}
    | {"ltd", "mil", "muni", "ne", "net", "nhs", "nom", "or", "org", "plc", "police", "res", "sch"}
)
"""What registries of countries sell names below, as in `co.uk`, and keep for themselves. Where one
is missing here, two owners count as one, which is the safe side."""

_UNSEEN: Final = {ord("\u3002"): ".", **dict.fromkeys(range(0xFE00, 0xFE10))}
"""The dot of other scripts, and signs that only choose between pictures."""

_SMALL: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def canonical(value: str) -> str:
    """Return one way to write an address, URL, account or number; anything else as it is."""
    text = value.strip()
    if len(text) > VALUE_MAX_CHARS:
        return text
    # Letters of other alphabets that fold to ours, and digits that a sign parts, are others.
    if "@" in text and _EMAIL_ONLY.fullmatch(text):
        return text.translate(_SMALL)
    if "://" in text and (url := _URL_ONLY.fullmatch(text)):
        return url[1].translate(_SMALL) + ("" if url[2] == "/" else url[2])
    if _IBAN_ONLY.fullmatch(text):
        return text.replace(" ", "")
    if _NUMBER_ONLY.fullmatch(text):
        return loose(text) if text[0] == "+" else text.replace(" ", "")
    return text


def loose(text: str) -> str:
    """Return a number without what parts its digits: alike is enough to be suspected."""
    return _NO_DIGIT.sub("", text) if _NUMBER_ONLY.fullmatch(text) else text


def addresses(value: str) -> Iterator[str]:
    """Yield the addresses within a value of any length."""
    if _ADDRESS_SIGN.search(value) is not None:
        for found in _ADDRESS.finditer(value[:VALUE_MAX_CHARS]):
            yield found[0].rstrip(".,;:!?)")


def is_joint(value: str) -> bool:
    """Whether there is nothing between a value's tokens but what joins them."""
    return _JOINTS.fullmatch(TOKEN.sub(" ", value)) is not None


def host_of(value: str) -> str:
    """Return the host of a URL as it is looked up; nothing for anything else."""
    found = _HOST.match(value) if "://" in value else None
    return plain_host(found[1]) if found else ""


def plain_host(text: str) -> str:
    """Return a host in small letters and plain signs, without the dot of the root (UTS 46)."""
    return plain_signs(text).lower().rstrip(".")


def names_above(host: str) -> Iterator[str]:
    """Yield a host, and the domains that it is in, the nearest first: who owns them has it too."""
    if host:
        yield host
    while host.count(".") > 1:
        host = host.partition(".")[2]
        yield host


def plain_signs(text: str) -> str:
    """Return a text as it is read where letters in circles, wide dots and the like are plain."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", text).translate(_UNSEEN)
    return "".join(sign for sign in plain if unicodedata.category(sign) != "Cf")


def site_of(value: str) -> str:
    """Return the domain that a URL, host or address leads to, without what its owner puts before.

    Nothing for anything else. Domains such as `co.uk` are told by a list.
    """
    host = host_of(value)
    if not host and "@" in value and _EMAIL_ONLY.fullmatch(value):
        host = value[value.rindex("@") + 1 :]
    elif not host and "." in value and (bare := _BARE.fullmatch(value)):
        host = bare[1].translate(_SMALL)
    labels = host.split(".")
    if labels[-1].isdigit():  # an address by number
        return host
    is_shared = len(labels[-1]) == _COUNTRY and labels[-2:][0] in _SHARED
    return ".".join(labels[-3 if is_shared else -2 :])


def addr_spec(value: str) -> str | None:
    """Return the address of one mailbox that has a name before it; None for anything else."""
    found = _MAILBOX.fullmatch(value.strip())
    return found[1] if found else None


def parted_numbers(text: str) -> Iterator[str]:
    """Yield the accounts and numbers in a text whose parts are joined by signs, without these."""
    for found in _PARTED.findall(text) if _DIGITS.search(text) else ():
        if sum(map(str.isdigit, found)) >= _DIGITS_MIN:
            yield join_parts(found)


def find_numbers(text: str) -> Iterator[str]:
    """Yield the numbers in a text, without what parts them, and accounts in parts."""
    if _DIGITS.search(text) is not None:
        for found in _NUMBER_ONLY.findall(text):
            yield _NO_DIGIT.sub("", found).lstrip("+")
        yield from parted_numbers(text)


def join_parts(text: str) -> str:
    """Return an account or number without what parts it, in small letters."""
    return _NO_DIGIT.sub("", text).casefold()


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in pieces that end between words, each with whether it does."""
    begin = 0
    while len(text) - begin > _PIECE_CHARS:
        least = begin + _PIECE_CHARS // 2
        end = 1 + max(
            text.rfind(" ", least, begin + _PIECE_CHARS),
            text.rfind("\n", least, begin + _PIECE_CHARS),
        )
        yield text[begin : end or begin + _PIECE_CHARS], bool(end)
        begin = end or begin + _PIECE_CHARS
    yield text[begin:], True


def tokens(text: str) -> Iterator[str]:
    """Yield the addresses and the like within a text, as `canonical` has them."""
    for sign, kind in _KINDS:
        if sign.search(text) is not None:
            for token in kind.findall(text):
                yield canonical(token.rstrip(".,;:!?)"))
                if host := host_of(token):
                    yield host
    if "'" in text or '"' in text or "`" in text:
        for quoted in _QUOTED.finditer(text):
            yield canonical(quoted[quoted.lastindex or 0])
    if "\n" in text or ": " in text:
        for line in text.splitlines():
            if len(line) <= VALUE_MAX_CHARS and (match := _LINE.fullmatch(line)):
                yield canonical(match[1].strip("'\""))
