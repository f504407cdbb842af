package loops_test

import data.policies.loops

call(run) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": "mail.send", "server": "mail", "effect": "external_send"},
	"context": {"run": run},
}

codes(items) := {item.code | some item in items}

times(n) := ["mail.send" | some _ in numbers.range(1, n)]

test_nothing_else_for_many_calls_is_held if {
	codes(loops.hold) == {"many_in_a_row"} with input as call({"recent": array.concat(["mail.list"], times(20))})
	codes(loops.hold) == set() with input as call({"recent": array.concat(["mail.list"], times(19))})
	codes(loops.hold) == set() with input as call({"recent": array.concat(times(30), ["mail.list"])})
	codes(loops.hold) == set() with input as call({"recent": []})
}

test_too_many_of_one_are_denied if {
	codes(loops.deny) == {"too_many_of_one"} with input as call({"counts": {"mail.send": 100}})
	codes(loops.deny) == set() with input as call({"counts": {"mail.send": 99, "mail.list": 500}})
}

test_exactly_the_same_change_is_held if {
	codes(loops.hold) == {"change_repeated"} with input as call({"repeats": 3})
	codes(loops.hold) == set() with input as call({"repeats": 2})
}

test_limits_can_be_said if {
	full := call({"repeats": 1, "counts": {"mail.send": 2}, "recent": times(2)})
	codes(loops.hold | loops.deny) == {"many_in_a_row", "too_many_of_one", "change_repeated"} with input as full
		with data.settings.loops as {"in_a_row": 2, "per_tool": 2, "same_call": 1}
}

test_zero_is_no_limit if {
	full := call({"repeats": 100, "counts": {"mail.send": 2000}, "recent": times(50)})
	codes(loops.hold | loops.deny) == set() with input as full
		with data.settings.loops as {"in_a_row": 0, "per_tool": 0, "same_call": 0}
}

test_reads_may_repeat if {
	full := object.union(call({"repeats": 100, "recent": times(50)}), {"resource": {"effect": "read"}})
	codes(loops.hold | loops.deny) == set() with input as full
}
