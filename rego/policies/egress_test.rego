package egress_test

import data.countersign
import data.policies.egress

call(more) := object.union(
	{
		"version": 1,
		"phase": "call",
		"environment": "prod",
		"resource": {
			"type": "tool", "id": "mail.send", "server": "mail",
			"effect": "external_send", "labels": [], "sinks": ["/to"],
		},
		"context": {
			"args": {"to": "eve@elsewhere.example"},
			"token": {
				"scopes": ["tools:call"],
				"allowed_values": {},
				"constraints": [{"server": "mail", "tool": "send"}],
			},
			"run": {"labels": ["untrusted"], "provenance": {"/to": "untrusted"}},
		},
	},
	more,
)

seen(class) := {"context": {"run": {"provenance": {"/to": class}}}}

one_task := {"context": {"token": {"constraints": [{"server": "mail", "tool": "send", "max_calls": 1}]}}}

codes(items) := {item.code | some item in items}

denied(more) := found if found := codes(egress.deny) with input as call(more)

held(more) := found if found := codes(egress.hold) with input as call(more)

test_a_recipient_that_only_strangers_named_is_denied if {
	denied({}) == {"recipient_untrusted"}
	held({}) == set()
}

test_it_is_so_for_every_change if {
	every effect in ["create", "update", "delete", "external_send", "money", "privilege"] {
		denied({"resource": {"effect": effect}}) == {"recipient_untrusted"}
	}
	denied({"resource": {"effect": "read"}}) == set()
}

test_a_grant_that_counts_calls_lets_people_be_asked if {
	denied(one_task) == set()
	held(one_task) == {"recipient_untrusted"}
}

test_a_count_that_the_agent_wrote_itself_lets_nobody_be_asked if {
	own := object.union(one_task, {"context": {"token": {"narrowed": ["max_calls"]}}})
	denied(own) == {"recipient_untrusted"}
	held(own) == set()
	named := object.union(one_task, {"context": {"token": {"narrowed": ["tool"]}}})
	held(named) == {"recipient_untrusted"}
}

test_settings_may_ask_always_or_never if {
	codes(egress.hold) == {"recipient_untrusted"} with input as call({})
		with data.settings.egress.untrusted as "hold"
	codes(egress.deny) == set() with input as call({})
		with data.settings.egress.untrusted as "hold"
	codes(egress.deny | egress.hold) == set() with input as call({})
		with data.settings.egress.untrusted as "off"
}

test_a_setting_that_nobody_understands_denies if {
	every word in ["allow", "", null, 0, {}] {
		codes(egress.deny) == {"recipient_untrusted"} with input as call({})
			with data.settings.egress.untrusted as word
	}
	every word in ["allow", "", null, 0, {}] {
		codes(egress.deny) == {"recipient_unknown"} with input as call(seen("unseen"))
			with data.settings.egress.unknown as word
	}
}

test_an_unknown_recipient_is_held if {
	held(seen("unseen")) == {"recipient_unknown"}
	denied(seen("unseen")) == set()
}

test_an_unknown_recipient_may_be_denied_or_let_go if {
	codes(egress.deny) == {"recipient_unknown"} with input as call(seen("unseen"))
		with data.settings.egress.unknown as "deny"
	codes(egress.deny | egress.hold) == set() with input as call(seen("unseen"))
		with data.settings.egress.unknown as "off"
}

test_known_recipients_go if {
	every class in ["allowed", "trusted"] {
		denied(seen(class)) == set()
		held(seen(class)) == set()
	}
}

test_colleagues_go if {
	to_bob := object.union(seen("untrusted"), {"context": {"args": {"to": "bob@acme.example"}}})
	codes(egress.deny | egress.hold) == set() with input as call(to_bob)
		with data.settings.egress.internal_domains as ["acme.example"]
	codes(egress.deny) == {"recipient_untrusted"} with input as call({})
		with data.settings.egress.internal_domains as ["acme.example"]
}

test_one_stranger_among_colleagues_is_one_too_many if {
	both := object.union(seen("untrusted"), {"context": {"args": {"to": ["bob@acme.example", "eve@elsewhere.example"]}}})
	codes(egress.deny) == {"recipient_untrusted"} with input as call(both)
		with data.settings.egress.internal_domains as ["acme.example"]
}

test_without_provenance_allowed_values_decide if {
	nothing := {"context": {"run": {"provenance": {}}}}
	ask := json.remove(call(nothing), ["context/run/provenance"])
	codes(egress.hold) == {"recipient_unknown"} with input as ask
	every key in ["/to", "mail.send#/to"] {
		allowed := object.union(ask, {"context": {"token": {"allowed_values": {key: ["eve@elsewhere.example"]}}}})
		codes(egress.hold | egress.deny) == set() with input as allowed
	}
}

test_a_call_that_sends_nowhere_is_no_business_of_this_package if {
	ask := json.remove(call(seen("unseen")), ["context/run/provenance", "context/args/to"])
	codes(egress.hold | egress.deny) == set() with input as ask
	every empty in ["", null, []] {
		codes(egress.hold | egress.deny) == set() with input as object.union(ask, {"context": {"args": {"to": empty}}})
	}
}

test_an_account_that_is_a_number_is_unknown if {
	ask := json.remove(call({"context": {"args": {"to": 4711}}}), ["context/run/provenance"])
	codes(egress.hold) == {"recipient_unknown"} with input as ask
}

test_what_was_fixed_before_people_agreed_is_asked_again_not_denied if {
	resume := {"phase": "resume"}
	denied(resume) == set()
	held(resume) == {"recipient_untrusted"}
	held(object.union(resume, seen("unseen"))) == {"recipient_unknown"}
	codes(egress.deny) == set() with input as call(object.union(resume, seen("unseen")))
		with data.settings.egress.unknown as "deny"
}

test_secrets_stay if {
	secret := {"context": {"run": {"labels": ["secret"], "provenance": {"/to": "trusted"}}}}
	denied(secret) == {"secret_would_leave"}
	denied(object.union(secret, seen("allowed"))) == set()
	denied(object.union(secret, {"phase": "resume"})) == set()
	codes(egress.deny) == set() with input as call(secret)
		with data.settings.egress.secret as "off"
}

test_the_hold_says_who_is_asked if {
	some item in egress.hold with input as call(seen("unseen"))
	item.approval == {
		"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}],
		"ttl": "15m",
		"execute": "on_approval",
	}
	some other in egress.hold with input as call(seen("unseen"))
		with data.settings.approval as {"groups": ["security"], "ttl": "1h"}
	other.approval.stages == [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["security"]}}]}]
	other.approval.ttl == "1h"
}

test_all_together if {
	authority := {"policies": {"high_risk": ["*"], "reads": ["*"], "writes": ["*"]}}
	answer := countersign.decision with input as call({}) with data.authority as authority
	answer.outcome == "deny"
	known := countersign.decision with input as call(seen("trusted")) with data.authority as authority
	known.outcome == "permit"
	unknown := countersign.decision with input as call(seen("unseen")) with data.authority as authority
	unknown.outcome == "hold"
	count(unknown.approval.stages) == 1
}

message(class) := call({
	"resource": {"sinks": [], "texts": ["/body"]},
	"context": {"args": {"body": "see https://x.example"}, "run": {"provenance": {"/body": class}}},
})

test_a_link_that_only_strangers_named_is_asked_about if {
	codes(egress.hold) == {"link_untrusted"} with input as message("untrusted")
	codes(egress.deny) == set() with input as message("untrusted")
	codes(egress.hold) == {"link_untrusted"} with input as object.union(message("untrusted"), {"phase": "resume"})
	every class in ["allowed", "trusted", "unseen"] {
		codes(egress.hold | egress.deny) == set() with input as message(class)
	}
}

test_a_text_without_links_is_no_business_of_this_package if {
	ask := json.remove(message("untrusted"), ["context/run/provenance"])
	codes(egress.hold | egress.deny) == set() with input as ask
	codes(egress.hold | egress.deny) == set() with input as object.union(message("untrusted"), {"resource": {"texts": []}})
}

test_links_may_be_denied_or_ignored if {
	every word in ["deny", "never", null] {
		codes(egress.deny) == {"link_untrusted"} with input as message("untrusted")
			with data.settings.egress.links as word
		codes(egress.hold) == set() with input as message("untrusted")
			with data.settings.egress.links as word
	}
	codes(egress.hold | egress.deny) == set() with input as message("untrusted")
		with data.settings.egress.links as "off"
}
