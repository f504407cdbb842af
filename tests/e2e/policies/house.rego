# METADATA
# title: The stub upstream and the stdio desk of the end-to-end tests
# custom:
#   applies_to:
#     servers: [stub, gone, desk]
#     phases: [list, call, resume]
package policies.house

asked if input.phase in {"list", "call", "resume"}

permit contains {"code": "house_tool"} if {
	asked
	input.resource.server in {"stub", "gone", "desk"}
}

deny contains {"code": "house_forbids", "message": "forbidden is forbidden"} if {
	input.phase == "call"
	input.resource.id == "stub.forbidden"
}

# Two people, or one who says no.
hold contains {"code": "two_people", "approval": {
	"stages": [{"any_of": [{"approve": 2, "deny": 1, "who": {"groups": ["approver"]}}]}],
	"ttl": "1h",
	"execute": "on_approval",
}} if {
	input.phase in {"call", "resume"}
	input.resource.id == "stub.transfer"
}

# One person, at once.
hold contains {"code": "be_quick", "approval": {
	"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}],
	"ttl": "1s",
	"execute": "on_approval",
}} if {
	input.phase in {"call", "resume"}
	input.resource.id == "stub.brief"
}

listed if is_array(input.context.args.items)

deny contains {"code": "no_bomb"} if {
	input.phase == "call"
	input.resource.id == "stub.bomb"
	not listed
}

# What no engine answers in time.
deny contains {"code": "bombed"} if {
	input.phase == "call"
	input.resource.id == "stub.bomb"
	items := input.context.args.items
	count([1 | some a in items; some b in items; some c in items; some d in items; a + b + c + d < 0]) > 0
}
