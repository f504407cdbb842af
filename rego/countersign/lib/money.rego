# METADATA
# title: Amounts and caps
# description: >-
#   Amounts are the arguments that the manifest names under `sums`, in the unit that the tool uses.
#   A cap is `{"hold": n, "deny": n}`: above `hold` people are asked, above `deny` nobody is.
package countersign.lib.money

import data.countersign.lib.args

# METADATA
# title: What this call moves
# description: >-
#   All its amounts together; one that is left out counts as nothing (the gateway has refused those
#   that may not be). Undefined where the manifest names none, none is given, or one is no number.
# scope: rule
amount := sum(amounts) if {
	pointers := input.resource.sums
	count(pointers) > 0
	given := [value | some pointer in pointers; value := args.at(pointer); value != null]
	amounts := [value | some value in given; is_number(value)]
	count(amounts) > 0
	count(amounts) == count(given)
}

# METADATA
# title: It moves no money, or an amount that is known
# scope: document
measured if input.resource.effect != "money"

measured if amount

# METADATA
# title: Everything that a server's tools have moved, from sums such as `input.context.run.sums`
# description: >-
#   All tools of a server together, so that nothing is gained by spreading one payment over two
#   tools. Undefined where there are no sums.
# scope: rule
of_server(sums, server) := sum([value |
	prefix := concat("", [server, "."])
	some key, value in sums
	startswith(key, prefix)
	is_number(value)
]) if {
	is_object(sums)
}
