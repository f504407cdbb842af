"""No false alarm: histories that an honest gateway may write, made at random."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import share
from tests.unit.verify.logbuilder import ACTOR, READ, SECOND, TOOL, Log, TestKey

pytestmark = [pytest.mark.req("AUD-03"), pytest.mark.req("AUD-04")]


class Gateway:
    """Does honest things, one a step; `steps` are its choices."""

    def __init__(self) -> None:
        self.log = Log().start()
        self.next = 1
        self.calls: list[str] = []
        self.waiting: list[tuple[str, str]] = []  # (approval, op)
        self.granted: dict[str, str] = {}  # op -> approval
        self.tokens = [{**ACTOR, "exp": self.log.ts // SECOND + 300}]
        self.dead: list[object] = []  # tokens revoked, or of a run that is over
        self.witness = TestKey("witness", "w.example", 4)

    def name(self, prefix: str) -> str:
        self.next += 1
        return f"{prefix}-{self.next}"

    def step(self, choice: int, after: float) -> None:
        moves = [
            self.call,
            self.call,
            self.end,
            self.end,
            self.refuse,
            self.hold,
            self.decide,
            self.resume,
            self.issue,
            self.revoke,
            self.end_run,
            self.batch,
            self.batch,
            self.segment,
            self.rotate,
            self.restart,
            self.crash,
            self.witnessed,
            self.clock,
            self.policy,
        ]
        self.log.ts += int(after * SECOND)
        moves[choice % len(moves)]()

    def actor(self) -> dict[str, object] | None:
        live = [token for token in self.tokens if int(str(token["exp"])) > self.log.ts // SECOND]
        return {k: v for k, v in live[-1].items() if k != "exp"} if live else None

    def call(self) -> None:
        actor, op = self.actor(), self.name("op")
        if actor:
            self.log.intent(op, actor=actor, tool=READ if self.next % 2 else TOOL)
            self.calls.append(op)

    def end(self) -> None:
        if self.calls:
            op = self.calls.pop(0)
            delivery = ("sent", "unknown", "not_sent")[self.next % 3]
            self.log.outcome(op, delivery=delivery)
            approval = self.granted.get(op)
            if approval and delivery == "unknown":
                self.log.state(approval, "unknown").state(approval, "resolve")
            if approval and delivery == "not_sent":
                self.log.state(approval, "stale")

    def refuse(self) -> None:
        self.log.refused(self.name("op"), event=self.name("event"))

    def hold(self) -> None:
        approval, op = self.name("ap"), self.name("op")
        if actor := self.actor():
            about = {"agent": actor["agent"], "run": actor["run"], "actor": actor}
            self.log.request(approval, op, **about, quorum=1 + self.next % 2)
            self.waiting.append((approval, op))

    def decide(self) -> None:
        if not self.waiting:
            return
        approval, op = self.waiting.pop(0)
        asked = self.log.requests[approval]
        if self.log.ts // SECOND > asked["expires"]:
            self.log.state(approval, "expire")
        elif self.next % 4 == 0:
            self.log.vote(approval, decision="deny").state(approval, "deny")
        elif self.next % 4 == 1:
            self.log.state(approval, "cancel")
        else:
            for voter in range(asked["quorum"]):
                self.log.vote(approval, f"tag-{voter}", stage=voter + 1)
            self.log.state(approval, "grant")
            self.granted[op] = approval

    def resume(self) -> None:
        for op, approval in list(self.granted.items()):
            asked = self.log.requests[approval]
            if asked["actor"]["jti"] in self.dead:
                self.log.state(approval, "cancel")
                del self.granted[op]
                continue
            if op not in self.calls and self.log.ts // SECOND <= asked["expires"]:
                self.log.intent(op, approval=approval, actor=asked["actor"])
                self.calls.append(op)
            elif op not in self.calls:
                self.log.state(approval, "expire")
                del self.granted[op]
                continue
            self.end()
            self.granted.pop(op, None)
            return

    def issue(self) -> None:
        jti, run = self.name("jti"), self.name("run")
        self.log.token(jti, run)
        ends = self.log.ts // SECOND + 300
        self.tokens.append({**ACTOR, "jti": jti, "root": jti, "run": run, "exp": ends})

    def revoke(self) -> None:
        if len(self.tokens) > 1:
            self.dead.append(self.tokens.pop()["jti"])
            self.log.revoke(jti=self.dead[-1])

    def end_run(self) -> None:
        if len(self.tokens) > 1:
            token = self.tokens.pop()
            self.dead.append(token["jti"])
            self.log.run_end(str(token["run"]))

    def batch(self) -> None:
        if self.log.in_batch:
            self.log.batch()

    def segment(self) -> None:
        self.batch()
        if self.log.lines[-1]:
            self.log.segment()

    def rotate(self) -> None:
        self.log.rotate()

    def restart(self) -> None:
        while self.calls:
            self.end()
        self.log.shutdown()
        self.batch()
        self.log.boot(self.name("boot"))

    def crash(self) -> None:
        self.batch()
        cut = {"segment": f"{0:020d}.jsonl", "bytes": 12, "kept_in": "x.torn"}
        self.log.boot(self.name("boot"), cut=cut)
        for op in self.calls:
            self.log.orphan(op)
            if approval := self.granted.get(op):
                self.log.state(approval, "unknown").state(approval, "resolve")
        self.calls.clear()

    def witnessed(self) -> None:
        self.batch()
        self.log.witnessed(self.witness)

    def clock(self) -> None:
        self.log.add("clock.step", behind_us=200_000, after=0)

    def policy(self) -> None:
        self.log.policy(f"{self.next:064x}")


@given(
    st.lists(st.tuples(st.integers(0, 19), st.sampled_from([0.0, 0.5, 40.0, 1000.0])), max_size=60)
)
@settings(max_examples=share(120))
def test_honest_histories_raise_no_alarm(
    module: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, float]],
) -> None:
    gateway = Gateway()
    for choice, after in steps:
        gateway.step(choice, after)
    gateway.batch()
    folder = gateway.log.write(tmp_path_factory.mktemp("log"), tiles=len(steps) % 2 == 0)
    asked = module.Asked(
        Path(folder),
        keys=[module.read_key(gateway.log.first_key.vkey)],
        witnesses=[module.read_key(gateway.witness.vkey, 4)],
        all_signatures=len(steps) % 3 == 0,
    )
    report = module.Verifier(asked).run()
    assert report.findings == []
    assert report.size == len(gateway.log.leaves)
    assert module.exit_code(report) == 0
