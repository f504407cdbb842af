"""Functions added to the embedded engine, without OPA: what they refuse, and what needs no key."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import regorus

from gateway.adapters.regorus.engine_shims import ADDED, install_shims, prepare_shims
from gateway.adapters.regorus.shim_tokens import TokenError, decode

pytestmark = pytest.mark.req("POL-05")
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ.AQID"


def test_policies_call_them_and_clones_have_them() -> None:
    engine = regorus.Engine()
    install_shims(engine)
    clone = engine.clone()
    clone.add_policy("t.rego", 'package t\n\nx := [crypto.md5(""), io.jwt.decode(input.token)]\n')
    clone.set_input_json(json.dumps({"token": TOKEN}))
    digest, token = json.loads(clone.eval_rule_as_json("data.t.x"))
    assert digest == "d41d8cd98f00b204e9800998ecf8427e"
    assert token == [{"alg": "HS256"}, {"sub": "ana"}, "010203"]


def test_an_argument_of_a_wrong_type_is_an_error_that_denies() -> None:
    engine = regorus.Engine()
    install_shims(engine)
    engine.add_policy("t.rego", "package t\n\nx := crypto.sha256(1)\n")
    with pytest.raises(RuntimeError, match="a text is needed"):
        engine.eval_rule_as_json("data.t.x")


def test_what_is_no_token_says_nothing_of_it() -> None:
    for odd in ("canary", "canary.canary.", "eyJhIjoxfQ.canary!.", 7):
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - whatever it says
            decode(odd)
        assert "canary" not in str(raised.value)
    with pytest.raises(TokenError, match="three parts"):
        decode(".")


def test_a_worker_loads_no_cryptography_unless_a_policy_checks_signatures() -> None:
    code = (
        "import sys\n"
        "from gateway.adapters.regorus import regorus_worker\n"
        "from gateway.adapters.regorus.engine_shims import prepare_shims\n"
        "prepare_shims(['x := crypto.sha256(1)'])\n"
        "assert 'cryptography' not in sys.modules\n"
        "prepare_shims(['x := io.jwt.verify_es256(1, 2)'])\n"
        "assert 'cryptography' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    prepare_shims([])
    assert len(ADDED) == 22
