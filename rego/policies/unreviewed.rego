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

# METADATA
# title: Nobody has said what the tool does
# scope: rule
# custom:
#   rationale: >-
#     A server may offer a new tool at any time, or an old one under new words.
#   owasp: [ASI02, ASI04]
deny contains {
	"code": "tool_unreviewed",
	"message": "no reviewed manifest says what this tool does",
} if {
	input.phase in {"list", "call", "resume"}
	not reviewed
}
