"""Releases: policies that decide though two publishers had not signed them, and honest rows."""

# ruff: noqa: ANN401 - `over` takes the members of any statement, whatever they are

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.conformance.audit.case import Case
from tests.conformance.audit.rules_calls import breach
from tests.conformance.audit.stories import Story
from tests.conformance.audit.valid import sound
from tests.conformance.audit.writer import ORIGIN, Record, encode

ENVIRONMENT: Final = "prod"
FIRST: Final = f"sha256:{'1' * 64}"
SECOND: Final = f"sha256:{'2' * 64}"


class Publisher:
    """A publisher whose key comes from their name, so that every run has the same one."""

    def __init__(self, name: str, *, person: str | None = None, p256: bool = False) -> None:
        seed = hashlib.sha256(f"countersign publisher {name}".encode()).digest()
        self.private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey
        if p256:
            self.private = ec.derive_private_key(int.from_bytes(seed[:30]), ec.SECP256R1())
        else:
            self.private = Ed25519PrivateKey.from_private_bytes(seed)
        encoded = self.private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        self.alg = "ES256" if p256 else "EdDSA"
        self.key = base64.b64encode(encoded).decode()
        self.kid = f"kid-of-{name}"
        self.person = hashlib.sha256((person or name).encode()).hexdigest()[:32]

    def named(self) -> Record:
        """Return what `policy.trust` says of them."""
        return {"kid": self.kid, "alg": self.alg, "key": self.key, "person": self.person}

    def sign(self, said: Record, **header: Any) -> str:
        """Return a statement as a JWT; `header` takes the place of its members."""
        names = {"alg": self.alg, "kid": self.kid, "typ": "countersign-release+jwt"} | header
        message = f"{_b64(encode(names))}.{_b64(encode(said))}"
        return f"{message}.{_b64(self._signature(message.encode()))}"

    def _signature(self, message: bytes) -> bytes:
        if isinstance(self.private, Ed25519PrivateKey):
            return self.private.sign(message)
        algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self.private.sign(message, algorithm))
        return r.to_bytes(32) + s.to_bytes(32)


PIA, PAUL = Publisher("pia"), Publisher("paul", p256=True)
AGAIN: Final = Publisher("pia's other key", person="pia")
STRANGER: Final = Publisher("stranger")
OTHER: Final = Publisher("other", p256=True)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def statement(release: str, number: int, /, **over: Any) -> Record:
    """Return what publishers say of a release."""
    said: Record = {
        "v": 1,
        "act": "publish",
        "env": ENVIRONMENT,
        "log": ORIGIN,
        "number": number,
        "prev": "",
        "rev": release,
        "shadow_s": 0,
    }
    return said | over


class Row(Story):
    """A log whose policies come as releases."""

    def trust(self, *publishers: Publisher, **over: Any) -> int:
        """Write `policy.trust`."""
        fields: Record = {
            "mode": "required",
            "environment": ENVIRONMENT,
            "rollback": "two",
            "publishers": [one.named() for one in publishers or (PIA, PAUL)],
        }
        return self.put("policy.trust", **(fields | over))

    def decide(
        self, release: str, number: int, tokens: dict[Publisher, str] | None = None, /, **over: Any
    ) -> int:
        """Write `policy.activate` of a release that Pia and Paul signed, unless told otherwise."""
        said = statement(release, number, **over)
        signed = {one: one.sign(said) for one in (PIA, PAUL)} if tokens is None else tokens
        return self.put(
            "policy.activate",
            rev=f"rev-{number}",
            packages=["crm"],
            release=release,
            number=number,
            kids=[one.kid for one in signed],
            statements=list(signed.values()),
        )

    def halt(self, number: int, release: str, back: tuple[str, int]) -> int:
        """Write `policy.halt`."""
        to = {"release": back[0], "number": back[1]}
        return self.put("policy.halt", release=release, number=number, back_to=to, why="denials")

    def withdraw(self, release: str, number: int, token: str, *, by: Publisher = PIA) -> int:
        """Write `policy.withdraw`, with the word of a publisher."""
        return self.put(
            "policy.withdraw",
            release=release,
            number=number,
            action="withdraw",
            shadow_s=0,
            kids=[by.kid],
            statements=[token],
            proposals=["op-1"],
        )

    def begin(self, *publishers: Publisher, **over: Any) -> Row:
        """Begin a log that says whose signatures count."""
        self.start()
        self.trust(*publishers, **over)
        return self


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _unsigned()
    yield from _forged()
    yield from _elsewhere()
    yield from _replayed()
    yield from _withdrawn()
    yield from _left()
    yield from _pinned()
    yield from _honest()
    yield from _honest_ways_back()


RULE: Final = "release_unsigned"


def _unsigned() -> Iterator[Case]:
    said = statement(FIRST, 1)
    alone = {PIA: PIA.sign(said)}
    for name, tokens, what in (
        ("none", {}, "No signature at all."),
        ("one", alone, "One publisher's signature."),
        ("stranger", alone | {STRANGER: STRANGER.sign(said)}, "The second one is a stranger's."),
    ):
        story = Row().begin()
        yield breach(RULE, name, what, story, story.decide(FIRST, 1, tokens))
    story = Row().begin()
    seq = story.activate()
    yield breach(RULE, "no-release", "Policies that are no release.", story, seq)
    story = Row().begin(PIA, AGAIN)
    tokens = {one: one.sign(said) for one in (PIA, AGAIN)}
    what = "One person signed twice, with two keys."
    yield breach(RULE, "one-person", what, story, story.decide(FIRST, 1, tokens))
    story = Row().begin()
    seq = story.put(
        "policy.activate",
        rev="rev-1",
        packages=["crm"],
        release=FIRST,
        number=1,
        kids=[PIA.kid, PIA.kid],
        statements=[PIA.sign(said)] * 2,
    )
    yield breach(RULE, "twice", "One signature stands there twice.", story, seq)


def _forged() -> Iterator[Case]:
    said = statement(FIRST, 1)
    good = {PIA: PIA.sign(said), PAUL: PAUL.sign(said)}
    head, payload, tail = good[PAUL].split(".")
    zeros = _b64(bytes(64))
    for name, token, what in (
        ("zeros", f"{head}.{payload}.{zeros}", "A signature of zeros."),
        ("empty", f"{head}.{payload}.", "A signature that is empty."),
        ("none-alg", PAUL.sign(said, alg="none"), "A signature whose algorithm is `none`."),
        ("hmac", PAUL.sign(said, alg="HS256"), "A signature that claims to be an HMAC."),
        ("typ", PAUL.sign(said, typ="JWT"), "A signature of another kind of statement."),
        ("kid", PAUL.sign(said, kid=PIA.kid), "A signature that names another key."),
        ("crit", PAUL.sign(said, crit=["b64"]), "A signature with a critical extension."),
        ("of-another", STRANGER.sign(said, kid=PAUL.kid), "A stranger's under Paul's name."),
        ("padded", f"{head}.{payload}.{tail}==", "A signature in another spelling."),
        ("p256", OTHER.sign(said, kid=PAUL.kid), "Of another P-256 key, under Paul's name."),
        ("word", "signed", "A word in the place of a signature."),
    ):
        story = Row().begin()
        seq = story.decide(FIRST, 1, good | {PAUL: token})
        yield breach(RULE, name, what, story, seq)
    head, _, tail = PIA.sign(statement(SECOND, 1)).split(".")
    moved = f"{head}.{_b64(encode(said))}.{tail}"
    for name, token, what in (
        ("ed25519-alg", PIA.sign(said, alg="HS256"), "An Ed25519 signature that says HMAC."),
        ("ed25519-moved", moved, "An Ed25519 signature of another release."),
    ):
        story = Row().begin()
        seq = story.decide(FIRST, 1, good | {PIA: token})
        yield breach(RULE, name, what, story, seq)
    twin = Publisher("pia", person="petra")
    twin.kid = "kid-of-petra"
    story = Row().begin(PIA, twin)
    seq = story.decide(FIRST, 1, {one: one.sign(said) for one in (PIA, twin)})
    yield breach(RULE, "one-key", "Two people signed with one key.", story, seq)


def _elsewhere() -> Iterator[Case]:
    for name, over, what in (
        ("environment", {"env": "dev"}, "A release that was signed for another environment."),
        ("log", {"log": "log.example.com/other"}, "A release that was signed for another log."),
        ("release", {"rev": SECOND}, "Signatures of another release."),
        ("number", {"number": 2}, "Signatures for another place in the row."),
    ):
        story = Row().begin()
        yield breach(RULE, name, what, story, story.decide(FIRST, 1, **over))
    story = Row().begin()
    tokens = {PIA: PIA.sign(statement(FIRST, 1)), PAUL: PAUL.sign(statement(FIRST, 1, shadow_s=60))}
    what = "Two publishers who said different things."
    yield breach(RULE, "two-statements", what, story, story.decide(FIRST, 1, tokens))
    for name, rollback, act in (
        ("rollback-two", "two", "rollback"),
        ("publish-one", "one", "publish"),
    ):
        story = Row().begin(rollback=rollback)
        story.decide(FIRST, 1)
        story.decide(SECOND, 2, prev=FIRST)
        alone = {PIA: PIA.sign(statement(FIRST, 3, act=act, prev=SECOND))}
        what = f"One signature for a `{act}` where `rollback: {rollback}` is set."
        yield breach(RULE, name, what, story, story.decide(FIRST, 3, alone))
    story = Row().begin(rollback="one")
    story.decide(FIRST, 1)
    alone = {PIA: PIA.sign(statement(SECOND, 2, act="rollback", prev=FIRST))}
    what = "One publisher goes back to what never decided."
    yield breach(RULE, "rollback-new", what, story, story.decide(SECOND, 2, alone))


def _replayed() -> Iterator[Case]:
    rule = "release_replayed"
    story = Row().begin()
    story.decide(FIRST, 1)
    story.decide(SECOND, 2)
    what = "The first release decides again, under its old signatures."
    yield breach(rule, "old", what, story, story.decide(FIRST, 1))
    story = Row().begin()
    story.decide(FIRST, 1)
    story.decide(SECOND, 2)
    story.restart("boot-2")
    story.trust()
    what = "After a restart an older release decides."
    yield breach(rule, "restart", what, story, story.decide(FIRST, 1))
    story = Row().begin()
    story.decide(FIRST, 1)
    what = "Another release takes the same place."
    yield breach(rule, "place", what, story, story.decide(SECOND, 1))
    story = Row().begin()
    story.decide(FIRST, 1)
    story.decide(SECOND, 2)
    story.halt(1, FIRST, (FIRST, 1))
    what = "An older release decides after the halt of one that did not decide."
    yield breach(rule, "other-halt", what, story, story.decide(FIRST, 1))
    story = Row().begin()
    story.decide(FIRST, 3)
    story.halt(3, FIRST, (SECOND, 2))
    what = "A halt leads back to a release that never decided."
    yield breach(rule, "halt-to-new", what, story, story.decide(SECOND, 2))


def _withdrawn() -> Iterator[Case]:
    rule = "release_withdrawn"
    taken_back = statement(FIRST, 1, act="withdraw")
    story = Row().begin()
    story.withdraw(FIRST, 1, PAUL.sign(taken_back), by=PAUL)
    what = "A release decides that a publisher had withdrawn."
    yield breach(rule, "decides", what, story, story.decide(FIRST, 1))
    story = Row().begin()
    again = PAUL.sign(taken_back | {"again": 1})
    story.withdraw(FIRST, 1, again, by=PAUL)
    what = "It was withdrawn twice, and decides as it was said the second time."
    yield breach(rule, "again", what, story, story.decide(FIRST, 1, again=1))
    for name, token, by, what in (
        ("stranger", STRANGER.sign(taken_back), STRANGER, "A stranger withdraws a proposal."),
        ("forged", PIA.sign(statement(FIRST, 1)), PIA, "A word of publishing as a withdrawal."),
        ("other", PIA.sign(statement(SECOND, 1, act="withdraw")), PIA, "Another one withdrawn."),
        ("env", PIA.sign(taken_back | {"env": "dev"}), PIA, "A withdrawal for another place."),
    ):
        story = Row().begin()
        yield breach(rule, name, what, story, story.withdraw(FIRST, 1, token, by=by))
    story = Row().begin()
    what = "Words of withdrawal, brought as signatures of a release."
    yield breach(RULE, "withdrawal", what, story, story.decide(FIRST, 1, act="withdraw"))
    story = Row().begin()
    story.withdraw(FIRST, 1, PIA.sign(taken_back))
    story.decide(FIRST, 1, again=1)
    what = "What was withdrawn was proposed anew, and decides."
    yield sound("release-withdrawn-anew", what, story)
    story = Row().begin()
    story.withdraw(FIRST, 1, PIA.sign(taken_back))
    story.decide(SECOND, 1)
    yield sound("release-withdrawn-other", "One was withdrawn, and another one decides.", story)


def _left() -> Iterator[Case]:
    story = Row().begin(rollback="one")
    story.decide(FIRST, 1)
    story.decide(SECOND, 2, prev=FIRST)
    story.decide(FIRST, 3, act="rollback", prev=SECOND)
    alone = {PIA: PIA.sign(statement(SECOND, 4, act="rollback", prev=FIRST))}
    what = "One publisher brings back what was gone back from."
    yield breach(RULE, "left", what, story, story.decide(SECOND, 4, alone))
    story = Row().begin(rollback="one")
    story.decide(FIRST, 1)
    story.decide(SECOND, 2, prev=FIRST)
    story.halt(2, SECOND, (FIRST, 1))
    story.decide(FIRST, 1)
    alone = {PIA: PIA.sign(statement(SECOND, 3, act="rollback", prev=FIRST))}
    what = "One publisher brings back what was halted."
    yield breach(RULE, "halted", what, story, story.decide(SECOND, 3, alone))
    story = Row().begin(rollback="one")
    story.decide(FIRST, 1)
    story.decide(SECOND, 2, prev=FIRST)
    story.decide(FIRST, 3, act="rollback", prev=SECOND)
    story.decide(SECOND, 4, act="rollback", prev=FIRST)
    story.decide(FIRST, 5, act="publish", prev=SECOND)
    alone = {PIA: PIA.sign(statement(SECOND, 6, act="rollback", prev=FIRST))}
    story.decide(SECOND, 6, alone)
    what = "Two brought it back first, so one may go back to it."
    yield sound("release-left-and-good", what, story)


def _pinned() -> Iterator[Case]:
    keys = (PIA.key, PAUL.key)
    story = Row().begin()
    story.decide(FIRST, 1)
    what = "The reader knows the publishers, and they signed."
    yield sound("release-pinned", what, story, publishers=keys)
    story = Row().begin(PIA, STRANGER)
    tokens = {one: one.sign(statement(FIRST, 1)) for one in (PIA, STRANGER)}
    seq = story.decide(FIRST, 1, tokens)
    what = "The log names a publisher whom the reader does not know."
    yield replace(breach(RULE, "unpinned", what, story, seq), publishers=keys)
    plain = Story().start()
    seq = plain.put("policy.activate", rev="rev-1", packages=["crm"], mode="off")
    what = "The reader knows publishers, and files decided."
    yield replace(breach(RULE, "off-pinned", what, plain, seq), publishers=keys)


def _honest() -> Iterator[Case]:
    story = Row().begin()
    story.decide(FIRST, 1)
    story.decide(SECOND, 2, prev=FIRST)
    story.restart("boot-2")
    story.trust()
    story.decide(SECOND, 2, prev=FIRST)
    yield sound("release-row", "Two releases and a restart, two signatures each.", story)
    story = Row().begin()
    story.decide(FIRST, 1)
    story.restart("boot-2")
    story.put("policy.activate", rev="rev-9", packages=["crm"], mode="dev")
    yield sound("release-dev", "A start in `dev` after releases: the log says so.", story)
    story = Row().begin()
    story.decide(FIRST, 1)
    story.decide(SECOND, 5, prev=FIRST)
    yield sound("release-gap", "Numbers may be left out: a release that never decided.", story)


def _honest_ways_back() -> Iterator[Case]:
    story = Row().begin()
    story.decide(FIRST, 1)
    story.decide(SECOND, 2, prev=FIRST)
    story.decide(FIRST, 3, act="rollback", prev=SECOND)
    yield sound("release-rollback", "Back to the first release, by two.", story)
    story = Row().begin(rollback="one")
    story.decide(FIRST, 1)
    story.decide(SECOND, 2, prev=FIRST)
    alone = {PAUL: PAUL.sign(statement(FIRST, 3, act="rollback", prev=SECOND))}
    story.decide(FIRST, 3, alone)
    yield sound("release-rollback-one", "Back by one publisher, as the log allows.", story)
    story = Row().begin()
    story.decide(FIRST, 1)
    story.decide(SECOND, 2, prev=FIRST)
    story.halt(2, SECOND, (FIRST, 1))
    story.restart("boot-2")
    story.trust()
    story.decide(FIRST, 1)
    story.restart("boot-3")
    story.trust()
    story.decide(FIRST, 1)
    yield sound("release-halt", "A release was halted, and the one before decides again.", story)
