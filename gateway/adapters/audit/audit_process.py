"""The program that keeps the log beside a gateway: `python -I <this file> <socket fd>`.

It is exec'd, so that nothing of the gateway's memory is in it, is handed an open log over its
socket, and keeps it until the gateway tells it to close or is gone. Then what was asked for whole
is durable, and the log is given back with the process.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from typing import Final

import msgspec

if __name__ == "__main__":
    # Run by its path: what stands beside it is the same gateway, whatever else is installed.
    sys.path.insert(0, __file__.rsplit(os.sep, 4)[0])

from gateway.adapters.audit.audit_handover import Handover, take_over
from gateway.adapters.audit.audit_keeper import read_whole
from gateway.adapters.audit.audit_orders import LENGTH
from gateway.adapters.system import SystemClock

LOCKS: Final = 2
"""How many descriptors hold a log: of its `LOCK`, and of its folder."""


def confine() -> None:
    """Leave no keys in a core dump, and end only with the gateway.

    Ctrl-C and a service manager's SIGTERM go to the whole group; calls under way still have
    outcomes to be written.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for signaled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signaled, signal.SIG_IGN)


def receive(connection: socket.socket) -> Handover | None:
    """Return what is handed over, and keep the log's locks until this process ends."""
    data, _, _, _ = socket.recv_fds(connection, LENGTH.size, LOCKS, socket.MSG_WAITALL)
    try:
        message = read_whole(connection, LENGTH.unpack(data)[0]) if data else b""
    except ConnectionError:
        return None
    return msgspec.msgpack.decode(message, type=Handover) if data else None


def main() -> None:
    """Keep the log that comes over the socket given as argument."""
    confine()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        handed = receive(connection)
        if handed is not None:
            keeper = take_over(handed, SystemClock())
            gc.collect()
            gc.freeze()
            keeper.serve(connection)


if __name__ == "__main__":
    main()
