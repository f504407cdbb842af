"""A bundle that takes too long to load is told with what to do about it."""

from __future__ import annotations

import pytest

from gateway.adapters.policy.policy_bundle import build_bundle
from gateway.adapters.policy.policy_sample import build_sample
from gateway.adapters.regorus import regorus_nursery
from gateway.adapters.regorus.regorus_fleet import load_command
from gateway.adapters.regorus.regorus_nursery import Nursery
from gateway.adapters.regorus.regorus_template import Seed, Template
from gateway.core.errors import PolicyError

pytestmark = [pytest.mark.req("POL-04"), pytest.mark.usefixtures("real_seeds")]

ENDLESS = """package policies.endless

deny contains {"code": "never"} if {
	xs := numbers.range(1, 5000)
	some a in xs
	some b in xs
	some c in xs
	a + b + c == 0
}
"""


class Hasty(Seed):
    """A seed whose templates have little time, once they are there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._patch = patch

    async def fork(self) -> Nursery:
        nursery = await super().fork()
        self._patch.setattr(regorus_nursery, "LOAD_DEADLINE_S", 0.2)
        return nursery


async def test_policies_that_take_too_long_to_load_are_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = Hasty(monkeypatch)
    samples = [build_sample("call").decode()]
    load = load_command(build_bundle({"endless.rego": ENDLESS}, {}), tag=1, samples=samples)
    template = Template(seed, load)
    try:
        with pytest.raises(PolicyError) as raised:
            await template.open()
        assert template.pids == []
    finally:
        await template.aclose()
        await seed.aclose()
    said = str(raised.value)
    assert said.startswith("a policy worker could not load the bundle: its policies gave no answer")
    assert "take out what was changed last, or let `opa eval --profile" in said
