package countersign_test

import data.countersign

ask(phase, server) := {
	"version": 1,
	"phase": phase,
	"resource": {"type": "tool", "id": sprintf("%s.act", [server]), "server": server, "effect": "update"},
}

everywhere := {"policies": {"a": ["*"], "b": ["*"]}}

yes := {"permit": {{"code": "yes"}}}

no := {"deny": {{"code": "no"}}}

wait := {"hold": {{"code": "wait"}}}

waits(approval) := {"hold": {{"code": "wait", "approval": approval}}}

one_of(group) := {"any_of": [{"approve": 1, "deny": 1, "who": {"groups": [group]}}]}

decide(packages, question) := answer if {
	answer := countersign.decision with data.policies as packages
		with data.authority as everywhere
		with data.applies_to as {}
		with input as question
}

codes(decision) := [reason.code | some reason in decision.reasons]

test_nobody_permits_and_the_answer_is_deny if {
	answer := decide({"a": {}}, ask("call", "shop"))
	answer.outcome == "deny"
	codes(answer) == ["no_policy_permits"]
}

test_one_permit_is_enough if {
	answer := decide({"a": yes, "b": {}}, ask("call", "shop"))
	answer == {"outcome": "permit", "reasons": [{"code": "yes", "policy": "a"}], "obligations": []}
}

test_any_deny_wins if {
	answer := decide({"a": object.union(yes, wait), "b": no}, ask("call", "shop"))
	answer == {"outcome": "deny", "reasons": [{"code": "no", "policy": "b"}], "obligations": []}
}

test_a_deny_counts_however_it_is_written if {
	every item in ["no", 1, null, {}, {"message": "x"}, {"code": 7}] {
		answer := decide({"a": yes, "b": {"deny": {item}}}, ask("call", "shop"))
		answer.outcome == "deny"
		codes(answer) == ["reason_invalid"]
	}
}

test_a_hold_needs_a_permit if {
	decide({"a": wait}, ask("call", "shop")).outcome == "deny"
	decide({"a": wait, "b": yes}, ask("call", "shop")).outcome == "hold"
}

test_a_hold_asks_one_approver_unless_it_says_otherwise if {
	answer := decide({"a": wait, "b": yes}, ask("call", "shop"))
	answer.approval == {"stages": [one_of("approver")], "ttl": "900s", "execute": "on_approval"}
}

test_of_several_holds_everything_is_asked if {
	first := waits({"stages": [one_of("finance"), one_of("legal")], "ttl": "1h"})
	second := waits({"stages": [one_of("security")], "ttl": "5m", "execute": "on_redeem"})
	answer := decide({"a": first, "b": object.union(second, yes)}, ask("call", "shop"))
	answer.approval == {
		"stages": [one_of("finance"), one_of("legal"), one_of("security")],
		"ttl": "300s",
		"execute": "on_redeem",
	}
}

test_what_two_packages_ask_in_the_same_words_is_asked_once if {
	answer := decide({"a": wait, "b": object.union(wait, yes)}, ask("call", "shop"))
	answer.approval.stages == [one_of("approver")]
}

test_what_one_hold_asks_twice_is_asked_twice if {
	twice := waits({"stages": [one_of("approver"), one_of("approver")]})
	answer := decide({"a": twice, "b": yes}, ask("call", "shop"))
	count(answer.approval.stages) == 2
}

test_an_approval_that_cannot_be_read_denies if {
	every approval in [
		null,
		"soon",
		{"stages": []},
		{"stages": "all"},
		{"ttl": "0s"},
		{"ttl": "a while"},
		{"ttl": 900},
		{"execute": "at_once"},
		{"sod": true},
	] {
		answer := decide({"a": waits(approval), "b": yes}, ask("call", "shop"))
		answer.outcome == "deny"
		codes(answer) == ["approval_invalid"]
	}
}

test_a_package_permits_only_its_own_servers if {
	authority := {"policies": {"a": ["shop"]}}
	mine := countersign.decision with data.policies as {"a": yes}
		with data.authority as authority
		with input as ask("call", "shop")
	mine.outcome == "permit"
	other := countersign.decision with data.policies as {"a": yes}
		with data.authority as authority
		with input as ask("call", "bank")
	other.outcome == "deny"
	codes(other) == ["no_policy_permits", "permit_without_authority"]
}

test_anyone_may_deny_or_hold if {
	authority := {"policies": {"a": ["shop"]}}
	denied := countersign.decision with data.policies as {"a": yes, "b": no}
		with data.authority as authority
		with input as ask("call", "shop")
	denied.outcome == "deny"
	held := countersign.decision with data.policies as {"a": yes, "b": wait}
		with data.authority as authority
		with input as ask("call", "shop")
	held.outcome == "hold"
}

test_without_authority_nobody_permits if {
	answer := countersign.decision with data.policies as {"a": yes}
		with data.authority as {}
		with input as ask("call", "shop")
	answer.outcome == "deny"
}

test_a_result_is_released_unless_denied if {
	decide({"a": {}}, ask("result", "shop")).outcome == "permit"
	decide({"a": no}, ask("result", "shop")).outcome == "deny"
}

test_a_result_cannot_be_held if {
	answer := decide({"a": object.union(yes, wait)}, ask("result", "shop"))
	answer.outcome == "deny"
	codes(answer) == ["result_held"]
}

test_obligations_of_all_packages_are_collected if {
	first := {"obligation": {{"type": "redact", "pointers": ["/card"]}}}
	second := {"obligation": {{"type": "limit_result", "bytes": 100}}}
	every phase in ["call", "result"] {
		answer := decide({"a": object.union(first, yes), "b": second}, ask(phase, "shop"))
		answer.outcome == "permit"
		{item.type | some item in answer.obligations} == {"redact", "limit_result"}
	}
}

test_an_input_of_another_kind_is_denied if {
	every question in [{}, null, 1, object.union(ask("call", "shop"), {"version": 2}), ask("guess", "shop")] {
		answer := decide({"a": yes}, question)
		answer.outcome == "deny"
		codes(answer) == ["input_unknown"]
	}
}

test_reasons_are_bounded_in_number if {
	many := {"deny": {{"code": sprintf("no_%d", [n])} | some n in numbers.range(1, 50)}}
	count(decide({"a": many}, ask("call", "shop")).reasons) == 32
}

test_messages_are_bounded_in_bytes if {
	every letter in ["a", "ß", "€", "🙂"] {
		text := concat("", [letter | some _ in numbers.range(1, 300)])
		answer := decide({"a": {"deny": {{"code": "no", "message": text}}}}, ask("call", "shop"))
		message := answer.reasons[0].message
		startswith(text, message)
		count(message) >= 64
		count(base64.encode(message)) <= 344
	}
}

heard(scope, question) if {
	answer := countersign.decision with data.policies as {"a": no, "b": yes}
		with data.authority as everywhere
		with data.applies_to as {"a": scope}
		with input as question
	answer.outcome == "deny"
}

test_a_package_is_heard_about_what_it_concerns if {
	heard({}, ask("call", "shop"))
	heard({"phases": ["call"]}, ask("call", "shop"))
	heard({"servers": ["bank", "shop"]}, ask("call", "shop"))
	heard({"effects": ["update"]}, ask("call", "shop"))
	heard({"tools": [`\A(?s:shop\..*)\z`]}, ask("call", "shop"))
	heard({"phases": ["call"], "servers": ["shop"], "effects": ["update"]}, ask("call", "shop"))
}

test_a_package_is_not_heard_about_anything_else if {
	every scope in [
		{"phases": []},
		{"phases": ["list"]},
		{"servers": ["bank"]},
		{"effects": ["read"]},
		{"tools": [`\A(?s:bank\..*)\z`]},
		{"phases": ["call"], "servers": ["bank"]},
	] {
		not heard(scope, ask("call", "shop"))
	}
}

# --- what an agent claims -----------------------------------------------------------------------

claiming(claimed) := object.union(ask("call", "shop"), {"context": {"claimed": claimed}})

test_an_input_without_claims_is_judged_once if {
	decide({"a": yes}, claiming({})) == decide({"a": yes}, ask("call", "shop"))
}

test_claims_that_nobody_reads_change_nothing if {
	decide({"a": yes}, claiming({"sure": true})) == decide({"a": yes}, claiming({}))
}

test_the_stricter_of_two_answers_counts if {
	permit := {"outcome": "permit", "reasons": [], "obligations": [{"type": "a"}]}
	deny := {"outcome": "deny", "reasons": [], "obligations": []}
	hold := {"outcome": "hold", "reasons": [], "obligations": [{"type": "b"}], "approval": {
		"stages": [one_of("ops")], "ttl": "900s", "execute": "on_approval",
	}}
	countersign.stricter(permit, deny) == deny
	countersign.stricter(deny, hold) == deny
	countersign.stricter(permit, hold).outcome == "hold"
	countersign.stricter(hold, permit).obligations == [{"type": "b"}, {"type": "a"}]
	countersign.stricter(permit, permit) == permit
}

test_two_holds_must_both_be_met if {
	hold := {"outcome": "hold", "reasons": [], "obligations": [], "approval": {
		"stages": [one_of("ops")], "ttl": "900s", "execute": "on_redeem",
	}}
	other := {"outcome": "hold", "reasons": [], "obligations": [], "approval": {
		"stages": [one_of("finance"), one_of("ops")], "ttl": "1800s", "execute": "on_approval",
	}}
	both := countersign.stricter(hold, other)
	both.approval.stages == [one_of("finance"), one_of("ops")]
	both.approval.ttl == "900s"
	both.approval.execute == "on_redeem"
	countersign.stricter(hold, hold) == hold
}
