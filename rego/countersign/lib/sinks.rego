# METADATA
# title: Where data goes
# description: >-
#   How well each recipient, URL or account of a call is known. The manifest declares the pointers
#   (`sinks`), the gateway says where their values were seen (`context.run.provenance`), and each
#   pointer that holds something has one class, the worst of its values: `allowed` (the launcher
#   named it in the run's allowed values), `internal` (in a domain of
#   `data.settings.egress.internal_domains`), `trusted` (from a trusted output of the run),
#   `untrusted` (only from an output that strangers can write), `unseen` (from nowhere the gateway
#   has seen).
# custom:
#   rationale: >-
#     Constraints of a token are not asked. An agent may ask for a token that says less than its
#     run, so they may be its own words; allowed values are the launcher's.
package countersign.lib.sinks

import data.countersign.lib.args

# METADATA
# title: The classes of all sinks of this call
# scope: rule
classes contains class if {
	some pointer in input.resource.sinks
	class := class_at(pointer)
}

# METADATA
# title: The class of one sink; undefined where it holds nothing
# scope: rule
class_at(pointer) := "allowed" if {
	input.context.run.provenance[pointer] == "allowed"
} else := "internal" if {
	internal_domains := data.settings.egress.internal_domains
	inside(pointer, internal_domains)
} else := "trusted" if {
	input.context.run.provenance[pointer] == "trusted"
} else := "untrusted" if {
	input.context.run.provenance[pointer] == "untrusted"
} else := "allowed" if {
	args.given(pointer)
	bound(pointer)
} else := "unseen" if {
	args.given(pointer)
} else := "unseen" if {
	# The gateway found something there, as at `/to/*/address`.
	input.context.run.provenance[pointer] != null
}

# METADATA
# title: The classes of links in texts that this call sends; a text without any has none
# scope: rule
links contains class if {
	some pointer in input.resource.texts
	class := input.context.run.provenance[pointer]
}

# The gateway has refused every other value there.
bound(pointer) if input.context.token.allowed_values[pointer]

bound(pointer) if input.context.token.allowed_values[concat("#", [input.resource.id, pointer])]

inside(pointer, domains) if {
	values := args.strings(pointer)
	count(values) > 0
	every value in values { host(value) in domains }
}

# `/to/*` and `/to/*/address`: of every item, and nothing else stands there.
inside(pointer, domains) if {
	[list, rest] := split(pointer, "/*")
	items := args.at(list)
	is_array(items)
	count(items) > 0
	every item in items {
		value := member(item, rest)
		is_string(value)
		host(value) in domains
	}
}

member(item, "") := item

member(item, rest) := item[args.unescaped(name)] if {
	is_object(item)
	startswith(rest, "/")
	name := substring(rest, 1, -1)
	not contains(name, "/")
}

# METADATA
# title: Every recipient is named, internal or looked up in a trusted place, and there is one
# scope: rule
all_known if {
	count(classes) > 0
	classes - {"allowed", "internal", "trusted"} == set()
}

# METADATA
# title: The host that an address, URL or host name leads to
# description: >-
#   Undefined where readers could disagree: user information, quoted parts, lists, other schemes,
#   addresses by number, upper case in the scheme, anything outside ASCII.
# scope: document
host(value) := lower(found[0][1]) if {
	found := regex.find_all_string_submatch_n(`^[A-Za-z0-9_+.'-]{1,64}@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z][A-Za-z0-9-]*)$`, value, 1)
	count(found) == 1
}

host(value) := lower(found[0][1]) if {
	found := regex.find_all_string_submatch_n(`^https?://([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z][A-Za-z0-9-]*)(?::[0-9]{1,5})?(?:/[!-\[\]-~]*)?$`, value, 1)
	count(found) == 1
}

host(value) := lower(value) if {
	regex.match(`^[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z][A-Za-z0-9-]*$`, value)
}
