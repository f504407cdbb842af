"""Logs of an honest gateway, in which a verifier must find nothing, and what nobody can find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.conformance.audit.bases import plain, rotated
from tests.conformance.audit.case import Case
from tests.conformance.audit.keys import witnessed
from tests.conformance.audit.rules_approvals import asked, granted
from tests.conformance.audit.stories import HELD_S, PERMIT, READ_TOOL, TTL_S, Story
from tests.conformance.audit.tampering import Draft
from tests.conformance.audit.writer import EPOCHS, STRANGER, WITNESS, Files, encode


def sound(name: str, what: str, files: Story | Files, **over: Any) -> Case:  # noqa: ANN401
    """Return a case without a finding; a story's last batch is sealed here."""
    if isinstance(files, Story):
        files.seal()
        files = files.files()
    return Case(f"valid-{name}", what, files, **over)


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _shapes()
    yield from _spellings()
    yield from _starts()
    yield from _calls()
    yield from _authority()
    yield from _held_ends()
    yield from _held_calls()
    yield from _votes()
    yield from _keys()
    yield from _known()
    yield from _tiles()
    yield from _others()
    yield from _beyond()


def _shapes() -> Iterator[Case]:
    files = Story().start().files()
    yield sound("smallest", "A log of its first record and its first boot.", files)
    yield sound("plain", "A working day in three segments.", plain().files())
    story = Story().start(seal=False)
    story.activate()
    for number in range(20):
        story.refused(f"op-{number}")
    yield sound("one-batch", "A log of one batch.", story)
    story = Story().start()
    for number in range(12):
        story.new_segment()
        story.refused(f"op-{number}")
        story.seal()
    yield sound(
        "batches-of-one", "Every batch has one record and a segment of its own.", story.files()
    )
    story = Story().ready()
    for number in range(50):
        story.refused(f"op-{number}")
        if number % 7 == 0:
            story.seal()
    yield sound("many-batches", "Batches of all lengths, 54 records.", story)
    yield sound("no-copy", "No `checkpoint` copy.", plain().files(copy=False))
    story = plain()
    files = story.files() | {"checkpoint": story.notes[4].encode()}
    yield sound("copy-behind", "The `checkpoint` copy lies behind.", files)
    files = plain().files() | {"00000000000000000022.jsonl": b""}
    what = "The next segment was made, and the process ended before its first batch."
    yield sound("empty-last-segment", what, files)


def _spellings() -> Iterator[Case]:
    story = Story().ready()
    text = 'quote " backslash \\ solidus / tab \t LF \n bell \a DEL \x7f é € 😀 \u2028 \ufeff'
    story.put("x.text", text=text, empty="", nothing=None, yes=True, no=False)
    what = "All kinds of characters, in their shortest spelling."
    yield sound("characters", what, story)
    story = Story().ready()
    limit = 2**53 - 1
    story.put("x.numbers", zero=0, highest=limit, lowest=-limit, minus=-1)
    yield sound("numbers", "The highest and the lowest integer.", story)
    story = Story().ready()
    nested: Any = []
    for _ in range(30):
        nested = [nested, {}]
    story.put("x.nested", nested=nested)
    yield sound("nested", "Empty and nested lists and objects.", story)
    story = Story().ready()
    empty = len(encode(_probe(story)))
    story.put("x.long", text="y" * (16_384 - empty))
    longest = max(len(line) for lines in story.segments.values() for line in lines)
    assert longest == 16_384 + 1
    yield sound("longest", "A record of 16,384 bytes.", story)
    story = Story().ready()
    story.put("x.unknown", a=1)
    story.refused("op-1", unheard_of={"b": [1, 2, {"c": None}]})
    story.put("call.unheard", op="op-2", event="e-1")
    yield sound("unknown", "Types and fields that the reader does not know.", story)


def _probe(story: Story) -> dict[str, Any]:
    """Return the record that `x.long` would be without text."""
    twin = Story().ready()
    twin.put("x.long", text="")
    draft = Draft(twin.files())
    assert twin.size == story.size + 1
    return draft.lines[-1].record


def _starts() -> Iterator[Case]:
    story = Story().ready()
    story.call("op-1")
    story.put("shutdown")
    story.seal()
    story.restart("boot-2")
    story.refused("op-2")
    yield sound("restart", "An orderly end and another start.", story)
    story = Story().ready()
    cut = {"segment": "00000000000000000000.jsonl", "bytes": 311, "kept_in": "x.torn"}
    story.restart("boot-2", cut=cut)
    yield sound("restart-with-cut", "A start that cut an interrupted write.", story)
    story = Story().ready()
    story.intent("op-1")
    story.intent("op-2")
    story.seal()
    story.restart("boot-2", open_intents=2)
    story.orphan("op-1")
    story.orphan("op-2")
    story.put("shutdown")
    yield sound("orphans", "A start that finds two intents open and closes them.", story)
    story = Story().ready()
    story.intent("op-1")
    story.seal()
    story.restart("boot-2", open_intents=1)
    story.wait(30)
    story.refused("op-2")
    what = "An intent of an earlier boot is open, and its orphan not due yet."
    yield sound("orphan-not-due", what, story)
    story = Story().ready()
    story.intent("op-1")
    story.wait(600)
    story.refused("op-2")
    what = "An intent of the last boot is open where the log ends."
    yield sound("intent-open-at-end", what, story)
    story = Story().ready()
    story.intent("op-1")
    story.restart("boot-2", open_intents=1)
    story.restart("boot-3", open_intents=1)
    story.orphan("op-1")
    yield sound("two-crashes", "Two starts, the first of which closed nothing.", story)
    story = Story().ready()
    story.put("clock.step", behind_us=2_500_000)
    for number in range(3):
        story.now_us -= 1_000
        story.refused(f"op-{number}")
    yield sound("clock-step", "The clock went back; time stands still.", story)


def _calls() -> Iterator[Case]:
    story = Story().ready()
    story.intent("op-1")
    story.not_sent("op-1")
    story.call("op-1")
    yield sound("not-sent-again", "A call that was not sent is sent again.", story)
    story = Story().ready()
    for status, delivery in (("tool_error", "sent"), ("withheld", "sent"), ("failed", "unknown")):
        story.intent(f"op-{status}")
        story.outcome(f"op-{status}", status=status, delivery=delivery, result=...)
    story.put("shutdown")
    yield sound("outcomes", "Outcomes of every status.", story)
    story = Story().ready()
    story.refused("op-1", count=4711, reason="unauthenticated")
    story.refused("op-2", stage="decide", reason="policy", policy={"rev": "rev-1"})
    yield sound("refusals", "A summary of refusals, and one by policy.", story)
    story = Story().ready()
    story.activate("rev-2")
    story.intent("op-1")
    story.intent("op-2", policy={"rev": "rev-2"})
    story.outcome("op-2")
    story.outcome("op-1")
    yield sound("two-policies", "A call under the policy before, while another is active.", story)
    story = Story().ready()
    story.refused("op-1", event="e-1")
    story.refused("op-2", event="e-2")
    yield sound("events", "Two records of two events.", story)


def _authority() -> Iterator[Case]:
    story = Story().ready()
    story.wait(TTL_S + 30)
    story.call("op-1")
    yield sound("token-grace", "A call half a minute after its token ended: clocks differ.", story)
    story = Story().ready()
    story.intent("op-1")
    story.put("token.revoke", reason="killed", jti="t1")
    story.put("run.end", agent="bot", client="desk", run="run-1", root="t1")
    story.outcome("op-1")
    yield sound("revoked-under-way", "A token is revoked and its run ends during a call.", story)
    story = Story().ready()
    story.put("token.revoke", reason="killed", root="t1")
    story.intent("op-1")
    story.not_sent("op-1")
    story.put("run.end", agent="bot", client="desk", run="run-1", root="t1")
    story.intent("op-2")
    story.not_sent("op-2")
    yield sound("revoked-not-sent", "Calls after a revocation that were not sent.", story)
    story = Story().ready()
    story.token("t2", run="run-2", agent="other-bot")
    story.put("token.revoke", reason="killed", jti="t1", run="run-1", agent="bot")
    story.call("op-1", jti="t2")
    yield sound("revoked-other", "A call of another agent than the one revoked.", story)
    story = Story().ready()
    story.put("token.revoke", reason="killed", agent="bot", client="desk")
    story.token("t2", run="run-2")
    story.call("op-1", jti="t2")
    what = "An agent was revoked and let in again: the new token is good."
    yield sound("revoked-before", what, story)
    allowed: list[tuple[str, Any]] = [
        ("any", [{"server": "*", "tool": "*"}]),
        ("named", [{"server": "erp", "tool": "*"}, {"server": "crm", "tool": "update"}]),
        ("effects", [{"server": "crm", "tool": "*", "effects": ["read", "update"]}]),
        ("left-out", ...),
    ]
    for name, allow in allowed:
        story = Story().ready(allow=allow, scopes=["tools:list", "tools:call"])
        story.call("op-1")
        yield sound(f"allow-{name}", f"A token whose reach is told otherwise: {name}.", story)
    story = Story().ready()
    create = {"agent": "bot", "client": "desk", "run": "run-3", "root": "run-3"}
    run = {"deadline": 1_700_009_000, "origin": "launch", "grants": "sha256:3"}
    story.put("run.create", **create, **run, decision=PERMIT, policy={"rev": "rev-1"})
    story.token("t3", run="run-3")
    story.call("op-1", jti="t3")
    story.put("run.end", **create)
    story.put("run.refused", agent="bot", reason="policy", policy={"rev": "rev-1"})
    story.put("token.refused", agent="bot", reason="run_over")
    yield sound("run", "A run from its beginning to its end.", story)


def _held_ends() -> Iterator[Case]:
    for kind in ("deny", "expire", "cancel"):
        story = asked()
        if kind == "deny":
            story.vote("ap-1", "alice", decision="deny")
        story.state(kind, "ap-1")
        yield sound(f"held-{kind}", f"A held call that ends with approval.{kind}.", story)
    for kind in ("expire", "cancel", "stale"):
        story = granted()
        story.state(kind, "ap-1")
        yield sound(f"granted-{kind}", f"A granted call that ends with approval.{kind}.", story)
    yield sound("held-pending", "A held call that nobody decided yet.", asked())
    story = granted()
    story.held_intent("ap-1")
    story.outcome("op-1", status="failed", delivery="unknown", result=...)
    story.state("unknown", "ap-1")
    story.state("resolve", "ap-1")
    yield sound("held-unknown", "A granted call ends unknown, and a human resolves it.", story)
    story = granted()
    story.held_intent("ap-1")
    story.seal()
    story.restart("boot-2", open_intents=1)
    story.orphan("op-1", approval="ap-1")
    story.state("unknown", "ap-1")
    story.state("resolve", "ap-1")
    yield sound("held-orphan", "A granted call becomes an orphan, and a human resolves it.", story)


def _held_calls() -> Iterator[Case]:
    story = granted()
    story.held_intent("ap-1")
    story.outcome("op-1")
    story.put("shutdown")
    yield sound("held-executed", "A held call that is granted and goes out.", story)
    story = granted()
    story.held_intent("ap-1")
    story.not_sent("op-1")
    story.held_intent("ap-1")
    story.outcome("op-1")
    yield sound("held-again", "A granted call that was not sent goes out after all.", story)
    story = granted()
    story.held_intent("ap-1")
    story.not_sent("op-1")
    story.state("stale", "ap-1")
    yield sound("held-not-sent-stale", "A granted call that was not sent becomes stale.", story)
    story = granted()
    story.wait(HELD_S - 60)
    story.held_intent("ap-1")
    story.outcome("op-1")
    what = "A granted call goes out long after the token that asked ended."
    yield sound("held-token-ended", what, story)
    story = granted()
    story.wait(HELD_S + 30)
    story.held_intent("ap-1")
    story.outcome("op-1")
    what = "A granted call goes out half a minute after the request's time: clocks differ."
    yield sound("held-grace", what, story)


def _votes() -> Iterator[Case]:
    story = asked(quorum=3)
    story.vote("ap-1", "alice")
    story.vote("ap-1", "bob")
    story.vote("ap-1", "carol", stage=2)
    story.state("grant", "ap-1")
    yield sound("two-stages", "Two stages, and three people who vote.", story)
    story = asked(quorum=2)
    story.vote("ap-1", "alice")
    story.vote("ap-1", "bob", decision="deny")
    story.vote("ap-1", "carol")
    story.state("grant", "ap-1")
    yield sound("vote-against", "A grant with enough votes for it and one against.", story)
    story = asked()
    story.vote("ap-1", "alice", at=story.requests["ap-1"]["expires"])
    story.state("grant", "ap-1", at=story.requests["ap-1"]["expires"])
    yield sound("vote-in-time", "A vote and a grant in the last second.", story)
    story = asked()
    story.request("ap-2", op="op-2", tool=READ_TOOL)
    story.vote("ap-2", "alice")
    story.vote("ap-1", "alice")
    story.state("grant", "ap-1")
    story.state("grant", "ap-2")
    story.held_intent("ap-2", tool=READ_TOOL)
    story.held_intent("ap-1")
    story.outcome("op-1")
    story.outcome("op-2")
    yield sound("two-approvals", "Two held calls at one time.", story)


def _keys() -> Iterator[Case]:
    yield sound("epochs", "Three epochs; the first key is pinned.", rotated().files())
    for epoch in (1, 2):
        later = (EPOCHS[epoch].vkey,)
        what = "Three epochs; a later key is pinned."
        yield sound(f"epochs-pinned-{epoch}", what, rotated().files(), keys=later)
    keys = (STRANGER.vkey, EPOCHS[0].vkey)
    what = "Of two pinned keys one is of the log."
    yield sound("two-pinned", what, plain().files(), keys=keys)
    yield sound("unpinned", "No key is pinned.", plain().files(), keys=())
    what = "A pinned key is required, and there is one."
    yield sound("required-key", what, plain().files(), require=("key",))
    what = "A pinned key is required, and there is none."
    files = plain().files()
    yield sound("required-key-missing", what, files, keys=(), require=("key",), exit=3)
    story = Story().ready()
    story.restart("boot-2", seal=False)
    story.rotate(why="command")
    story.restart("boot-3")
    story.refused("op-1")
    yield sound("rotate-restart", "A rotation, and starts before and after it.", story)


def _known() -> Iterator[Case]:
    notes = plain().notes
    known: tuple[str, ...] = (notes[0], notes[5], notes[-1])
    what = "Checkpoints from elsewhere, of the first and the last batch and between."
    yield sound("known", what, plain().files(), known=known)
    what = "Checkpoints of every epoch from elsewhere."
    known = tuple(rotated().notes)
    yield sound("known-epochs", what, rotated().files(), known=known)
    story = witnessed()
    text = story.notes[1].split("\n\n")[0] + "\n"
    cosigned = f"{story.notes[1]}— {WITNESS.cosign(text, 1_700_000_060)}\n"
    what = "A checkpoint from elsewhere bears a witness's cosignature too."
    yield sound("known-cosigned", what, story.files(), known=(cosigned,))
    files = story.files() | {"witness/checkpoint": cosigned.encode()}
    witnesses = (WITNESS.vkey,)
    what = "Witnessed checkpoints, and the witness is known."
    yield sound("witnessed", what, files, witnesses=witnesses)
    yield sound("witnessed-unknown", "Witnessed checkpoints; no witness is known.", files)
    draft = Draft(plain().files())
    draft.cut(draft.after(12) + 1)
    before = draft.files() | {"checkpoint": draft.lines[-1].note.encode()}
    what = "The log has grown since the same reader last read it."
    yield sound("seen-grown", what, plain().files(), before=before)
    what = "The log is as it was when the same reader last read it."
    yield sound("seen-same", what, plain().files(), before=plain().files())


def _tiles() -> Iterator[Case]:
    files = plain().files(tiles=True)
    (tile,) = (name for name in files if name.startswith("tile/0/"))
    for name, data in (
        ("short", files[tile][:-32]),
        ("torn", files[tile][:-7]),
        ("zeroed", files[tile][:-64] + bytes(64)),
        ("empty", b""),
    ):
        what = f"The partial tile of level 0 is {name}, as a power failure can leave it."
        yield sound(f"tile-{name}", what, files | {tile: data})
    files = plain().files(tiles=True)
    yield sound("tiles", "A partial tile.", files)
    hashes = files["tile/0/000.p/22"]
    older = files | {"tile/0/000.p/13": hashes[: 13 * 32]}
    yield sound("tiles-older", "A narrower partial tile stands beside the wider one.", older)
    del older["tile/0/000.p/22"]
    yield sound("tiles-behind", "The only tile lies behind the log.", older)
    story = Story().start()
    while story.size < 300:
        story.put("x.tick")
    yield sound("tiles-full", "A full tile of level 0 and a partial one of level 1.", _tiled(story))


def _tiled(story: Story) -> Files:
    story.seal()
    return story.files(tiles=True)


def _others() -> Iterator[Case]:
    story = Story().ready()
    story.hold("set", "h-1", "subject-1", ["dpo", "counsel"])
    story.redact("subject-2")
    story.hold("release", "h-1", "subject-1", ["counsel", "dpo"])
    story.redact("subject-1")
    yield sound("hold", "A legal hold, its release, and erasures that it does not stop.", story)
    story = Story().ready()
    story.hold("set", "h-1", "*", ["dpo", "counsel", "auditor"])
    yield sound("hold-everyone", "A legal hold on everyone, by three persons.", story)
    story = Story().ready()
    spans = {"records": 3, "first": 0, "last": 2}
    story.put("audit.read", what="query", purpose={"bytes": 3, "c": "A" * 43}, **spans)
    story.put("audit.export", format="csv", digest="sha256:1", **spans)
    story.put("config.change", setting="a", before="sha256:1", after="sha256:2")
    yield sound("reading", "Reading, an export and a changed setting.", story)
    files = plain().files() | {
        "00000000000000000000.jsonl.torn": b'{"boot":"boo',
        "00000000000000000000.jsonl.torn.2": b"\0\0",
        "reserve": b"\0" * 64,
        "openings/00000000000000000000.jsonl": b'{"boot":"boot-1","ct":"AA=="}\n',
        "notes.jsonl": b"no segment\n",
        "7.jsonl": b"no segment\n",
    }
    yield sound("other-files", "Files beside the segments that are no part of the log.", files)
    files = plain().files() | {"log.vkey": f"{STRANGER.vkey}\n".encode()}
    what = "`log.vkey` names a stranger's key; it is no anchor of trust and judged by nobody."
    yield sound("log-vkey", what, files)


def _beyond() -> Iterator[Case]:
    draft = Draft(plain().files(copy=False))
    draft.cut(draft.after(12) + 1)
    what = (
        "Whole batches are gone at the end, and the reader has no checkpoint from elsewhere: "
        "this cannot be found (§10), which is why checkpoints are kept elsewhere."
    )
    yield sound("cut-unknown", what, draft.files())
    draft = Draft(plain().files(copy=False)).edit(7, surface="rest").relink(key=EPOCHS[0])
    what = (
        "All was written again by one who has the log's key, and the reader has no checkpoint "
        "from elsewhere: this cannot be found (§10)."
    )
    yield sound("rewritten-unknown", what, draft.files())
