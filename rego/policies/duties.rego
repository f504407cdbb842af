# METADATA
# title: Separation of duties
# description: >-
#   One run does not both create and approve. Pairs of tools stand in `data.settings.duties.pairs`:
#   `{"name": "payments", "one": ["bank.payment_create"], "other": ["bank.payment_release"]}`.
# custom:
#   applies_to:
#     effects: [create, update, delete, external_send, money, privilege]
#     phases: [call, resume]
#   settings:
#     duties:
#       pairs: []
package policies.duties

import data.countersign.lib.duties

# METADATA
# title: The run has done the other part
# scope: rule
# custom:
#   rationale: >-
#     A second person is worth nothing if the second person is the same agent.
#   owasp: [ASI03, ASI09]
deny contains {
	"code": "duties_not_separate",
	"message": sprintf("this run has done the other part of `%v`", [duties.name(pair)]),
} if {
	some pair in data.settings.duties.pairs
	input.resource.effect != "read"
	duties.both(pair)
}
