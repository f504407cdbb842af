package high_risk_test

import data.policies.high_risk

call(effect, class, more) := object.union(
	{
		"version": 1,
		"phase": "call",
		"resource": {"id": "bank.pay", "server": "bank", "effect": effect, "sinks": ["/to"], "sums": ["/amount"]},
		"context": {
			"args": {"to": "DE02", "amount": 10},
			"token": {"scopes": ["tools:call", "tools:list"], "allowed_values": {}},
			"run": {"provenance": {"/to": class}},
		},
	},
	more,
)

effects := ["money", "delete", "privilege", "external_send"]

codes(items) := {item.code | some item in items}

held(effect, class, more) := found if found := codes(high_risk.hold) with input as call(effect, class, more)

test_what_cannot_be_taken_back_is_held if {
	every effect in effects {
		held(effect, "unseen", {}) == {sprintf("%s_needs_approval", [effect])}
		codes(high_risk.permit) == {"allowed_once_approved"} with input as call(effect, "unseen", {})
	}
}

test_what_the_launcher_named_goes if {
	every effect in effects {
		held(effect, "allowed", {}) == set()
		codes(high_risk.permit) == {"recipient_known"} with input as call(effect, "allowed", {})
	}
}

test_a_message_goes_to_whom_a_trusted_place_names if {
	held("external_send", "trusted", {}) == set()
	every effect in ["money", "delete", "privilege"] { held(effect, "trusted", {}) != set() }
}

test_one_unknown_recipient_holds_all if {
	two := {"resource": {"sinks": ["/to", "/copy"]}, "context": {"args": {"copy": "x"}}}
	held("external_send", "allowed", two) != set()
}

test_a_tool_without_sinks_is_always_held if {
	every effect in effects {
		held(effect, "allowed", {"resource": {"sinks": []}}) != set()
		codes(high_risk.hold) != set() with input as json.remove(call(effect, "allowed", {}), ["resource/sinks"])
	}
}

test_a_call_without_a_recipient_is_held if {
	nobody := {"context": {"args": {"to": null}, "run": {"provenance": {"/to": "unseen"}}}}
	held("external_send", "unseen", nobody) != set()
	ask := json.remove(call("external_send", "allowed", {}), ["context/args/to", "context/run/provenance"])
	codes(high_risk.hold) != set() with input as ask
}

test_money_without_an_amount_is_held if {
	every amount in [null, "10", [10]] { held("money", "allowed", {"context": {"args": {"amount": amount}}}) != set() }
	held("money", "allowed", {"resource": {"sums": []}}) != set()
}

test_constraints_of_a_token_release_nothing if {
	own_words := {"context": {"token": {"constraints": [{
		"server": "bank", "tool": "pay", "max_calls": 1,
		"constraints": {"/to": {"one_of": ["DE02"]}, "/amount": {"max": 10}},
	}]}}}
	every effect in effects { held(effect, "unseen", own_words) != set() }
}

test_what_is_released_can_be_said if {
	codes(high_risk.hold) == {"delete_needs_approval"} with input as call("delete", "allowed", {})
		with data.settings.high_risk.named as ["external_send"]
	codes(high_risk.hold) == {"external_send_needs_approval"} with input as call("external_send", "trusted", {})
		with data.settings.high_risk.looked_up as []
	codes(high_risk.hold) == set() with input as call("privilege", "trusted", {})
		with data.settings.high_risk.looked_up as ["privilege"]
}

test_without_the_scope_nothing_is_said if {
	ask := call("money", "unseen", {"context": {"token": {"scopes": []}}})
	codes(high_risk.hold | high_risk.permit) == set() with input as ask
}

test_reading_and_writing_are_not_held if {
	every effect in ["read", "create", "update", "unreviewed"] { held(effect, "unseen", {}) == set() }
}

excepting(tools, effect) := found if {
	found := codes(high_risk.hold | high_risk.permit) with input as call(effect, "unseen", {})
		with data.settings.high_risk.except as tools
}

test_a_tool_that_is_taken_out_is_neither_held_nor_permitted if {
	every effect in effects {
		every phase in ["list", "call", "resume"] {
			ask := call(effect, "allowed", {"phase": phase})
			codes(high_risk.hold | high_risk.permit) == set() with input as ask
				with data.settings.high_risk.except as ["bank.pay"]
		}
	}
}

test_only_the_very_tool_is_taken_out if {
	every tools in [[], ["bank.payout"], ["bank.*"], ["*"], ["bank"], "bank.pay", {"bank.pay": true}, null] {
		excepting(tools, "money") == {"allowed_once_approved", "money_needs_approval"}
	}
}

whole(tools, payouts) := answer.outcome if {
	answer := data.countersign.decision with data.settings.high_risk.except as tools
		with data.policies.payouts as payouts
		with data.authority.policies as {"high_risk": ["*"], "payouts": ["bank"]}
		with input as call("money", "unseen", {"resource": {"sinks": [], "sums": []}})
}

test_what_is_taken_out_needs_a_permit_of_somebody_else if {
	whole([], {"permit": {{"code": "small"}}}) == "hold"
	whole(["bank.pay"], {"permit": {{"code": "small"}}}) == "permit"
	whole(["bank.pay"], {}) == "deny"
}
