# METADATA
# title: Notes that begin with `held:` wait for one person
# custom:
#   applies_to:
#     tools: [acme.notes_add]
#     phases: [call, resume]
package policies.house_notes

hold contains {"code": "note_needs_approval", "approval": {
	"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}],
	"ttl": "15m",
	"execute": "on_approval",
}} if {
	input.phase in {"call", "resume"}
	input.resource.id == "acme.notes_add"
	is_string(input.context.args.body)
	startswith(input.context.args.body, "held:")
}
