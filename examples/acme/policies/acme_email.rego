# METADATA
# title: Mail in Acme's name
# description: >-
#   Mail goes to colleagues and to the customers that the run is about: the launcher names their
#   addresses in the run's allowed values (`acme.email_send#/to`), never the agent. Anyone else is
#   outside.
# custom:
#   applies_to:
#     tools: [acme.email_send]
#     phases: [list, call, resume]
package policies.acme_email

company_domains := {"acme.example", "acme-outfitters.example"}

listing if {
	input.phase == "list"
	input.resource.id == "acme.email_send"
}

sending if {
	input.phase in {"call", "resume"}
	input.resource.id == "acme.email_send"
}

recipient := lower(input.context.args.to) if {
	sending
	is_string(input.context.args.to)
}

# Undefined unless there is exactly one `@` with something on both sides.
domain := parts[1] if {
	parts := split(recipient, "@")
	count(parts) == 2
	parts[0] != ""
	parts[1] != ""
}

allowed if domain in company_domains

allowed if {
	domain
	some address in input.context.token.allowed_values["acme.email_send#/to"]
	is_string(address)
	recipient == lower(address)
}

permit contains {"code": "mail_offered", "message": "to whom is judged when it is sent"} if listing

permit contains {"code": "recipient_allowed", "message": "a colleague, or a customer of this run"} if {
	sending
	allowed
}

deny contains {
	"code": "recipient_outside",
	"message": "the recipient is neither a colleague nor a customer of this run",
} if {
	sending
	not allowed
}
