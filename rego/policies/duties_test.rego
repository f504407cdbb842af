package duties_test

import data.policies.duties

pairs := [{"name": "payments", "one": ["bank.create"], "other": ["bank.release", "bank.sign"]}]

call(tool, counts) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": tool, "server": "bank", "effect": "money"},
	"context": {"run": {"counts": counts}},
}

refused(ask) if {
	{item.code | some item in duties.deny} == {"duties_not_separate"} with input as ask
		with data.settings.duties.pairs as pairs
}

test_who_creates_does_not_release if {
	refused(call("bank.release", {"bank.create": 1}))
	refused(call("bank.sign", {"bank.create": 3, "bank.read": 1}))
}

test_who_releases_does_not_create if refused(call("bank.create", {"bank.release": 1}))

test_one_part_alone_is_done if {
	not refused(call("bank.create", {"bank.create": 5}))
	not refused(call("bank.sign", {"bank.release": 5}))
	not refused(call("bank.release", {}))
	not refused(call("bank.other", {"bank.create": 1, "bank.release": 1}))
}

test_what_was_given_back_was_not_done if not refused(call("bank.release", {"bank.create": 0}))

test_the_pair_is_named if {
	some item in duties.deny with input as call("bank.release", {"bank.create": 1})
		with data.settings.duties.pairs as pairs
	item.message == "this run has done the other part of `payments`"
}

test_without_pairs_nothing_is_said if {
	count(duties.deny) == 0 with input as call("bank.release", {"bank.create": 1})
}

test_a_pair_that_cannot_be_read_stops_every_change if {
	every pair in [
		{"one": "bank.create", "other": ["bank.release"]}, {"one": ["bank.create"]},
		{"first": ["bank.create"], "second": ["bank.release"]}, ["bank.create", "bank.release"], "bank.create", null,
	] {
		{item.code | some item in duties.deny} == {"duties_not_separate"} with input as call("bank.release", {})
			with data.settings.duties.pairs as [pair]
	}
}
