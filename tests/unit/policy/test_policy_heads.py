"""What the gate says of heads that may be undefined for one of several values.

That engines differ there is shown by `tests/integration/policy/test_random_policies.py`.
"""

from __future__ import annotations

import pytest

from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.core.errors import ConfigurationError

pytestmark = pytest.mark.req("POL-05")
EACH = "some item in input.context.args.items; item.kind == 1"
REFUSED = {
    f'deny contains {{"code": "large", "message": item.to}} if {{ {EACH} }}': "item.to",
    f'deny contains {{"code": "large", "of": [item.to.name]}} if {{ {EACH} }}': "item.to.name",
    f'hold contains {{"code": "large", "to": sprintf("%v", [item["to"]])}} if {{ {EACH} }}': (
        'item["to"]'
    ),
    "names contains input.names[i] if { some i; input.items[i] == 1 }": "input.names[i]",
    "names contains input.names[i] if { input.items[i] == 1 }": "input.names[i]",
    "names contains input.names[i] if input.phase": "input.names[i]",
    "names contains p.name if { item := input.items[_]; p := item }": "p.name",
    "names contains v.name if { walk(input.items, [_, v]) }": "v.name",
    "name[item.to] := 1 if { some item in input.items }": "item.to",
    "name[i] := item.to if { some i, item in input.items }": "item.to",
    "name := item.to if { some item in input.items }": "item.to",
    "names contains called(item) if { some item in input.items }\n\n"
    "called(item) := item.to": "called(item)",
    "names contains item.to if { some item in input.items; not item.to == 1 }": "item.to",
    "names contains item.to if { some item in input.items; [1 | item.to] == [] }": "item.to",
}
ACCEPTED = [
    f'deny contains {{"code": "large"}} if {{ {EACH} }}',
    f'deny contains {{"code": "large", "message": to}} if {{ {EACH}; to := item.to }}',
    f'deny contains {{"code": "large", "message": object.get(item, "to", "?")}} if {{ {EACH} }}',
    f'deny contains {{"code": "large", "message": sprintf("%v", [item.kind])}} if {{ {EACH} }}',
    f'deny contains {{"code": "large", "message": input.subject.id}} if {{ {EACH} }}',
    f'deny contains {{"code": "large", "all": [t | t := item.to]}} if {{ {EACH} }}',
    (
        "names contains called(item) if { some item in input.items }\n\n"
        'called(item) := to if { to := item.to } else := "?"'
    ),
    "names contains item.to if { item := input.context.args.item }",
    "names contains caps[kind] if { kind := input.context.args.kind }\n\ncaps := {1: 2}",
    "names contains item.to if { some item in input.items; startswith(item.to, `a`) }",
    "names contains item.to if { some item in input.items; item.to.name == 1 }",
    "names := [item.to | some item in input.items]",
    "first(items) := item.to if { some item in items }",
]


@pytest.mark.parametrize("rules", REFUSED)
def test_what_may_be_undefined_for_one_of_several_stands_in_no_head(rules: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        build_bundle({"t.rego": f"package policies.t\n\n{rules}\n"}, {})
    (fault,) = str(raised.value).splitlines()
    assert fault.startswith("t.rego:3:")
    assert f"`{REFUSED[rules]}` may be undefined for one of several" in fault
    assert f"bind it in the body, `x := {REFUSED[rules]}`" in fault


@pytest.mark.parametrize("rules", ACCEPTED)
def test_what_is_defined_for_each_may_stand_in_a_head(rules: str) -> None:
    build_bundle({"t.rego": f"package policies.t\n\n{rules}\n"}, {})
