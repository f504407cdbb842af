"""Seeds of policy engines, forked from one: a Python for each would take the tests half a minute.

A seed forks templates, which are such processes themselves. So the first one that a test process
starts stays as it is, and every seed is a fork of it. The fixture `real_seeds` is for tests of how
a seed starts, and of what becomes of engines whose seed is gone.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Final

from gateway.adapters.regorus import regorus_nursery, regorus_template
from gateway.adapters.regorus.regorus_nursery import Child, Nursery
from gateway.adapters.regorus.regorus_process import LENGTH

_FORK: Final = json.dumps({"do": "fork", "role": "template"}).encode()
_REPLY_MAX: Final = 4096


class Shared:
    """The first seed of this process, once there is one."""

    def __init__(self) -> None:
        self._first: Nursery | None = None

    def plant(self) -> Nursery:
        """Return a new seed, as `regorus_nursery.plant` does."""
        self._first = self._first or regorus_nursery.plant()
        control = self._first._control  # noqa: SLF001 - nobody else speaks to it
        ours, theirs = regorus_nursery._pair()  # noqa: SLF001 - as a template's is made
        with theirs:
            control.setblocking(True)  # noqa: FBT003 - the signature of the standard library
            message = LENGTH.pack(len(_FORK)) + _FORK
            socket.send_fds(control, [message], [theirs.fileno()])
            reply, handles, _, _ = socket.recv_fds(control, _REPLY_MAX, 1)
        pid = json.loads(reply[LENGTH.size :])["pid"]
        return Nursery(ours, Child(pid, handles[0] if handles else None))

    def stop(self) -> None:
        """End the first seed, and with it all others."""
        first, self._first = self._first, None
        if first is not None:
            asyncio.run(first.aclose())


shared: Final = Shared()


def share() -> None:
    """Have every engine of this process take its seed from here."""
    setattr(regorus_template, "plant", shared.plant)  # noqa: B010 - no seam is for this
