# METADATA
# title: Separation of duties
# description: >-
#   A pair is `{"name": …, "one": [tools], "other": [tools]}`: a run that has called one of `one` may
#   not call any of `other`, nor the other way round.
package countersign.lib.duties

# METADATA
# title: The run has done the other part of this pair
# scope: document
both(pair) if {
	input.resource.id in pair.one
	done(pair.other)
}

both(pair) if {
	input.resource.id in pair.other
	done(pair.one)
}

done(tools) if {
	some tool in tools
	input.context.run.counts[tool] > 0
}
