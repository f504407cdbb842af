"""Which host a text leads to: an e-mail address, an absolute http(s) URL, or a bare host name.

An allow-list, not a parser: a text has a host only if no reader in use could find another one in
it (RFC 3986, RFC 5321 and the WHATWG URL standard agree on everything that is left). All else has
none, and what has none is in no domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

ANY_BELOW: Final = "*."
"""Begins a pattern that stands for all subdomains, and not for the domain itself."""

_TEXT_MAX_CHARS: Final = 8_192
_HOST_MAX_CHARS: Final = 253
_LABEL_MAX_CHARS: Final = 63
_PORT_MAX: Final = 65_535

# 1. Labels of letters, digits and inner hyphens (RFC 1123): stops U-labels, compared differently by
#    each version of IDNA; percent-encoding, which some decode first; trailing dots, `_` and `%00`.
# 2. The last label begins with a letter: stops IP literals in every notation that `inet_aton`
#    knows (`127.1`, `2130706433`, `0x7f000001`), which are no names.
# INVARIANT: each part of these patterns ends where the next cannot begin, so that there is one way
# to read a text, and no time is lost in looking for others.
_REST: Final = r"[A-Za-z0-9-]*+(?<!-)"
_HOST: Final = rf"((?:[A-Za-z0-9]{_REST}\.)*[A-Za-z]{_REST})"
_LONG_LABEL: Final = re.compile(r"[^.]{64}")
# 3. A plain dot-atom before the one `@`: stops quoted local parts and comments with another `@` in
#    them, routes (`a%b@c`, `a!b@c`, `@a:b@c`) and encoded words, which need `=?`.
_LOCAL: Final = r"(?=[^@]{1,64}@)[A-Za-z0-9_+'-]++(?:\.[A-Za-z0-9_+'-]++)*"
_ADDRESS: Final = re.compile(rf"{_LOCAL}@{_HOST}")
# 4. After scheme and host only a port, `/` or the end: stops userinfo (`http://acme.example@evil`),
#    `#@evil` and `?@evil`, which some read as userinfo, and a backslash read as a slash.
# 5. Only characters of RFC 3986 behind it: stops tabs and line ends, which browsers take out, and
#    characters that become `/`, `?` or `#` when normalised.
_URL: Final = re.compile(
    rf"https?://{_HOST}(?::([1-9][0-9]{{0,4}}))?(?:/[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*+)?"
)
_BARE: Final = re.compile(_HOST)
# 6. Labels with `--` in third and fourth place count only where the pattern writes them: stops
#    A-labels that a reader decodes and normalises into another host.
_RESERVED: Final = re.compile(r"(?:^|\.)[a-z0-9]{2}--")


def find_host(text: str) -> str | None:
    """Return the host, in lower case, that every reader finds in `text`, or None."""
    if len(text) > _TEXT_MAX_CHARS:
        return None
    if "://" in text:
        found = _URL.fullmatch(text)
        if found is not None and found[2] is not None and int(found[2]) > _PORT_MAX:
            return None
    else:
        found = (_ADDRESS if "@" in text else _BARE).fullmatch(text)
    if found is None:
        return None
    host = found[1]
    return host.lower() if _has_lengths(host) else None


def is_pattern(text: str) -> bool:
    """Whether `text` is a host name in lower case, or `*.` and one."""
    name = text.removeprefix(ANY_BELOW)
    return name == name.lower() and _BARE.fullmatch(name) is not None and _has_lengths(name)


def build_host_test(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a test of hosts, as `find_host` gives them. A pattern that is none fits nothing."""
    sound = [pattern for pattern in patterns if is_pattern(pattern)]
    exact = frozenset(pattern for pattern in sound if not pattern.startswith(ANY_BELOW))
    below = tuple(pattern[1:] for pattern in sound if pattern.startswith(ANY_BELOW))

    def fits(host: str) -> bool:
        if host in exact:
            return True
        if not host.endswith(below):
            return False
        return "--" not in host or any(
            host.endswith(end) and not _RESERVED.search(host[: -len(end)]) for end in below
        )

    return fits


def is_covered(patterns: Iterable[str], pattern: str) -> bool:
    """Whether every host that fits `pattern` fits one of `patterns`. Decided exactly.

    One pattern has to cover it alone: of the endless names below a wildcard, finitely many names
    and wildcards beside it never cover what another wildcard does not.
    """
    return are_covered(patterns, (pattern,))


def are_covered(patterns: Iterable[str], others: Iterable[str]) -> bool:
    """Whether each of `others` `is_covered`, at the price of reading `patterns` once."""
    fits = build_host_test(patterns)
    # `*` is a label like any other here: it ends as the names below it do, and equals none of them.
    return all(fits(one) for one in others if is_pattern(one))  # what is none fits nothing


def _has_lengths(host: str) -> bool:
    """Whether `host` has at most 253 characters, and each label at most 63 (RFC 1035 §2.3.4)."""
    return len(host) <= _LABEL_MAX_CHARS or (
        len(host) <= _HOST_MAX_CHARS and _LONG_LABEL.search(host) is None
    )
