from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.keys.compact_jws import read_public_key
from gateway.adapters.keys.dpop_replay import MemoryUsedProofs
from gateway.adapters.keys.jose_dpop import KEYS_MAX, JoseProofs
from gateway.core.errors import CredentialError
from gateway.core.oauth.dpop import (
    PROOF_MAX_BYTES,
    SKEW_S,
    Possession,
    find_misfit,
    hash_token,
    is_timely,
)
from gateway.core.oauth.dpop_nonce import STEP_S, Nonces
from gateway.core.proofs.possession import ProofDesk
from gateway.core.refusal import Refusal
from tests.unit.tokens.proofs import Holder, encode

pytestmark = pytest.mark.req("TOK-05")

NOW_S = 1_800_000_000
URL = "https://gw.example"
TOKEN = b"an.access.token"
HOLDER = Holder()

# RFC 9449, figures 2 and 13, with the key of figure 8 and the token of figure 12.
RFC_HEAD = (
    b"eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoU"
    b"klDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWcl"
    b"UwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19."
)
RFC_FIGURE_2 = RFC_HEAD + (
    b"eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY"
    b"29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXi"
    b"OSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_FIGURE_13 = RFC_HEAD + (
    b"eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlL"
    b"m9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMH"
    b"hXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmc"
    b"w6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_TOKEN = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
RFC_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def build_desk(
    *, limit: int = 100, nonces: Nonces | None = None, up_s: int | None = None
) -> ProofDesk:
    return ProofDesk(
        reader=JoseProofs(),
        used=MemoryUsedProofs(limit),
        public_url=URL,
        nonces=nonces,
        up_s=None if up_s is None else lambda: up_s,
    )


def show(proof: bytes | None, method: str = "POST", path: str = "/mcp") -> Possession:
    return Possession(proof=proof, method=method, path=path)


def prove(**claims: Any) -> bytes:  # noqa: ANN401 - JSON
    return HOLDER.prove("POST", URL + "/mcp", NOW_S, token=TOKEN, **claims)


PROOF = prove()


def code_of(answer: str | Refusal) -> str:
    return answer.code if isinstance(answer, Refusal) else "accepted"


def check(desk: ProofDesk, shown: Possession, now_s: int = NOW_S) -> str:
    return code_of(desk.check(shown, now_s, token=TOKEN, jkt=HOLDER.jkt))


def test_the_token_request_of_rfc_9449_is_read() -> None:
    proof = JoseProofs().read(RFC_FIGURE_2)
    assert (proof.jkt, proof.claims.jti) == (RFC_JKT, "-BwC3ESc6acc2lTc")
    url = "https://server.example.com/token"
    assert find_misfit(proof.claims, method="POST", url=url, token=None) is None
    assert is_timely(proof.claims, 1_562_262_616)


def test_the_resource_request_of_rfc_9449_fits_its_token_and_no_other() -> None:
    claims = JoseProofs().read(RFC_FIGURE_13).claims
    url = "https://resource.example.org/protectedresource"
    assert hash_token(RFC_TOKEN) == claims.ath
    assert find_misfit(claims, method="GET", url=url, token=RFC_TOKEN) is None
    assert "ath" in str(find_misfit(claims, method="GET", url=url, token=RFC_TOKEN + b"x"))


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
def test_an_ed25519_key_proves_under_either_name_of_its_algorithm(algorithm: str) -> None:
    holder = Holder(Ed25519PrivateKey.generate(), algorithm)
    proof = holder.prove("POST", URL + "/mcp", NOW_S, token=TOKEN)
    answer = build_desk().check(show(proof), NOW_S, token=TOKEN, jkt=holder.jkt)
    assert answer == holder.jkt


def test_a_proof_counts_once() -> None:
    desk, proof = build_desk(), prove()
    assert check(desk, show(proof)) == "accepted"
    assert check(desk, show(proof)) == "proof_replayed"


def test_looking_twice_at_one_request_is_no_replay() -> None:
    desk, shown = build_desk(), show(prove())
    assert [check(desk, shown) for _ in range(3)] == ["accepted"] * 3


def test_a_jti_may_not_come_back_in_a_new_proof() -> None:
    desk = build_desk()
    assert check(desk, show(prove(jti="same"))) == "accepted"
    assert check(desk, show(prove(jti="same", iat=NOW_S + 45))) == "proof_replayed"


def test_two_keys_may_choose_the_same_jti() -> None:
    desk, other = build_desk(), Holder()
    proof = other.prove("POST", URL + "/mcp", NOW_S, token=TOKEN, jti="same")
    assert check(desk, show(prove(jti="same"))) == "accepted"
    assert desk.check(show(proof), NOW_S, token=TOKEN, jkt=other.jkt) == other.jkt


@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "GET"},
        {"htm": "post"},
        {"htu": URL + "/mcp/billing"},
        {"htu": "https://other.example/mcp"},
        {"htu": "http://gw.example/mcp"},
        {"htu": "https://gw.example:444/mcp"},
        {"htu": "https://u@gw.example/mcp"},
        {"htu": "/mcp"},
        {"htu": ""},
        {"ath": hash_token(b"another.access.token")},
        {"ath": None},
        {"ath": "\udcff"},
        {"jti": ""},
        {"jti": "j" * 257},
        {"jti": None},
        {"jti": 7},
        {"htm": None},
        {"htu": None},
        {"iat": None},
        {"iat": "now"},
        {"iat": True},
        {"iat": NOW_S - SKEW_S - 1},
        {"iat": NOW_S + SKEW_S + 1},
        {"iat": 1e300},
        {"iat": -1},
    ],
)
def test_a_proof_of_something_else_is_refused(changes: dict[str, object]) -> None:
    assert check(build_desk(), show(prove(**changes))) == "proof_invalid"


@pytest.mark.parametrize("iat", [NOW_S - SKEW_S, NOW_S + SKEW_S, NOW_S + 0.5])
def test_a_clock_may_be_a_minute_off(iat: float) -> None:
    assert check(build_desk(), show(prove(iat=iat))) == "accepted"


def test_a_stolen_token_is_no_use_without_its_key() -> None:
    thief = Holder()
    proof = thief.prove("POST", URL + "/mcp", NOW_S, token=TOKEN)
    answer = build_desk().check(show(proof), NOW_S, token=TOKEN, jkt=HOLDER.jkt)
    assert isinstance(answer, Refusal)
    assert (answer.code, "another key" in answer.detail) == ("proof_invalid", True)


def test_no_proof_is_told_as_missing() -> None:
    assert check(build_desk(), show(None)) == "proof_missing"


def none_algorithm() -> bytes:
    head, payload, _ = prove(header=HOLDER.header(alg="none")).split(b".")
    return head + b"." + payload + b"."


def hs256() -> bytes:
    key = json.dumps(HOLDER.public()).encode()
    head, payload, _ = prove(header=HOLDER.header(alg="HS256")).split(b".")
    tag = hmac.digest(key, head + b"." + payload, "sha256")
    return head + b"." + payload + b"." + encode(tag)


def private_key() -> bytes:
    return prove(header=HOLDER.header(jwk=HOLDER.jwk.as_dict(private=True)))


def symmetric_key() -> bytes:
    return prove(header=HOLDER.header(jwk={"kty": "oct", "k": "AAAA"}))


def other_curve() -> bytes:
    jwk = Holder(generate_private_key(SECP384R1())).jwk.as_dict(private=False)
    return prove(header=HOLDER.header(jwk=jwk))


def rsa_key() -> bytes:
    holder = Holder(generate_rsa(65_537, 2_048), "RS256")
    return holder.prove("POST", URL + "/mcp", NOW_S, token=TOKEN)


def agreement_key() -> bytes:
    return prove(header=HOLDER.header(jwk={"kty": "OKP", "crv": "X25519", "x": "A" * 43}))


def no_point() -> bytes:
    x = base64.urlsafe_b64encode(b"\1" * 32).rstrip(b"=").decode()
    return prove(header=HOLDER.header(jwk={**HOLDER.public(), "x": x}))


def padded_number() -> bytes:
    return prove(header=HOLDER.header(jwk={**HOLDER.public(), "x": HOLDER.public()["x"] + "="}))


def short_number() -> bytes:
    return prove(header=HOLDER.header(jwk={**HOLDER.public(), "x": "AAAA"}))


def altered_signature() -> bytes:
    head, payload, signature = prove().split(b".")
    raw = bytearray(base64.urlsafe_b64decode(signature + b"=="))
    raw[5] ^= 1
    return head + b"." + payload + b"." + encode(bytes(raw))


def long_signature() -> bytes:
    head, payload, signature = prove().split(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    return head + b"." + payload + b"." + encode(raw + b"\0")


def other_payload() -> bytes:
    head, _, signature = prove().split(b".")
    return head + b"." + prove().split(b".")[1] + b"." + signature


BAD: list[Callable[[], bytes]] = [
    none_algorithm,
    hs256,
    private_key,
    symmetric_key,
    other_curve,
    rsa_key,
    agreement_key,
    no_point,
    padded_number,
    short_number,
    altered_signature,
    long_signature,
    other_payload,
    lambda: prove(header=HOLDER.header(alg="EdDSA")),
    lambda: prove(header=HOLDER.header(alg=None)),
    lambda: prove(header=HOLDER.header(typ="JWT")),
    lambda: prove(header=HOLDER.header(typ=None)),
    lambda: prove(header=HOLDER.header(crit=["b64"], b64=False)),
    lambda: prove(header=HOLDER.header(jwk=None, jku="https://evil.example/keys")),
    lambda: prove(header=HOLDER.header(jwk=None, kid=HOLDER.jkt)),
    lambda: prove(header=HOLDER.header(jwk="no object")),
    lambda: prove(header=HOLDER.header(jwk={"kty": 7})),
    lambda: prove() + b", " + prove(),
    lambda: prove() + b"=",
    lambda: prove(extra="x" * PROOF_MAX_BYTES),
    lambda: HOLDER.sign(HOLDER.header(), b"not json"),
    lambda: HOLDER.sign(HOLDER.header(), b'"\xff"'),
    lambda: b"!" + prove(),
    lambda: b"..",
    lambda: b"",
    lambda: b"a.b.c.d.e",
    lambda: b"\xff\xfe.\xff.\xff",
]


@pytest.mark.parametrize("build", BAD)
def test_what_is_no_good_proof_by_itself_is_refused(build: Callable[[], bytes]) -> None:
    reader = JoseProofs()
    with pytest.raises(CredentialError) as refused:
        reader.read(build())
    assert refused.value.code == "proof_invalid"


def test_a_header_that_is_known_does_not_spare_the_signature() -> None:
    reader = JoseProofs()
    reader.read(prove())
    with pytest.raises(CredentialError):
        reader.read(altered_signature())


def test_only_so_many_keys_are_remembered() -> None:
    reader = JoseProofs()
    key = read_public_key(HOLDER.public())
    assert key is not None
    reader._keys = dict.fromkeys((b"%d" % n for n in range(KEYS_MAX)), key)  # noqa: SLF001 - filled
    reader.read(prove())
    assert len(reader._keys) == KEYS_MAX  # noqa: SLF001 - its bound
    assert b"0" not in reader._keys  # noqa: SLF001 - as above


def test_other_members_of_a_public_key_do_not_change_its_name() -> None:
    plain = read_public_key(HOLDER.public())
    named = read_public_key({**HOLDER.public(), "kid": "k1", "use": "sig", "x5t": "?"})
    assert plain is not None
    assert named is not None
    assert plain.thumbprint == named.thumbprint == HOLDER.jkt


@pytest.mark.parametrize("bits", [1_024, 2_048])
def test_an_rsa_key_needs_2048_bits(bits: int) -> None:
    # made by hand: key makers refuse such short ones themselves
    number = (1 << (bits - 1)) + 1
    jwk = {"kty": "RSA", "n": encode(number.to_bytes(bits // 8)).decode(), "e": "AQAB"}
    assert (read_public_key(jwk) is not None) == (bits == 2_048)


def test_without_a_nonce_of_ours_the_caller_is_given_one() -> None:
    desk = build_desk(nonces=Nonces(b"s" * 32))
    shown = show(prove())
    assert check(desk, shown) == "proof_nonce"
    assert shown.next_nonce is not None
    again = show(prove(nonce=shown.next_nonce))
    assert check(desk, again) == "accepted"
    assert again.next_nonce is None


@pytest.mark.parametrize("nonce", ["made up", "", "\udcff", "é", Nonces(b"t" * 32).current(NOW_S)])
def test_a_nonce_of_somebody_else_is_refused(nonce: str) -> None:
    desk = build_desk(nonces=Nonces(b"s" * 32))
    assert check(desk, show(prove(nonce=nonce))) in {"proof_nonce", "proof_invalid"}


def test_a_nonce_is_replaced_before_it_ends() -> None:
    nonces = Nonces(b"s" * 32)
    desk, nonce = build_desk(nonces=nonces), nonces.current(NOW_S)
    later_s = NOW_S + STEP_S
    shown = show(prove(nonce=nonce, iat=later_s))
    assert check(desk, shown, later_s) == "accepted"
    assert shown.next_nonce == nonces.current(later_s) != nonce
    much_later_s = NOW_S + 2 * STEP_S
    assert check(desk, show(prove(nonce=nonce, iat=much_later_s)), much_later_s) == "proof_nonce"


def test_a_nonce_says_nothing_of_its_secret_and_differs_by_process() -> None:
    first, second = Nonces(b"a" * 32).current(NOW_S), Nonces(b"b" * 32).current(NOW_S)
    assert len(first) == len(second) == 22
    assert first != second


def test_a_restarted_gateway_does_not_take_an_old_proof_again() -> None:
    nonces = Nonces(b"a" * 32)
    proof = prove(nonce=nonces.current(NOW_S))
    assert check(build_desk(nonces=nonces), show(proof)) == "accepted"
    assert check(build_desk(nonces=Nonces(b"b" * 32)), show(proof)) == "proof_nonce"


def test_without_nonces_what_is_older_than_the_process_is_refused() -> None:
    desk = build_desk(up_s=10)
    assert check(desk, show(prove(iat=NOW_S - 11))) == "proof_invalid"
    assert check(desk, show(prove(iat=NOW_S - 10))) == "accepted"


def test_without_nonces_a_clock_that_was_set_back_refuses_no_proof_of_now() -> None:
    desk, earlier_s = build_desk(up_s=10), NOW_S - 86_400
    assert check(desk, show(prove(iat=earlier_s)), earlier_s) == "accepted"
    assert check(desk, show(prove(iat=earlier_s - 11)), earlier_s) == "proof_invalid"


def test_a_full_memory_refuses_new_proofs_and_forgets_no_live_one() -> None:
    desk, first = build_desk(limit=2), prove()
    assert check(desk, show(first)) == "accepted"
    assert check(desk, show(prove())) == "accepted"
    assert check(desk, show(prove())) == "proof_overloaded"
    assert check(desk, show(first)) == "proof_replayed"
    later_s = NOW_S + SKEW_S + 30
    assert check(desk, show(prove(iat=later_s)), later_s) == "accepted"


def test_a_proof_is_remembered_for_as_long_as_it_could_be_used() -> None:
    used = MemoryUsedProofs()
    assert used.remember(b"n", NOW_S + SKEW_S, NOW_S) == "new"
    assert used.remember(b"n", NOW_S + SKEW_S, NOW_S + SKEW_S) == "seen"


def test_a_refused_proof_takes_no_room() -> None:
    desk = build_desk(limit=1)
    for _ in range(5):
        assert check(desk, show(prove(htm="GET"))) == "proof_invalid"
    assert check(desk, show(prove())) == "accepted"


@given(st.data())
def test_no_other_bytes_than_those_signed_are_a_proof(data: st.DataObject) -> None:
    proof = PROOF
    place = data.draw(st.integers(0, len(proof) - 1))
    other = data.draw(st.binary(max_size=2).filter(lambda some: some != proof[place : place + 1]))
    with pytest.raises(CredentialError):
        JoseProofs().read(proof[:place] + other + proof[place + 1 :])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 90)), max_size=40))
def test_nothing_that_could_be_used_again_is_ever_forgotten(
    uses: list[tuple[int, int]],
) -> None:
    used, live, now_s = MemoryUsedProofs(limit=4), dict[bytes, int](), NOW_S
    for name, pause in uses:
        now_s += pause
        key, until_s = b"%d" % name, now_s + SKEW_S
        answer = used.remember(key, until_s, now_s)
        if live.get(key, 0) >= now_s:
            assert answer == "seen"
        elif answer == "new":
            live[key] = until_s
