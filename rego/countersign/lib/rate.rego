# METADATA
# title: How often
# description: Calls of the run so far. This call is not among them.
package countersign.lib.rate

# METADATA
# title: Calls of the run, of all tools
# scope: rule
calls := input.context.run.calls if is_number(input.context.run.calls)

# METADATA
# title: Calls of one tool in the run
# scope: rule
count_of(tool) := found if {
	is_object(input.context.run.counts)
	found := object.get(input.context.run.counts, tool, 0)
	is_number(found)
}

# METADATA
# title: The last calls were all of this tool
# description: "`n` at most 50: the gateway tells no more."
# scope: rule
streak(tool, n) if {
	recent := input.context.run.recent
	count(recent) >= n
	every id in array.slice(recent, count(recent) - n, count(recent)) { id == tool }
}

# METADATA
# title: How often the run has made exactly this call before
# description: The same tool with the same arguments. Undefined where the gateway does not say.
# scope: rule
repeats := input.context.run.repeats if is_number(input.context.run.repeats)

# METADATA
# title: Calls of the token family within the last minute
# description: Undefined where the gateway does not say.
# scope: rule
last_minute := input.context.family.last_minute if is_number(input.context.family.last_minute)
