"""The program that policy runs in: one process that is exec'd, and those that it forks.

Started as `python -I <this file> <control fd>`: it imports two files of the gateway, so that it
starts fast and needs no packages but `regorus` and `msgspec`. Starting takes 0.1 s, loading a
bundle some more; forking one that has done both takes milliseconds. Hence three kinds:

- the *seed* has loaded nothing; it is forked for each bundle,
- a *template* is a fork of the seed that has loaded a bundle; it is forked for each worker,
- a *worker* is a fork of a template and decides (`regorus_worker.serve`).

Seed and template never see an input, so nothing of one call can be left in a worker. They take
commands over their control socket, one at a time:

    command  u32 length, JSON {"do": ...}, in its first message the descriptors to hand on
    reply    u32 length, JSON, with a descriptor of the new process where the system has such

A long one is `{"do": "attached"}`, and stands in the file that comes with it. `fork` with `role`
`template` (and the child's control socket) or `worker` (its socket, and the bytes shared for
progress) is answered with `{"pid": ...}`; every other command is the evaluator's.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any, Final, NoReturn

import msgspec

if __name__ == "__main__":
    # Run by its path: what stands beside it is the same gateway, whatever else is installed.
    sys.path.insert(0, __file__.rsplit(os.sep, 4)[0])

from gateway.adapters.regorus.regorus_worker import ANSWER, CONTROL, PROGRESS, Evaluator, serve

LENGTH: Final = struct.Struct("<I")
DESCRIPTORS_MAX: Final = 2
MEMORY_MAX_BYTES: Final = 2 << 30
"""Address space of each process. About half of it is what the engine's allocator sets aside."""
HEADROOM_BYTES: Final = 512 << 20
"""What a worker may take beyond what it began with: for one evaluation, and engines it builds."""
_PR_SET_PDEATHSIG: Final = 1
_READ_BYTES: Final = 1 << 20
_LOADING: Final = ("load", "attached")


class _Order(msgspec.Struct):
    """What of a command says who carries it out."""

    do: str
    role: str = ""


_decode_order: Final = msgspec.json.Decoder(_Order).decode


def breed(control: socket.socket, evaluator: Evaluator) -> None:
    """Carry out commands until the gateway closes its end."""
    while (received := _receive(control)) is not None:
        command, descriptors = received
        order = _decode_order(command)
        if order.do == "attached":
            with os.fdopen(descriptors[0], "rb", buffering=0) as shared:
                shared.seek(0)
                command = shared.readall()
        elif order.do == "fork":
            _fork(control, evaluator, order.role, descriptors)
            continue
        kind, reply = evaluator.answer(0, CONTROL, command)
        if order.do in _LOADING:
            # What workers copy of it is never gone through: pages that nobody touches are shared.
            gc.collect()
            gc.freeze()
        _reply(control, reply if kind == ANSWER else json.dumps({"fault": reply.decode()}).encode())


def _receive(control: socket.socket) -> tuple[bytes, list[int]] | None:
    data, descriptors, _, _ = socket.recv_fds(control, _READ_BYTES, DESCRIPTORS_MAX)
    buffer = bytearray(data)
    while len(buffer) < LENGTH.size or len(buffer) < LENGTH.size + LENGTH.unpack_from(buffer)[0]:
        chunk = control.recv(_READ_BYTES)
        if not chunk:
            return None
        buffer += chunk
    return bytes(buffer[LENGTH.size :]), descriptors


def _reply(control: socket.socket, payload: bytes, descriptor: int | None = None) -> None:
    message = LENGTH.pack(len(payload)) + payload
    extra: list[Any] = []
    if descriptor is not None:
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    sent = control.sendmsg([message], extra)
    control.sendall(message[sent:])


def _fork(control: socket.socket, evaluator: Evaluator, role: str, descriptors: list[int]) -> None:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        _live(parent, evaluator, role, descriptors)
    for each in descriptors:
        os.close(each)
    # The gateway ends processes by descriptor, so that it cannot meet a stranger of the same id.
    handle = os.pidfd_open(pid) if sys.platform == "linux" else None
    _reply(control, json.dumps({"pid": pid}).encode(), handle)
    if handle is not None:
        os.close(handle)


def _live(parent: int, evaluator: Evaluator, role: str, descriptors: list[int]) -> NoReturn:
    """Be a child, to the end. Nothing may return into the parent's loop."""
    try:
        end_with_parent()
        if os.getppid() == parent:  # it might have ended before we asked to end with it
            _play(evaluator, role, descriptors)
    finally:
        os._exit(0)


def _play(evaluator: Evaluator, role: str, descriptors: list[int]) -> None:
    with (
        socket.socket(fileno=descriptors[0]) as connection,
        contextlib.suppress(BrokenPipeError, ConnectionResetError),  # the gateway is gone
    ):
        if role == "template":
            breed(connection, evaluator)
        else:
            limit_headroom()
            with mmap.mmap(descriptors[1], PROGRESS.size) as progress:
                serve(connection, progress, evaluator)


def confine() -> None:
    """Bound what a policy can take: memory, core dumps, terminal signals."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY_MAX_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_MAX_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C and a service manager's SIGTERM go to the whole group: calls under way still have
    # results to be judged, and the gateway decides when its workers end.
    for signaled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signaled, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries children: no zombies
    end_with_parent()


def limit_headroom() -> None:
    """Leave this process `HEADROOM_BYTES` of memory beyond what it has now."""
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib is not imported here
            used = int(file.read().split()[0]) * mmap.PAGESIZE
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (min(used + HEADROOM_BYTES, hard), hard))


def end_with_parent() -> None:
    """Be killed when the parent ends.

    A loop in a policy would outlive a gateway that was killed: it never reads the end of file.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - needed here only

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run as the seed on the control socket given as argument."""
    confine()
    gc.collect()
    gc.freeze()
    with (
        socket.socket(fileno=int(sys.argv[1])) as control,
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
    ):
        breed(control, Evaluator())


if __name__ == "__main__":
    main()
