# METADATA
# title: Loops of changes
# description: >-
#   A tool that changes something, called again and again. `data.settings.loops`; 0 is none.
# custom:
#   applies_to:
#     effects: [create, update, delete, external_send, money, privilege]
#     phases: [call]
#   settings:
#     loops:
#       in_a_row: 20
#       per_tool: 100
#       same_call: 3
package policies.loops

import data.countersign.lib.approvals
import data.countersign.lib.rate
import data.countersign.lib.settings

# METADATA
# title: The same change in a row
# description: "`in_a_row` is at most 50: the gateway keeps no more."
# scope: rule
# custom:
#   rationale: Somebody looks before the twenty-first mail.
#   owasp: [ASI08, LLM10]
hold contains {
	"code": "many_in_a_row",
	"message": "the run has done nothing else for many calls",
	"approval": approvals.standard,
} if {
	input.resource.id in input.context.run.recent
	limit := settings.loops_in_a_row(20)
	limit != 0
	input.resource.effect != "read"
	input.phase == "call"
	rate.streak(input.resource.id, limit)
}

# METADATA
# title: Too many of one change
# scope: rule
# custom:
#   rationale: The largest damage of one run has a number.
#   owasp: [ASI08, ASI10, LLM10]
deny contains {"code": "too_many_of_one", "message": "this run has called the tool too often"} if {
	made := input.context.run.counts[input.resource.id]
	limit := settings.loops_per_tool(100)
	made >= limit
	limit != 0
	input.resource.effect != "read"
	input.phase == "call"
}

# METADATA
# title: Exactly the same change again
# scope: rule
# custom:
#   rationale: >-
#     Paying twice is the commonest mistake of a loop. Retries of one call are joined by the
#     gateway before they get here.
#   owasp: [ASI08]
hold contains {
	"code": "change_repeated",
	"message": "the run has made exactly this change before",
	"approval": approvals.standard,
} if {
	input.context.run.repeats > 0
	limit := settings.loops_same_call(3)
	input.context.run.repeats >= limit
	limit != 0
	input.resource.effect != "read"
	input.phase == "call"
}
