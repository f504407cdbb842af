package lib_money_test

import data.countersign.lib.money
import data.countersign.lib.sums

ask(args) := {
	"resource": {"effect": "money", "sums": ["/amount", "/fee"]},
	"context": {"args": args},
}

test_all_amounts_together if money.amount == 12 with input as ask({"amount": 10, "fee": 2})

test_an_amount_that_is_left_out_counts_as_nothing if {
	every args in [{"amount": 10}, {"amount": 10, "fee": null}] {
		money.amount == 10 with input as ask(args)
	}
}

test_an_amount_that_is_no_number_makes_it_unknown if {
	every args in [{"amount": 10, "fee": "2"}, {"amount": 10, "fee": [2]}, {"amount": null}, {}] { not known(args) }
}

known(args) if money.amount >= 0 with input as ask(args)

test_no_declared_amount_is_unknown if {
	not undeclared
}

undeclared if money.amount >= 0 with input as {"resource": {"effect": "money", "sums": []}, "context": {"args": {}}}

test_what_moves_no_money_is_measured if {
	money.measured with input as {"resource": {"effect": "external_send"}}
}

test_a_server_is_summed_over_its_tools if {
	all := {"bank.pay#/amount": 3, "bank.plan#/amount": 4, "bank2.pay#/amount": 5, "bank.note#/x": "6"}
	money.of_server(all, "bank") == 7
	money.of_server({}, "bank") == 0
	every wrong in [null, [], "x"] { not summed(wrong) }
}

summed(wrong) if money.of_server(wrong, "bank") >= 0

test_sums_by_key if {
	sums.run("a#/n") == 5 with input.context.run.sums as {"a#/n": 5}
	sums.run("b#/n") == 0 with input.context.run.sums as {"a#/n": 5}
	sums.family("a#/n") == 6 with input.context.family.sums as {"a#/n": 6}
	sums.day("a#/n") == 7 with input.context.family.last_24h.sums as {"a#/n": 7}
	not day_known
}

day_known if sums.day("a#/n") >= 0 with input as {"context": {"family": {}}}
