# METADATA
# title: How much money
# description: >-
#   Caps on one call, on a run, on a token family and on 24 hours, over all tools of a server, in the
#   unit that its tools use. Above `hold` people are asked even for named recipients, above `deny`
#   nobody is. `data.settings.money_limits`; `servers` gives a server caps of its own.
# custom:
#   applies_to:
#     effects: [money]
#     phases: [call, resume]
#   settings:
#     money_limits:
#       per_call: {hold: 1000, deny: 100000}
#       per_run: {hold: 5000, deny: 200000}
#       per_family: {hold: 10000, deny: 400000}
#       per_day: {hold: 20000, deny: 400000}
#       servers: {}
package policies.money_limits

import data.countersign.lib.approvals
import data.countersign.lib.caps

# METADATA
# title: More than may go at all
# scope: rule
# custom:
#   rationale: >-
#     However a person is talked into agreeing, one call and one day have a largest loss.
#   owasp: [ASI02, ASI08, LLM06]
deny contains {
	"code": "amount_over_limit",
	"message": sprintf("with this call %v is above its limit", [name]),
} if {
	input.resource.effect == "money"
	some [name, "deny"] in caps.exceeded
}

# METADATA
# title: More than goes without people
# scope: rule
# custom:
#   rationale: >-
#     Ten small payments are not small. What a run, its family and a day have moved counts with it.
#   owasp: [ASI02, LLM06]
hold contains {
	"code": "amount_needs_approval",
	"message": sprintf("with this call %v is above what goes without people", [name]),
	"approval": approvals.standard,
} if {
	input.resource.effect == "money"
	some [name, "hold"] in caps.exceeded
}

# METADATA
# title: Nobody knows what was spent
# scope: rule
# custom:
#   rationale: Without the sums, the caps above would be silent.
#   owasp: [LLM06]
hold contains {
	"code": "spent_unknown",
	"message": "the gateway does not say what the run has spent",
	"approval": approvals.standard,
} if {
	input.resource.effect == "money"
	caps.spent_unknown
}

# METADATA
# title: Nobody knows how much
# description: >-
#   The manifest names amounts (`sums`), and the call tells none of them, because it may leave them
#   out (`sums_optional`). Any other such call is refused.
# scope: rule
# custom:
#   rationale: A payment that is changed without saying its amount moves one all the same.
#   owasp: [LLM06]
hold contains {
	"code": "amount_unknown",
	"message": "the call does not say how much it moves",
	"approval": approvals.standard,
} if {
	input.resource.effect == "money"
	caps.amount_unknown
}
