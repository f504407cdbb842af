package writes_test

import data.policies.writes

call(effect, grant) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": "files.put", "server": "files", "effect": effect},
	"context": {"token": {"scopes": ["tools:call"], "constraints": [grant]}},
}

named := {"server": "files", "tool": "put"}

by_effect := {"server": "files", "effects": ["create", "update"]}

whole := {"server": "files"}

test_a_grant_that_names_the_tool_permits if {
	every effect in ["create", "update"] { count(writes.permit) == 1 with input as call(effect, named) }
}

test_a_grant_of_the_whole_server_or_of_effects_does_not if {
	count(writes.permit) == 0 with input as call("create", whole)
	count(writes.permit) == 0 with input as call("create", by_effect)
	count(writes.permit) == 0 with input as call("create", {"server": "files", "tool": "*"})
}

test_any_grant_may_do if {
	every grant in [whole, by_effect, named] {
		count(writes.permit) >= 1 with input as call("create", grant)
			with data.settings.writes.permit as "granted"
	}
}

test_none_may_do if {
	every word in ["none", "all", null, true] {
		count(writes.permit) == 0 with input as call("create", named)
			with data.settings.writes.permit as word
	}
}

test_other_effects_are_not_its_business if {
	every effect in ["read", "delete", "money", "privilege", "external_send", "unreviewed"] {
		count(writes.permit) == 0 with input as call(effect, named)
	}
}

test_the_scope_is_needed if {
	every scopes in [[], ["tools:list"]] {
		count(writes.permit) == 0 with input as object.union(call("create", named), {"context": {"token": {"scopes": scopes}}})
	}
}

narrowed(members) := {"context": {"token": {"narrowed": members}}}

test_a_tool_that_the_agent_named_itself_is_not_granted_by_name if {
	every members in [["tool"], ["tool", "max_calls"]] {
		count(writes.permit) == 0 with input as object.union(call("create", named), narrowed(members))
	}
	every members in [[], ["max_calls"]] {
		count(writes.permit) == 1 with input as object.union(call("create", named), narrowed(members))
	}
	count(writes.permit) == 1 with input as object.union(call("create", named), narrowed(["tool"]))
		with data.settings.writes.permit as "granted"
}
