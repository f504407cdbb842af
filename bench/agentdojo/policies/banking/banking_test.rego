package banking_test

import data.policies.banking

call(tool, args, run) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": concat(".", ["banking", tool]), "server": "banking"},
	"context": {"args": args, "run": run},
}

strangers(labels) := {"labels": labels, "provenance": {"/recipient": "untrusted"}}

codes(items) := {item.code | some item in items}

test_an_account_out_of_a_subject_is_denied if {
	every account in ["US133000000121212121212", "GB29 NWBK 6016 1331 9268 19", "12-34-56 7890"] {
		ask := call("send_money", {"recipient": account}, strangers(["untrusted"]))
		codes(banking.deny) == {"account_from_a_subject"} with input as ask
	}
}

test_after_a_bill_was_read_others_judge if {
	ask := call("send_money", {"recipient": "US1330000001212"}, strangers(["untrusted", "document"]))
	codes(banking.deny) == set() with input as ask
}

test_accounts_that_were_paid_before_are_no_matter_of_this if {
	run := {"labels": ["untrusted"], "provenance": {"/recipient": "trusted"}}
	codes(banking.deny) == set() with input as call("send_money", {"recipient": "US1330000001212"}, run)
}

test_a_large_standing_order_waits if {
	ask := call("update_scheduled_transaction", {"id": 1, "amount": 5001}, {"labels": []})
	codes(banking.hold) == {"order_large"} with input as ask
}

test_one_up_to_the_cap_or_without_an_amount_does_not if {
	every args in [{"id": 1, "amount": 5000}, {"id": 1}, {"id": 1, "amount": null}] {
		ask := call("update_scheduled_transaction", args, {"labels": []})
		codes(banking.hold) == set() with input as ask
	}
}

test_what_is_no_amount_waits if {
	every amount in ["5001", true, [], {}] {
		ask := call("update_scheduled_transaction", {"id": 1, "amount": amount}, {"labels": []})
		codes(banking.hold) == {"order_amount_unclear"} with input as ask
	}
}
