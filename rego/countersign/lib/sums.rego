# METADATA
# title: What has been spent
# description: >-
#   Sums so far of the arguments that manifests name (`sums`), over the run, its token family, and
#   24 hours. Keys are `<tool id>#<JSON Pointer>`. A key of which nothing was spent is 0, and so is
#   one that no manifest names: see that it is written as there. Undefined where the input has no
#   sums at all, as in phase `issue`.
package countersign.lib.sums

# METADATA
# title: The sum of one key in the run; 0 when nothing was spent
# scope: rule
run(key) := amount(input.context.run.sums, key)

# METADATA
# title: The sum of one key in the token family
# scope: rule
family(key) := amount(input.context.family.sums, key)

# METADATA
# title: The sum of one key in 24 hours
# scope: rule
day(key) := amount(input.context.family.last_24h.sums, key)

amount(sums, key) := value if {
	is_object(sums)
	value := object.get(sums, key, 0)
	is_number(value)
}
