package environments_test

import data.policies.environments

call(labels, environment) := {
	"version": 1,
	"phase": "list",
	"environment": environment,
	"resource": {"id": "bank.pay", "server": "bank", "effect": "read", "labels": labels},
}

codes(items) := {item.code | some item in items}

test_a_tool_of_another_environment_is_hidden_and_denied if {
	every phase in ["list", "call", "resume"] {
		ask := object.union(call(["env-prod", "pii"], "staging"), {"phase": phase})
		codes(environments.deny) == {"other_environment"} with input as ask
	}
}

test_a_tool_of_this_environment_is_not if {
	every labels in [["env-prod"], ["env-staging", "env-prod"], [], ["environment"]] {
		codes(environments.deny) == set() with input as call(labels, "prod")
	}
}

test_an_environment_that_is_not_told_is_another_one if {
	codes(environments.deny) == {"other_environment"} with input as json.remove(call(["env-prod"], ""), ["environment"])
	codes(environments.deny) == {"other_environment"} with input as json.remove(call([], ""), ["environment"])
		with data.settings.environment.servers as {"bank": ["prod"]}
}

test_a_server_may_belong_to_environments if {
	codes(environments.deny) == {"other_environment"} with input as call([], "staging")
		with data.settings.environment.servers as {"bank": ["prod"]}
	codes(environments.deny) == set() with input as call([], "prod")
		with data.settings.environment.servers as {"bank": ["prod"]}
	codes(environments.deny) == set() with input as call([], "staging")
		with data.settings.environment.servers as {"mail": ["prod"]}
	codes(environments.deny) == {"other_environment"} with input as call([], "prod")
		with data.settings.environment.servers as {"bank": []}
}
