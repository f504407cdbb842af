"""The policies and data of a run: one package beside the default pack's, and a company's grants."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.adapters.policy.policy_bundle import default_pack

DEFAULT_PACKAGES: Final = ("reads", "runs", "unreviewed")
"""Of the default pack all but `high_risk`, which would hold every refund for a human."""

REFUNDS: Final = """\
# METADATA
# title: Refunds, each agent to its own limit
# custom:
#   applies_to:
#     tools: [bench.refund]
#     phases: [list, call, resume]
package policies.refunds

permit contains {"code": "refund_offered"} if {
	input.phase == "list"
	"tools:list" in input.context.token.scopes
}

limits := data.grants[input.subject.id].refund

amount := input.context.args.amount_cents if {
	is_number(input.context.args.amount_cents)
	input.context.args.amount_cents > 0
}

permit contains {"code": "refund_within_limit"} if {
	input.phase in {"call", "resume"}
	"tools:call" in input.context.token.scopes
	input.context.args.currency in limits.currencies
	is_number(limits.max_cents)
	amount <= limits.max_cents
}

deny contains {"code": "refund_over_limit"} if {
	input.phase in {"call", "resume"}
	is_number(limits.max_cents)
	amount > limits.max_cents
}
"""


def build_data(agents: int) -> dict[str, Any]:
    """Return what a company of so many agents knows of them: about 0.7 KB for each."""
    return {"grants": {agent_name(number): _build_grants(number) for number in range(agents)}}


def agent_name(number: int) -> str:
    """Return the name of one agent."""
    return f"agent-{number:04d}"


def _build_grants(number: int) -> dict[str, Any]:
    return {
        "owner": f"team-{number % 37}@example.com",
        "cost_centre": f"cc-{number % 211:05d}",
        "refund": {"max_cents": 20_000 + number, "currencies": ["EUR", "USD"]},
        "regions": ["eu-west", "eu-north", "us-east"],
        "servers": {
            f"system-{index}": {"tools": [f"tool_{index}_{tool}" for tool in range(9)]}
            for index in range(4)
        },
    }


def write_policies(folder: Path, agents: int) -> None:
    """Write the policy folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DEFAULT_PACKAGES:
        shutil.copy(default_pack() / f"{name}.rego", folder)
    (folder / "refunds.rego").write_text(REFUNDS)
    (folder / "data.json").write_bytes(orjson.dumps(build_data(agents)))
    owned = {**{name: ["*"] for name in DEFAULT_PACKAGES}, "refunds": ["bench"]}
    (folder / "authority.json").write_bytes(orjson.dumps({"policies": owned}))
