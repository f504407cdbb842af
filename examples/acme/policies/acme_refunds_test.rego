package policies.acme_refunds_test

import data.policies.acme_refunds

ask(phase, args) := {
	"phase": phase,
	"resource": {"id": "acme.refunds_create", "server": "acme", "effect": "money"},
	"context": {"args": args, "family": {"sums": {}}},
}

after(refunded, cents) := object.union(refund(cents), {"context": {"family": {"sums": {
	"acme.refunds_create#/amount_cents": refunded,
	"acme.other#/amount_cents": 1000000,
}}}})

refund(cents) := ask("call", {"order_id": "ord_5002", "amount_cents": cents, "reason": "damaged"})

test_a_small_refund_is_permitted if {
	every cents in [1, 9999, 10000] {
		{p.code | some p in acme_refunds.permit} == {"refund_within_limit"} with input as refund(cents)
		count(acme_refunds.hold) == 0 with input as refund(cents)
		count(acme_refunds.deny) == 0 with input as refund(cents)
	}
}

test_a_medium_refund_waits_for_a_human if {
	every cents in [10001, 42000, 50000] {
		count(acme_refunds.permit) == 1 with input as refund(cents)
		{h.code | some h in acme_refunds.hold} == {"refund_needs_approval"} with input as refund(cents)
		count(acme_refunds.deny) == 0 with input as refund(cents)
	}
}

test_a_large_refund_is_denied if {
	every cents in [50001, 96000] {
		count(acme_refunds.permit) == 0 with input as refund(cents)
		{d.code | some d in acme_refunds.deny} == {"refund_over_limit"} with input as refund(cents)
	}
}

test_what_is_no_amount_is_denied if {
	every cents in [null, "42000", true, [], {}, 0, -5, 10.5] {
		count(acme_refunds.permit) == 0 with input as refund(cents)
		{d.code | some d in acme_refunds.deny} == {"refund_amount_unclear"} with input as refund(cents)
	}
	{d.code | some d in acme_refunds.deny} == {"refund_amount_unclear"} with input as ask("call", {})
}

test_small_refunds_that_add_up_wait_for_a_human if {
	count(acme_refunds.hold) == 0 with input as after(40000, 10000)
	{h.code | some h in acme_refunds.hold} == {"refunds_add_up"} with input as after(40001, 10000)
	{h.approval | some h in acme_refunds.hold} == {acme_refunds.approval} with input as after(40001, 10000)
}

test_a_refund_is_denied_when_nobody_says_what_went_before if {
	blind := {
		"phase": "call",
		"resource": {"id": "acme.refunds_create"},
		"context": {"args": {"amount_cents": 100}},
	}
	{d.code | some d in acme_refunds.deny} == {"refunded_so_far_unknown"} with input as blind
}

test_the_hold_is_the_same_when_resumed if {
	args := {"order_id": "ord_5002", "amount_cents": 42000, "reason": "damaged"}
	called := acme_refunds.hold with input as ask("call", args)
	resumed := acme_refunds.hold with input as ask("resume", args)
	count(called) == 1
	called == resumed
}

test_the_hold_asks_one_approver if {
	some h in acme_refunds.hold with input as refund(42000)
	h.approval.stages == [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}]
	h.approval.execute == "on_approval"
}

test_the_tool_is_listed_although_there_are_no_arguments_yet if {
	listing := {"phase": "list", "resource": {"id": "acme.refunds_create"}, "context": {}}
	count(acme_refunds.permit) == 1 with input as listing
	count(acme_refunds.deny) == 0 with input as listing
	count(acme_refunds.hold) == 0 with input as listing
}

test_other_tools_are_none_of_its_business if {
	other := object.union(refund(96000), {"resource": {"id": "acme.orders_get"}})
	count(acme_refunds.permit) == 0 with input as other
	count(acme_refunds.deny) == 0 with input as other
}
