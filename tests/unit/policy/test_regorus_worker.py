from __future__ import annotations

import json
import mmap
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.adapters.regorus.regorus_worker import (
    ANSWER,
    CONTROL,
    FAULT,
    PROGRESS,
    REPLY,
    REQUEST,
    UNDEFINED,
    Evaluator,
    describe,
    locate,
    serve,
)

TAG = 7
SOURCE = """package policies.a

permit contains {"code": "ok"} if input.resource.effect == "read"

deny contains {"code": "long"} if count(split(input.context.args.text, "")) > 3
"""
BUNDLE = build_bundle({"a.rego": SOURCE}, {"authority": {"policies": {"a": ["*"]}}})


def load_command(**changes: Any) -> bytes:  # noqa: ANN401 - JSON
    bundle = {"modules": BUNDLE.modules(), "data": BUNDLE.data, "samples": []}
    return json.dumps({"do": "load", "tag": TAG, **bundle, **changes}).encode()


def ask(text: object = "abc", effect: str = "read") -> bytes:
    return json.dumps(
        {
            "version": 1,
            "phase": "call",
            "resource": {"id": "shop.act", "server": "shop", "effect": effect},
            "context": {"args": {"text": text}},
        }
    ).encode()


@pytest.fixture
def evaluator() -> Evaluator:
    loaded = Evaluator()
    assert loaded.answer(0, CONTROL, load_command()) == (ANSWER, b'{"faults": []}')
    return loaded


def outcome(evaluator: Evaluator, subset: int, document: bytes) -> str:
    kind, payload = evaluator.answer(TAG, subset, document)
    assert kind == ANSWER
    return str(json.loads(payload)["outcome"])


def test_a_question_is_answered_in_json(evaluator: Evaluator) -> None:
    assert outcome(evaluator, 0, ask()) == "permit"
    assert outcome(evaluator, 0, ask("too long")) == "deny"


def test_nothing_of_one_input_is_left_for_the_next(evaluator: Evaluator) -> None:
    assert outcome(evaluator, 0, ask("too long")) == "deny"
    assert outcome(evaluator, 0, ask()) == "permit"


def test_a_failing_evaluation_says_where_but_no_value(evaluator: Evaluator) -> None:
    kind, payload = evaluator.answer(TAG, 0, ask(31337))
    assert kind == FAULT
    assert payload == b"evaluation failed at policies/a.rego:5:65"


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"[" * 5000])
def test_an_unreadable_input_is_a_fault(evaluator: Evaluator, document: bytes) -> None:
    assert evaluator.answer(TAG, 0, document) == (FAULT, b"evaluation failed in the engine")


def test_a_request_for_another_bundle_is_a_fault(evaluator: Evaluator) -> None:
    assert evaluator.answer(TAG + 1, 0, ask())[0] == FAULT


def test_an_unknown_subset_is_a_fault(evaluator: Evaluator) -> None:
    assert evaluator.answer(TAG, 9, ask())[0] == FAULT


def test_undefined_has_a_kind_of_its_own() -> None:
    evaluator = Evaluator()
    modules = {"": [["main.rego", "package countersign\ndecision := 1 if input.phase"]]}
    evaluator.answer(0, CONTROL, load_command(modules=modules, data="{}"))
    assert evaluator.answer(TAG, 0, b"{}") == (UNDEFINED, b"")


def test_a_subset_hears_only_its_packages(evaluator: Evaluator) -> None:
    command = {"do": "subset", "index": 1, "packages": [], "applies_to": {}}
    assert evaluator.answer(TAG, CONTROL, json.dumps(command).encode())[0] == ANSWER
    muted = {"do": "subset", "index": 2, "packages": ["a"], "applies_to": {"a": {"phases": []}}}
    assert evaluator.answer(TAG, CONTROL, json.dumps(muted).encode())[0] == ANSWER
    assert outcome(evaluator, 1, ask()) == "deny"
    assert outcome(evaluator, 2, ask()) == "deny"
    assert outcome(evaluator, 0, ask()) == "permit"


@pytest.mark.req("POL-13")
def test_a_dropped_subset_is_unknown_and_may_be_built_again(evaluator: Evaluator) -> None:
    build = json.dumps({"do": "subset", "index": 1, "packages": ["a"], "applies_to": {}}).encode()
    drop = json.dumps({"do": "drop", "index": 1}).encode()
    for command in (build, drop):
        assert evaluator.answer(TAG, CONTROL, command)[0] == ANSWER
    assert evaluator.answer(TAG, 1, ask())[0] == FAULT
    assert evaluator.answer(TAG, CONTROL, build)[0] == ANSWER
    assert outcome(evaluator, 1, ask()) == "permit"


@pytest.mark.req("POL-04")
def test_an_answer_that_is_too_large_is_a_fault() -> None:
    large = 'x := concat("", ["y" | some _ in numbers.range(1, 2000)])\n'
    rule = 'obligation contains {"type": "annotate", "text": [x | some _ in numbers.range(1, 600)]}'
    source = f"package policies.a\n\n{large}\n{rule}\n\n" + 'permit contains {"code": "ok"}\n'
    loaded = Evaluator()
    modules = {**BUNDLE.modules(), "a": [["a.rego", source]]}
    loaded.answer(0, CONTROL, load_command(modules=modules))
    assert loaded.answer(TAG, 0, ask()) == (FAULT, b"the answer is larger than 1048576 bytes")


def test_what_the_engine_refuses_comes_back_as_faults() -> None:
    modules = {**BUNDLE.modules(), "b": [["b.rego", "package policies.b\nx := y if z > 1\n"]]}
    kind, payload = Evaluator().answer(0, CONTROL, load_command(modules=modules))
    assert kind == ANSWER
    (fault,) = json.loads(payload)["faults"]
    assert "b.rego:2" in fault
    assert "Stack backtrace" not in fault


def test_a_broken_command_is_a_fault() -> None:
    assert Evaluator().answer(0, CONTROL, b"{}")[0] == FAULT


def test_errors_without_words_have_a_name() -> None:
    assert describe(ValueError()) == "ValueError"
    assert locate(ValueError("secret")) == "evaluation failed in the engine"


@pytest.fixture
def served() -> Iterator[tuple[socket.socket, mmap.mmap]]:
    ours, theirs = socket.socketpair()
    with ours, theirs, mmap.mmap(-1, PROGRESS.size) as progress:
        thread = threading.Thread(target=serve, args=(theirs, progress, Evaluator()))
        thread.start()
        yield ours, progress
        ours.shutdown(socket.SHUT_WR)
        thread.join(10)
        assert not thread.is_alive()


def frame(number: int, subset: int, payload: bytes) -> bytes:
    return REQUEST.pack(len(payload), number, TAG, subset) + payload


def read_reply(connection: socket.socket) -> tuple[int, int, bytes]:
    head = connection.recv(REPLY.size, socket.MSG_WAITALL)
    length, number, kind = REPLY.unpack(head)
    return number, kind, connection.recv(length, socket.MSG_WAITALL) if length else b""


def test_frames_are_answered_in_order_however_they_arrive(
    served: tuple[socket.socket, mmap.mmap],
) -> None:
    connection, progress = served
    frames = frame(1, CONTROL, load_command())
    frames += b"".join(frame(n, 0, ask("x" * (n % 5))) for n in range(2, 200))
    for start in range(0, len(frames), 1000):
        connection.sendall(frames[start : start + 1000])
    replies = [read_reply(connection) for _ in range(199)]
    assert [number for number, _, _ in replies] == list(range(1, 200))
    assert {kind for _, kind, _ in replies} == {ANSWER}
    assert PROGRESS.unpack_from(progress, 0)[1] == 199


WALKING = """package policies.a

permit contains {"code": "ok"} if input.resource.effect == "read"

deny contains {"code": "large"} if {
	walk(input.context.args, [["text"], n])
	abs(n) > 100
}
"""


@pytest.mark.req("POL-04")
@pytest.mark.parametrize("number", [0, 1])
def test_what_a_failed_evaluation_left_behind_changes_no_later_answer(number: int) -> None:
    walking = build_bundle({"a.rego": WALKING}, {"authority": {"policies": {"a": ["*"]}}})
    evaluator = Evaluator()
    evaluator.answer(0, CONTROL, load_command(modules=walking.modules(), data=walking.data))
    subset = {"do": "subset", "index": 1, "packages": ["a"], "applies_to": {}}
    evaluator.answer(TAG, CONTROL, json.dumps(subset).encode())
    for _ in range(3):
        assert outcome(evaluator, number, ask(500)) == "deny"
        assert evaluator.answer(TAG, number, ask(None))[0] == FAULT
        assert outcome(evaluator, number, ask(500)) == "deny"
        assert outcome(evaluator, number, ask(5)) == "permit"
