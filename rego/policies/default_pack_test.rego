package default_pack_test

import data.countersign

question(phase, effect) := {
	"version": 1,
	"phase": phase,
	"resource": {"type": "tool", "id": "shop.act", "server": "shop", "effect": effect},
	"context": {"args": {}, "token": {"scopes": ["tools:call", "tools:list"]}},
}

authority := {"policies": {"reads": ["*"], "high_risk": ["*"], "runs": ["*"], "writes": ["*"]}}

decide(ask) := answer if {
	answer := countersign.decision with data.authority as authority
		with input as ask
}

codes(decision) := {reason.code | some reason in decision.reasons}

phases := ["list", "call", "resume"]

test_reading_is_permitted if {
	every phase in phases {
		decide(question(phase, "read")).outcome == "permit"
	}
}

test_reading_needs_the_scope if {
	every phase in phases {
		ask := object.union(question(phase, "read"), {"context": {"token": {"scopes": []}}})
		decide(ask).outcome == "deny"
	}
}

test_what_cannot_be_taken_back_waits_for_a_human if {
	every effect in ["money", "delete", "privilege", "external_send"] {
		every phase in phases {
			answer := decide(question(phase, effect))
			answer.outcome == "hold"
			codes(answer) == {sprintf("%s_needs_approval", [effect])}
			answer.approval.stages == [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": ["approver"]}}]}]
			answer.approval.ttl == "900s"
		}
	}
}

test_other_writes_are_denied_until_a_policy_permits_them if {
	every effect in ["create", "update"] {
		codes(decide(question("call", effect))) == {"no_policy_permits"}
	}
}

test_a_tool_that_nobody_reviewed_is_denied if {
	every effect in ["unreviewed", "", "harmless", null] {
		every phase in phases {
			answer := decide(question(phase, effect))
			answer.outcome == "deny"
			codes(answer) == {"tool_unreviewed"}
		}
	}
}

test_authority_is_handed_out_as_configured if {
	ask := {
		"version": 1,
		"phase": "issue",
		"subject": {"type": "launcher", "id": "nightly"},
		"resource": {"type": "run", "id": "bookkeeper", "server": ""},
	}
	answer := decide(ask)
	answer.outcome == "permit"
	codes(answer) == {"grants_configured"}
}

test_results_are_released if {
	decide(question("result", "read")).outcome == "permit"
}
