# METADATA
# title: Separation of duties
# description: >-
#   A pair is `{"name": …, "one": [tools], "other": [tools]}`: a run that has called one of `one` may
#   not call any of `other`, nor the other way round.
package countersign.lib.duties

# METADATA
# title: The run has done the other part of this pair
# description: One that cannot be read, so that nobody knows its parts, counts as done.
# scope: document
both(pair) if {
	readable(pair)
	input.resource.id in pair.one
	done(pair.other)
}

both(pair) if {
	readable(pair)
	input.resource.id in pair.other
	done(pair.one)
}

both(pair) if not readable(pair)

readable(pair) if {
	is_array(pair.one)
	is_array(pair.other)
}

# METADATA
# title: What the pair is called
# scope: rule
name(pair) := found if {
	found := pair.name
	is_string(found)
} else := ""

done(tools) if {
	some tool in tools
	input.context.run.counts[tool] > 0
}
