# METADATA
# title: Caps on money
# description: >-
#   What a call would bring each total to, and the cap of each: the server's own
#   (`data.settings.money_limits.servers`), else everybody's (`data.settings.money_limits`), else
#   what is shipped. Totals are over all tools of the server.
package countersign.lib.caps

import data.countersign.lib.money

shipped := {
	"per_call": {"hold": 1000, "deny": 100000},
	"per_run": {"hold": 5000, "deny": 200000},
	"per_family": {"hold": 10000, "deny": 400000},
	"per_day": {"hold": 20000, "deny": 400000},
}

# METADATA
# title: "What is exceeded: pairs of a total (`per_call`, …) and a limit (`hold`, `deny`)"
# scope: rule
exceeded := {[name, limit] |
	some name, total in totals
	some limit, most in in_force[name]
	total > most
}

in_force := shipped if {
	not data.settings.money_limits
} else := merged if {
	given := data.settings.money_limits
	merged := object.union_n([shipped, readable(given), readable(servers_own(given))])
}

servers_own(given) := found if {
	found := given.servers[input.resource.server]
} else := {}

# INVARIANT: every limit is a number. What cannot be read lets nothing through.
readable(caps) := found if {
	is_object(caps)
	found := {name: limits |
		some name, _ in shipped
		cap := caps[name]
		limits := limits_of(cap)
	}
} else := {"per_call": {"hold": 0, "deny": 0}}

limits_of(cap) := found if {
	is_object(cap)
	found := {limit: number | some limit, most in cap; number := number_of(most)}
} else := {"hold": 0, "deny": 0}

number_of(most) := most if {
	is_number(most)
} else := 0

totals["per_call"] := money.amount

totals["per_run"] := total if {
	total := money.amount + money.of_server(input.context.run.sums, input.resource.server)
}

totals["per_family"] := total if {
	total := money.amount + money.of_server(input.context.family.sums, input.resource.server)
}

totals["per_day"] := total if {
	total := money.amount + money.of_server(input.context.family.last_24h.sums, input.resource.server)
}

# METADATA
# title: There is an amount, and nobody says what was spent before
# scope: rule
spent_unknown if {
	money.amount
	not known
}

known if is_object(input.context.run.sums)

# METADATA
# title: The manifest names amounts, and the call tells none
# scope: rule
amount_unknown if {
	count(input.resource.sums) > 0
	not told
}

told if money.amount
