package personal_data_test

import data.policies.personal_data

call(effect, server) := {
	"version": 1,
	"phase": "call",
	"subject": {"roles": ["support"]},
	"resource": {
		"id": concat(".", [server, "act"]), "server": server, "effect": effect,
		"labels": ["pii"], "sensitive": ["/iban"], "sinks": [],
	},
	"context": {"run": {"labels": ["pii"]}},
}

codes(items) := {item.code | some item in items}

test_without_settings_nothing_is_said if {
	count(personal_data.deny) == 0 with input as call("external_send", "mail")
	count(personal_data.obligation) == 0 with input as call("read", "crm")
}

test_personal_data_goes_only_to_servers_that_may_have_it if {
	codes(personal_data.deny) == {"personal_data_would_leave"} with input as call("external_send", "mail")
		with data.settings.personal_data.servers as ["crm"]
	codes(personal_data.deny) == set() with input as call("update", "crm")
		with data.settings.personal_data.servers as ["crm"]
}

test_before_it_was_read_nothing_leaves if {
	ask := object.union(call("external_send", "mail"), {"context": {"run": {"labels": ["untrusted"]}}})
	codes(personal_data.deny) == set() with input as ask
		with data.settings.personal_data.servers as ["crm"]
}

test_a_read_gives_nothing_away_unless_it_goes_somewhere if {
	codes(personal_data.deny) == set() with input as call("read", "web")
		with data.settings.personal_data.servers as ["crm"]
	codes(personal_data.deny) == {"personal_data_would_leave"} with input as object.union(
		call("read", "web"),
		{"resource": {"sinks": ["/url"]}},
	)
		with data.settings.personal_data.servers as ["crm"]
}

test_who_may_not_see_it_gets_answers_without_it if {
	personal_data.obligation == {{"type": "redact", "pointers": ["/iban"]}} with input as call("read", "crm")
		with data.settings.personal_data.roles as ["compliance"]
}

rows := {"resource": {"sensitive": [], "sensitive_out": ["/rows/*/iban", "/owner/name"]}}

test_what_an_answer_holds_is_taken_out_where_its_manifest_says if {
	ask := object.union(call("read", "crm"), rows)
	personal_data.obligation == {{"type": "redact", "pointers": ["/rows/*/iban", "/owner/name"]}} with input as ask
		with data.settings.personal_data.roles as ["compliance"]
	personal_data.obligation == set() with input as ask
		with data.settings.personal_data.roles as ["support"]
	personal_data.obligation == set() with input as ask
	count(personal_data.obligation) == 2 with input as object.union(call("update", "crm"), {"resource": {"sensitive_out": ["/x"]}})
		with data.settings.personal_data.roles as []
}

test_who_may_see_it_sees_it if {
	personal_data.obligation == set() with input as call("read", "crm")
		with data.settings.personal_data.roles as ["compliance", "support"]
}

test_a_tool_without_personal_data_is_not_redacted if {
	every change in [{"labels": [], "sensitive_out": ["/x"]}, {"sensitive": [], "sensitive_out": []}] {
		personal_data.obligation == set() with input as object.union(call("read", "crm"), {"resource": change})
			with data.settings.personal_data.roles as []
	}
}

test_a_setting_that_is_no_list_names_nobody if {
	codes(personal_data.deny) == {"personal_data_would_leave"} with input as call("update", "crm")
		with data.settings.personal_data.servers as "crm"
	count(personal_data.obligation) == 1 with input as call("read", "crm")
		with data.settings.personal_data.roles as "support"
	count(personal_data.obligation | personal_data.deny) == 0 with input as call("update", "crm")
		with data.settings.personal_data as {"servers": null, "roles": null}
}
