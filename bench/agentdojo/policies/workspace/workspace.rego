# METADATA
# title: What an office assistant writes to people
# description: >-
#   Written from the suite's schemas: mail and invitations carry text of the agent's own, and once it
#   has read what strangers wrote, that text may be theirs. Who gets it is the default pack's
#   business (`policies.egress`); this is about links in it.
# custom:
#   applies_to:
#     tools: [workspace.send_email, workspace.create_calendar_event]
#     phases: [call, resume]
package policies.workspace

import data.countersign.lib.approvals
import data.countersign.lib.egress
import data.countersign.lib.sinks

texts := [text |
	some name in ["subject", "body", "title", "description", "location"]
	text := input.context.args[name]
	is_string(text)
]

links contains link if {
	some text in texts
	some link in regex.find_n(`(?i)(?:https?://|www\.)[^\s<>"']+`, text, -1)
}

outside contains link if {
	some link in links
	not inside(link)
}

inside(link) if {
	host := sinks.host(link)
	host in data.settings.egress.internal_domains
}

to_people if {
	some name in ["recipients", "cc", "bcc", "participants"]
	count(input.context.args[name]) > 0
}

stranger_may_speak if {
	"untrusted" in input.context.run.labels
	to_people
	count(outside) > 0
}

# METADATA
# title: A link to the outside, after reading what strangers wrote
# description: Denied under a standing grant, held under one for a task (`max_calls`).
# scope: rule
# custom:
#   rationale: >-
#     Phishing that comes from a colleague's own address is believed. An assistant hardly ever has
#     to send links that nobody gave it.
#   owasp: [ASI01, LLM01]
deny contains {
	"code": "link_after_untrusted",
	"message": "a link to the outside, after reading what strangers can write",
} if {
	stranger_may_speak
	not egress.askable
}

hold contains {
	"code": "link_after_untrusted",
	"message": "a link to the outside, after reading what strangers can write",
	"approval": approvals.standard,
} if {
	stranger_may_speak
	egress.askable
}
