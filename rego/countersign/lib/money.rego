# METADATA
# title: Amounts and caps
# description: >-
#   Amounts are the arguments that the manifest names under `sums`, in the unit that the tool uses.
#   A cap is `{"hold": n, "deny": n}`: above `hold` people are asked, above `deny` nobody is. Either
#   may be left out; one that is no number is 0.
package countersign.lib.money

import data.countersign.lib.args

# METADATA
# title: What this call moves
# description: All its amounts together. Undefined where the manifest names none, or one is no number.
# scope: rule
amount := sum(amounts) if {
	pointers := input.resource.sums
	count(pointers) > 0
	amounts := [value | some pointer in pointers; value := args.number(pointer)]
	count(amounts) == count(pointers)
}

# METADATA
# title: The total is above what may go without people
# scope: rule
above_hold(total, cap) if total > limit(cap, "hold")

# METADATA
# title: The total is above what may go at all
# scope: rule
above_deny(total, cap) if total > limit(cap, "deny")

# A limit that cannot be read lets nothing through.
limit(cap, name) := cap[name] if is_number(cap[name])

limit(cap, name) := 0 if {
	is_object(cap)
	value := cap[name]
	not is_number(value)
}

limit(cap, _) := 0 if not is_object(cap)
