# METADATA
# title: Where data may go
# description: >-
#   Looks at the sinks that manifests declare (recipients, URLs, accounts) and at links in the
#   texts that they declare, at where these come from, and at what the run has read. Switched by
#   `data.settings.egress`.
# custom:
#   applies_to:
#     effects: [create, update, delete, external_send, money, privilege]
#     phases: [call, resume]
#   settings:
#     egress:
#       untrusted: deny
#       unknown: hold
#       secret: deny
#       links: hold
#       internal_domains: []
package policies.egress

import data.countersign.lib.approvals
import data.countersign.lib.egress
import data.countersign.lib.settings
import data.countersign.lib.sinks

# METADATA
# title: A recipient that only strangers have named
# description: >-
#   Denied where the grant is a standing one. Held where the grant counts calls (`max_calls`): it was
#   written for one task, and somebody knows what the task is. `untrusted`: `deny`, `hold` (always
#   ask) or `off`.
# scope: rule
# custom:
#   rationale: >-
#     The commonest injection puts the attacker's address, account or URL into a mail, a page or a
#     file that the agent reads. The value then was seen nowhere else.
#   owasp: [ASI01, LLM01]
deny contains {
	"code": "recipient_untrusted",
	"message": "a recipient, URL or account was seen only in what strangers can write",
} if {
	count(input.resource.sinks) > 0
	input.resource.effect != "read"
	"untrusted" in sinks.classes
	settings.egress_untrusted("deny") != "off"
	not egress.askable
}

# METADATA
# title: The same, where a person can be asked
# scope: rule
# custom:
#   rationale: >-
#     Paying the invoice that came by mail is a task people do give. A person compares the account.
#   owasp: [ASI01, ASI09]
hold contains {
	"code": "recipient_untrusted",
	"message": "a recipient, URL or account was seen only in what strangers can write",
	"approval": approvals.standard,
} if {
	count(input.resource.sinks) > 0
	input.resource.effect != "read"
	"untrusted" in sinks.classes
	settings.egress_untrusted("deny") != "off"
	egress.askable
}

# METADATA
# title: An unknown recipient
# description: >-
#   Not among the run's allowed values and not from a trusted output. `unknown`: `hold`, `deny` or
#   `off`.
# scope: rule
# custom:
#   rationale: >-
#     A value from nowhere is a guess of the model, or was put together so as not to be found. The
#     launcher names those that the task needs.
#   owasp: [ASI02, LLM06]
hold contains {
	"code": "recipient_unknown",
	"message": "a recipient, URL or account was named by nobody who is trusted",
	"approval": approvals.standard,
} if {
	count(input.resource.sinks) > 0
	input.resource.effect != "read"
	"unseen" in sinks.classes
	settings.egress_unknown("hold") != "off"
	not egress.unknown_refused
}

# METADATA
# title: An unknown recipient, where nobody is asked
# scope: rule
# custom:
#   rationale: For deployments in which every recipient can be named before.
#   owasp: [ASI02, LLM06]
deny contains {
	"code": "recipient_unknown",
	"message": "a recipient, URL or account was named by nobody who is trusted",
} if {
	count(input.resource.sinks) > 0
	input.resource.effect != "read"
	"unseen" in sinks.classes
	settings.egress_unknown("hold") != "off"
	egress.unknown_refused
}

# METADATA
# title: Secrets stay
# description: >-
#   Once the run has read what is labelled `secret`, nothing goes to a recipient that the launcher
#   has not named and that is not internal. `secret`: `deny` or `off`.
# scope: rule
# custom:
#   rationale: Credentials and keys have no recipient that a lookup could make right.
#   owasp: [ASI03, LLM02]
deny contains {
	"code": "secret_would_leave",
	"message": "the run has read secrets, and the launcher has not named this recipient",
} if {
	count(input.resource.sinks) > 0
	input.resource.effect != "read"
	"secret" in input.context.run.labels
	input.phase == "call"
	count(sinks.classes - {"allowed", "internal"}) > 0
	settings.egress_secret("deny") != "off"
}

# METADATA
# title: A stranger's link in a message
# description: >-
#   A text that others will read (`texts` of the manifest) has a link that only strangers have named,
#   or that leads to a host that only they have named. `links`: `hold`, `deny` or `off`.
# scope: rule
# custom:
#   rationale: >-
#     Whoever gets the message trusts its sender, not the page that the link is from. And a picture
#     that is fetched when the message is opened carries out whatever its address says.
#   owasp: [ASI01, ASI02, LLM05]
hold contains {
	"code": "link_untrusted",
	"message": "a text has a link that was seen only in what strangers can write",
	"approval": approvals.standard,
} if {
	count(input.resource.texts) > 0
	input.resource.effect != "read"
	"untrusted" in sinks.links
	settings.egress_links("hold") != "off"
	not egress.links_refused
}

# METADATA
# title: A stranger's link in a message, where nobody is asked
# scope: rule
# custom:
#   rationale: For agents that write to many, where links have no business.
#   owasp: [ASI01, ASI02, LLM05]
deny contains {
	"code": "link_untrusted",
	"message": "a text has a link that was seen only in what strangers can write",
} if {
	count(input.resource.texts) > 0
	input.resource.effect != "read"
	"untrusted" in sinks.links
	settings.egress_links("hold") != "off"
	egress.links_refused
}
