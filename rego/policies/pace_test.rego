package pace_test

import data.policies.pace

call(run, family) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": "web.get", "server": "web", "effect": "read"},
	"context": {"run": run, "family": family},
}

codes(items) := {item.code | some item in items}

denied(run, family) := found if found := codes(pace.deny) with input as call(run, family)

test_a_run_ends if {
	denied({"calls": 4999}, {}) == set()
	denied({"calls": 5000}, {}) == {"run_too_long"}
}

test_a_minute_is_full if {
	denied({"calls": 1}, {"last_minute": 239}) == set()
	denied({"calls": 1}, {"last_minute": 240}) == {"too_fast"}
}

test_the_same_call_is_not_made_forever if {
	denied({"calls": 30, "repeats": 49}, {}) == set()
	denied({"calls": 30, "repeats": 50}, {}) == {"same_call_repeated"}
}

test_what_the_gateway_does_not_count_is_not_denied if denied({}, {}) == set()

test_limits_can_be_said if {
	full := call({"calls": 10, "repeats": 5}, {"last_minute": 10})
	codes(pace.deny) == {"run_too_long", "too_fast", "same_call_repeated"} with input as full
		with data.settings.pace as {"calls_per_run": 10, "calls_per_minute": 10, "same_call": 5}
}

test_zero_is_no_limit if {
	full := call({"calls": 100000, "repeats": 500}, {"last_minute": 10000})
	codes(pace.deny) == set() with input as full
		with data.settings.pace as {"calls_per_run": 0, "calls_per_minute": 0, "same_call": 0}
}

test_approved_calls_are_not_too_late if {
	ask := object.union(call({"calls": 9000}, {}), {"phase": "resume"})
	codes(pace.deny) == set() with input as ask
}
