package workspace_test

import data.policies.workspace

call(args, labels) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": "workspace.send_email", "server": "workspace", "effect": "external_send"},
	"context": {
		"args": object.union({"recipients": ["ann@example.org"], "subject": "Hi"}, args),
		"token": {"constraints": [{"server": "workspace", "tool": "send_email"}]},
		"run": {"labels": labels},
	},
}

for_a_task := [{"server": "workspace", "tool": "send_email", "max_calls": 1}]

codes(items) := {item.code | some item in items}

found(args, labels) := answer if {
	answer := codes(workspace.deny) with input as call(args, labels)
		with data.settings.egress.internal_domains as ["example.org"]
}

test_a_link_to_the_outside_is_denied_after_reading_strangers if {
	every body in ["see https://bit.ly/x", "see www.elsewhere.example", "HTTPS://ELSEWHERE.example/"] {
		found({"body": body}, ["untrusted"]) == {"link_after_untrusted"}
	}
}

test_before_that_or_to_the_inside_it_goes if {
	found({"body": "see https://bit.ly/x"}, []) == set()
	found({"body": "see https://example.org/minutes"}, ["untrusted"]) == set()
	found({"body": "no link"}, ["untrusted"]) == set()
}

test_a_host_that_readers_could_take_for_another_is_outside if {
	found({"body": "https://example.org@elsewhere.example/"}, ["untrusted"]) == {"link_after_untrusted"}
}

test_notes_to_oneself_may_have_links if {
	found({"recipients": [], "body": "https://bit.ly/x"}, ["untrusted"]) == set()
}

test_for_a_task_people_are_asked if {
	asked := call({"body": "https://bit.ly/x"}, ["untrusted"])
	counted := object.union(asked, {"context": {"token": {"constraints": for_a_task}}})
	codes(workspace.hold) == {"link_after_untrusted"} with input as counted
	codes(workspace.deny) == set() with input as counted
}
