package grants_test

import data.policies.grants

issue(given) := {
	"version": 1,
	"phase": "issue",
	"resource": {"type": "run", "id": "bot", "server": ""},
	"context": {"token": {"constraints": given}},
}

codes(items) := {item.code | some item in items}

whole := {"server": "files", "tool": "*", "effects": []}

named := {"server": "files", "tool": "get"}

pay := {"server": "bank", "tool": "*", "effects": ["money"]}

test_without_settings_nothing_is_said if {
	codes(grants.deny) == set() with input as issue([whole, pay])
}

test_a_grant_of_a_whole_server_is_refused if {
	every grant in [whole, {"server": "files"}, {"server": "files", "tool": "*"}] {
		codes(grants.deny) == {"grant_too_wide"} with input as issue([named, grant])
			with data.settings.grants.named as true
	}
}

test_a_grant_of_a_tool_or_effect_is_not if {
	codes(grants.deny) == set() with input as issue([named, pay])
		with data.settings.grants.named as true
}

test_money_without_a_count_is_refused if {
	codes(grants.deny) == {"grant_unbounded"} with input as issue([pay])
		with data.settings.grants.bounded as ["money"]
	codes(grants.deny) == set() with input as issue([object.union(pay, {"max_calls": 3})])
		with data.settings.grants.bounded as ["money"]
	codes(grants.deny) == set() with input as issue([pay])
		with data.settings.grants.bounded as ["delete"]
}

test_a_grant_that_says_no_effects_may_be_of_any if {
	every grant in [whole, named, {"server": "bank", "tool": "pay"}, {"server": "bank"}] {
		codes(grants.deny) == {"grant_unbounded"} with input as issue([grant])
			with data.settings.grants.bounded as ["money"]
		codes(grants.deny) == set() with input as issue([object.union(grant, {"max_calls": 3})])
			with data.settings.grants.bounded as ["money"]
		codes(grants.deny) == set() with input as issue([object.union(grant, {"effects": ["read"]})])
			with data.settings.grants.bounded as ["money"]
	}
}
