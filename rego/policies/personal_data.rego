# METADATA
# title: Personal data
# description: >-
#   Where it may go once the run has read what is labelled `pii`, and who sees it in answers.
#   Nothing here speaks until `data.settings.personal_data` says who (`roles`) or where (`servers`);
#   what is no list there names nobody. Recipients are the business of `policies.egress`.
# custom:
#   applies_to:
#     phases: [call, resume]
#   settings:
#     personal_data:
#       servers: null
#       roles: null
package policies.personal_data

import data.countersign.lib.personal_data

# METADATA
# title: Servers that may receive personal data
# description: >-
#   With `servers`, a run that has read personal data changes things and sends them only there.
# scope: rule
# custom:
#   rationale: >-
#     A processor that has no agreement gets no personal data, whoever the recipient is.
#   owasp: [LLM02]
deny contains {
	"code": "personal_data_would_leave",
	"message": "the run has read personal data, and this server may not receive any",
} if {
	servers := data.settings.personal_data.servers
	servers != null
	"pii" in input.context.run.labels
	not personal_data.receives(servers)
	personal_data.gives
}

# METADATA
# title: Who sees personal data in answers
# description: >-
#   With `roles`, what the manifest of a tool labelled `pii` declares as `sensitive_out` is taken
#   out of answers to agents that have none of these roles.
# scope: rule
# custom:
#   rationale: An agent that counts customers need not know their names.
#   owasp: [LLM02]
obligation contains {"type": "redact", "pointers": input.resource.sensitive_out} if {
	roles := data.settings.personal_data.roles
	roles != null
	"pii" in input.resource.labels
	count(input.resource.sensitive_out) > 0
	not personal_data.sees(roles)
}

# METADATA
# title: The same, where an answer repeats arguments
# description: What `sensitive` declares of the arguments is taken out of answers at the same place.
# scope: rule
# custom:
#   rationale: A tool that updates a customer often answers with the customer.
#   owasp: [LLM02]
obligation contains {"type": "redact", "pointers": input.resource.sensitive} if {
	roles := data.settings.personal_data.roles
	roles != null
	"pii" in input.resource.labels
	count(input.resource.sensitive) > 0
	not personal_data.sees(roles)
}
