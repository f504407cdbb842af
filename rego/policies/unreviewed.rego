# METADATA
# title: Tools nobody reviewed
# description: >-
#   A tool that no reviewed manifest names is not offered to anyone. The catalog hides it already;
#   this says no once more, whatever another package permits.
# custom:
#   applies_to:
#     phases: [list, call, resume]
package policies.unreviewed

effects := {
	"read", "create", "update", "delete",
	"external_send", "money", "privilege",
}

reviewed if input.resource.effect in effects

deny contains {
	"code": "tool_unreviewed",
	"message": "no reviewed manifest says what this tool does",
} if {
	input.phase in {"list", "call", "resume"}
	not reviewed
}
