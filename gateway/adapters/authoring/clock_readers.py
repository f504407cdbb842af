"""Which packages read the time: what a replay of past calls cannot show of a candidate.

A recorded input holds the time of its call. A rule that begins or ends at another time says of it
what it said then.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from gateway.adapters.policy.policy_bundle import DATA_PATH, Bundle

_TIME: Final = ("context", "now_ns")


def tell_clock(bundle: Bundle, before: Bundle | None = None) -> dict[str, Any]:
    """Return the packages that may read the time (`reads`), by name.

    With `before`, also those that `changed`: they did not read it there, or they, what they require
    or the data were others.
    """
    found = _find_readers(bundle)
    told: dict[str, Any] = {"reads": sorted(found)}
    if before is not None:
        known = _find_readers(before)
        told["changed"] = sorted(name for name in found if known.get(name) != found[name])
    return told


def _find_readers(bundle: Bundle) -> dict[str, str]:
    """Return each reader with a digest of all that it stands on."""
    packages, files = {**bundle.packages, **bundle.library}, dict(bundle.files)
    found = {}
    for name, package in bundle.packages.items():
        parts = [package, *(packages[each] for each in sorted(package.requires))]
        if any(_meets_time(path) for part in parts for path in part.inputs):
            paths = sorted({DATA_PATH, *(path for part in parts for path in part.paths)})
            digests = b"".join(hashlib.sha256(files[path]).digest() for path in paths)
            found[name] = hashlib.sha256("\0".join(paths).encode() + digests).hexdigest()
    return found


def _meets_time(path: tuple[str, ...]) -> bool:
    """Whether a part of the input is the time, or holds it."""
    return path[:2] == _TIME[: len(path)]
