"""What a policy worker does: evaluate one bundle, in one thread.

It speaks frames over its socket (`regorus_process` says where workers come from):

    request  u32 payload length, u64 id, u32 bundle tag, u32 subset, payload
    reply    u32 payload length, u64 id, u8 kind, payload

Requests are answered in order, several at once under load; so before each one the worker writes
the time (monotonic, ns), its id and the CPU time that it has had (ns) into 24 shared bytes, from
which the gateway knows what a worker that it has to kill was working on, and since when.

Subset `CONTROL` carries a JSON command (`load`, `subset`, `drop`); any other subset number is an
input document for that subset's engine. An engine is bound to its thread, holds the GIL, has no
timeout and panics with `BaseException`: hence a process of its own.
"""

from __future__ import annotations

import json
import mmap
import re
import socket
import struct
import time
from typing import Any, Final

import msgspec
import regorus

from gateway.adapters.regorus.engine_shims import install_shims, prepare_shims
from gateway.adapters.regorus.regorus_plain import Voices, read_authority
from gateway.adapters.regorus.regorus_subset import ENTRY_POINT, Steady, Subset

REQUEST: Final = struct.Struct("<IQII")
REPLY: Final = struct.Struct("<IQB")
PROGRESS: Final = struct.Struct("<QQQ")
CONTROL: Final = 0xFFFF_FFFF
ANSWER, UNDEFINED, FAULT = 0, 1, 2
READ_BYTES: Final = 1 << 16
"""At most as much as the allocator keeps at hand: reading up to 256 KiB takes 15 µs, 64 KiB 2."""
REPLY_DELAY_NS: Final = 300_000
ANSWER_MAX_BYTES: Final = 1 << 20
"""An answer is a few reasons and obligations. What is larger is a mistake, or wants to hurt."""
VOICES_PATH: Final = "countersign/voices.rego"
_UNDEFINED: Final = b'"<undefined>"'
_LOCATION: Final = re.compile(r"--> (\S+:\d+:\d+)")


def build_engine(
    modules: list[tuple[str, str]], data: str, *, base: regorus.Engine | None = None
) -> regorus.Engine:
    """Return an engine with these (path, source) modules and data (JSON) on top of `base`."""
    engine = _new_engine() if base is None else base.clone()
    if data:
        engine.add_data_json(data)
    for path, source in modules:
        engine.add_policy(path, source)
    return engine


def _new_engine() -> regorus.Engine:
    engine = regorus.Engine()
    install_shims(engine)
    return engine


def describe(error: BaseException) -> str:
    """Return the engine's words without its stack trace. For load errors only: see `locate`."""
    return str(error).partition("Stack backtrace")[0].strip() or type(error).__name__


def locate(error: BaseException) -> str:
    """Return where in the policy an evaluation failed.

    Never the engine's own words: they quote values of the input, and errors end up in logs.
    """
    found = _LOCATION.search(str(error))
    return f"evaluation failed at {found[1]}" if found else "evaluation failed in the engine"


class Evaluator:
    """The engines of one bundle, by subset number. 0 holds every package."""

    def __init__(self) -> None:
        """`broken`: an engine panicked, so this process should end."""
        self.broken = False
        self._tag = 0
        self._base: regorus.Engine | None = None
        self._modules: dict[str, list[tuple[str, str]]] = {}
        self._authority: dict[str, Any] | None = None
        self._subsets: dict[int, Subset] = {}

    def answer(self, tag: int, subset: int, payload: bytes) -> tuple[int, bytes]:
        """Return (kind, payload) for one request. Never raises."""
        try:
            if subset == CONTROL:
                return ANSWER, self._control(msgspec.json.decode(payload))
            if tag != self._tag:
                return FAULT, b"the request is for another bundle"
            result = self._subsets[subset].decide(payload)
        except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
            # What panicked is broken: asked again it would fail on every input, also on good ones.
            self.broken = not isinstance(error, Exception)
            if subset in self._subsets:
                self._subsets[subset].renew()
            text = describe(error) if subset == CONTROL else locate(error)
            return FAULT, text.encode()
        if len(result) > ANSWER_MAX_BYTES:
            return FAULT, f"the answer is larger than {ANSWER_MAX_BYTES} bytes".encode()
        return (UNDEFINED, b"") if result == _UNDEFINED else (ANSWER, result)

    def _control(self, command: dict[str, Any]) -> bytes:
        if command["do"] == "load":
            return self._load(command)
        if command["do"] == "drop":
            del self._subsets[command["index"]]
        else:
            self._subsets[command["index"]] = self._build_subset(command)
        return b"{}"

    def _build_subset(self, command: dict[str, Any]) -> Subset:
        heard, authority = command.get("voices"), self._authority
        voices = Voices(heard, authority) if heard and authority is not None else None
        applies_to = command["applies_to"]
        data = json.dumps({"applies_to": applies_to}) if applies_to else ""
        engine = self._build(command["packages"], voices, data)
        _warm(engine)
        steady = self._build_steady(voices, command["steady"]) if "steady" in command else None
        return Subset(engine, voices, command.get("paths"), steady)

    def _build(self, packages: list[str], voices: Voices | None, data: str = "") -> regorus.Engine:
        modules = [module for name in packages for module in self._modules[name]]
        if voices is not None:
            modules.append((VOICES_PATH, voices.source()))
        return build_engine(modules, data, base=self._base)

    def _build_steady(self, voices: Voices | None, given: dict[str, Any]) -> Steady | None:
        if voices is None or self._authority is None:
            return None
        others, engine = given["others"], None
        if others["voices"]:
            engine = self._build(others["packages"], Voices(others["voices"], self._authority))
            _warm(engine)
        return Steady(voices, given["packages"], given["paths"], others["paths"], engine)

    def _load(self, command: dict[str, Any]) -> bytes:
        """Load a bundle and try it on samples; return JSON `{"faults": [...]}`, none if it works.

        Samples are made up, so the engine's own words may be told.
        """
        self._tag = command["tag"]
        self._modules = {name: [tuple(m) for m in ms] for name, ms in command["modules"].items()}
        # Data may be large, and is for the engine to read: here it is only taken apart.
        data = msgspec.json.decode(command["data"], type=dict[str, msgspec.Raw])
        applies_to = {"applies_to": data.pop("applies_to", msgspec.Raw(b"{}"))}
        self._base = build_engine(self._modules.pop(""), msgspec.json.encode(data).decode())
        said = {name: raw for name, raw in data.items() if name == "authority"}
        self._authority = read_authority(json.loads(msgspec.json.encode(said)))
        everything = [module for modules in self._modules.values() for module in modules]
        prepare_shims(source for _, source in everything)
        try:
            scopes = msgspec.json.encode(applies_to).decode()
            engine = build_engine(everything, scopes, base=self._base)
            for sample in ("{}", *command["samples"]):
                _warm(engine, sample)
        except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
            return json.dumps({"faults": [describe(error)]}).encode()
        self._subsets = {0: Subset(engine)}
        return b'{"faults": []}'


def _warm(engine: regorus.Engine, sample: str = "{}") -> None:
    """Make the engine analyse its modules now: unsafe variables and unknown functions show here."""
    engine.set_input_json(sample)
    engine.eval_rule_as_json(ENTRY_POINT)


def serve(connection: socket.socket, progress: mmap.mmap, evaluator: Evaluator) -> None:
    """Answer frames until the gateway closes its end."""
    buffer = bytearray()
    while chunk := connection.recv(READ_BYTES):
        buffer += chunk
        replies: list[bytes] = []
        due = start = 0
        while len(buffer) - start >= REQUEST.size:
            length, request_id, tag, subset = REQUEST.unpack_from(buffer, start)
            end = start + REQUEST.size + length
            if end > len(buffer):
                break
            now = time.monotonic_ns()
            # One write wakes the gateway once; but nobody waits long for a neighbour.
            if replies and now > due:
                connection.sendall(b"".join(replies))
                replies.clear()
            PROGRESS.pack_into(progress, 0, now, request_id, time.process_time_ns())
            kind, reply = evaluator.answer(tag, subset, bytes(buffer[start + REQUEST.size : end]))
            if not replies:
                due = now + REPLY_DELAY_NS
            replies += (REPLY.pack(len(reply), request_id, kind), reply)
            start = end
            if evaluator.broken:
                break
        if replies:
            connection.sendall(b"".join(replies))
        if evaluator.broken:
            return  # what waits is asked of another worker
        del buffer[:start]
