package lib_rate_test

import data.countersign.lib.grants
import data.countersign.lib.labels
import data.countersign.lib.rate

run(members) := {"context": {"run": members, "family": {"last_minute": 4}}}

test_counts if {
	rate.calls == 9 with input as run({"calls": 9})
	rate.count_of("a.b") == 3 with input as run({"counts": {"a.b": 3}})
	rate.count_of("a.c") == 0 with input as run({"counts": {"a.b": 3}})
	rate.repeats == 2 with input as run({"repeats": 2})
	rate.last_minute == 4 with input as run({})
	not counted
}

counted if rate.count_of("a.b") >= 0 with input as run({})

test_a_streak_is_unbroken if {
	rate.streak("a.b", 2) with input as run({"recent": ["a.c", "a.b", "a.b"]})
	not streak(3)
	not streak(9)
}

streak(n) if rate.streak("a.b", n) with input as run({"recent": ["a.b", "a.c", "a.b", "a.b"]})

test_labels if {
	labels.run_has("pii") with input as run({"labels": ["pii"]})
	labels.private_read with input as run({"labels": ["pii"]})
	labels.untrusted with input as run({"labels": ["untrusted"]})
	labels.tool_has("pii") with input as {"resource": {"labels": ["pii"]}}
	not private(["untrusted"])
	not private([])
}

private(list) if labels.private_read with input as run({"labels": list})

test_scopes if {
	grants.scoped with input as {"phase": "list", "context": {"token": {"scopes": ["tools:list"]}}}
	grants.scoped with input as {"phase": "resume", "context": {"token": {"scopes": ["tools:call"]}}}
	not scoped("call", ["tools:list"])
	not scoped("list", ["tools:call"])
	not scoped("result", ["tools:list", "tools:call"])
}

scoped(phase, scopes) if grants.scoped with input as {"phase": phase, "context": {"token": {"scopes": scopes}}}
