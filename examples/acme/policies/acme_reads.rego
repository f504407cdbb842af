# METADATA
# title: Reading Acme's back office
# description: Any agent with a token for it may look things up; nothing changes.
# custom:
#   applies_to:
#     servers: [acme]
#     phases: [list, call, resume]
package policies.acme_reads

permit contains {"code": "read_only", "message": "reading changes nothing"} if {
	input.phase in {"list", "call", "resume"}
	input.resource.server == "acme"
	input.resource.effect == "read"
}
