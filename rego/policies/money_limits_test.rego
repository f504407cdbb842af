package money_limits_test

import data.policies.money_limits

call(amount, sums) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": "bank.pay", "server": "bank", "effect": "money", "sums": ["/amount"]},
	"context": {
		"args": {"amount": amount},
		"run": {"sums": sums},
		"family": {"sums": sums},
	},
}

day(sums) := {"context": {"family": {"last_24h": {"sums": sums, "counts": {}}}}}

family(sums) := {"context": {"family": {"sums": sums}}}

codes(items) := {item.code | some item in items}

denied(ask) := found if found := codes(money_limits.deny) with input as ask

held(ask) := found if found := codes(money_limits.hold) with input as ask

test_small_amounts_are_no_business_of_this_package if {
	every amount in [0, 1, 999.5, 1000] {
		held(call(amount, {})) == set()
		denied(call(amount, {})) == set()
	}
}

test_one_call_has_a_limit_for_people_and_one_for_all if {
	held(call(1001, {})) == {"amount_needs_approval"}
	denied(call(1001, {})) == set()
	denied(call(100001, {})) == {"amount_over_limit"}
}

test_ten_small_payments_are_not_small if {
	held(call(1000, {"bank.pay#/amount": 4000})) == set()
	held(call(1000, {"bank.pay#/amount": 4001})) == {"amount_needs_approval"}
	denied(call(1000, {"bank.pay#/amount": 199001})) == {"amount_over_limit"}
}

test_all_tools_of_a_server_count_together if {
	held(call(1000, {"bank.pay#/amount": 2000, "bank.schedule#/amount": 2001})) == {"amount_needs_approval"}
	held(call(1000, {"bank.pay#/amount": 2000, "bank2.pay#/amount": 9000})) == set()
}

test_all_amounts_of_a_call_count_together if {
	two := object.union(call(600, {}), {"resource": {"sums": ["/amount", "/fee"]}, "context": {"args": {"fee": 401}}})
	held(two) == {"amount_needs_approval"}
}

test_a_family_and_a_day_have_limits_of_their_own if {
	held(object.union(call(10, {}), family({"bank.pay#/amount": 9991}))) == {"amount_needs_approval"}
	held(object.union(call(10, {}), day({"bank.pay#/amount": 19990}))) == set()
	held(object.union(call(10, {}), day({"bank.pay#/amount": 19991}))) == {"amount_needs_approval"}
	denied(object.union(call(10, {}), day({"bank.pay#/amount": 399991}))) == {"amount_over_limit"}
}

test_without_the_sums_people_are_asked if {
	ask := json.remove(call(10, {}), ["context/run/sums"])
	held(ask) == {"spent_unknown"}
	every sums in [null, [], "0"] { held(object.union(ask, {"context": {"run": {"sums": sums}}})) == {"spent_unknown"} }
}

test_limits_can_be_said if {
	codes(money_limits.hold) == {"amount_needs_approval"} with input as call(60, {})
		with data.settings.money_limits as {"per_call": {"hold": 50}}
	codes(money_limits.deny) == set() with input as call(60, {})
		with data.settings.money_limits as {"per_call": {"hold": 50}}
	codes(money_limits.deny) == {"amount_over_limit"} with input as call(100001, {})
		with data.settings.money_limits as {"per_call": {"hold": 50}}
	codes(money_limits.deny) == {"amount_over_limit"} with input as call(60, {})
		with data.settings.money_limits as {"per_call": {"deny": 50}}
}

test_a_server_can_have_limits_of_its_own if {
	caps := {"per_call": {"hold": 50}, "servers": {"bank": {"per_call": {"hold": 500000, "deny": 900000}}}}
	codes(money_limits.hold | money_limits.deny) == {"amount_needs_approval"} with input as call(150000, {})
		with data.settings.money_limits as caps
	codes(money_limits.hold | money_limits.deny) == set() with input as call(3000, {})
		with data.settings.money_limits as caps
}

test_a_limit_that_cannot_be_read_lets_nothing_through if {
	every caps in [
		{"per_call": {"deny": "100"}},
		{"per_call": {"deny": null}},
		{"per_call": 100},
		{"per_call": null},
		[],
		7,
		{"servers": {"bank": 5}},
	] {
		codes(money_limits.deny) == {"amount_over_limit"} with input as call(10, {})
			with data.settings.money_limits as caps
	}
}

test_other_effects_are_not_its_business if {
	ask := object.union(call(100001, {}), {"resource": {"effect": "update"}})
	codes(money_limits.hold | money_limits.deny) == set() with input as ask
}

without(name, more) := json.remove(object.union(call(5, {}), more), [sprintf("context/args/%s", [name])])

with_fee := {"resource": {"sums": ["/amount", "/fee"]}, "context": {"args": {"fee": 2}}}

test_an_amount_that_nobody_tells_is_asked_about if {
	held(without("amount", {})) == {"amount_unknown"}
	held(call(null, {})) == {"amount_unknown"}
	held(call("5", {})) == {"amount_unknown"}
	held(without("amount", {"resource": {"sums": []}})) == set()
	held(without("amount", {"resource": {"effect": "update"}})) == set()
}

test_an_amount_that_is_left_out_beside_another_counts_as_nothing if {
	held(without("fee", with_fee)) == set()
	held(without("amount", with_fee)) == set()
	held(object.union(with_fee, without("fee", {"context": {"args": {"amount": 1001}}}))) == {"amount_needs_approval"}
	denied(object.union(without("fee", with_fee), {"context": {"args": {"amount": 100001}}})) == {"amount_over_limit"}
}
