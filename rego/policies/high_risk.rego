# METADATA
# title: What cannot be taken back
# description: >-
#   Moving money, deleting, changing privileges and sending things outside wait for a human. An
#   agent whose token reaches such a tool may ask for it; one approver decides within 15 minutes.
#   To ask more of some tool, add a package that holds it too: all conditions are then needed.
# custom:
#   applies_to:
#     effects: [money, delete, privilege, external_send]
#     phases: [list, call, resume]
package policies.high_risk

scope := {"list": "tools:list", "call": "tools:call", "resume": "tools:call"}

asked if {
	input.resource.effect in {"money", "delete", "privilege", "external_send"}
	scope[input.phase] in input.context.token.scopes
}

permit contains {"code": "allowed_once_approved"} if asked

hold contains {
	"code": sprintf("%s_needs_approval", [input.resource.effect]),
	"message": "this cannot be taken back, so a human decides",
	"approval": {
		"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}],
		"ttl": "15m",
		"execute": "on_approval",
	},
} if {
	asked
}
