package policies.acme_records_test

import data.policies.acme_records

ask(phase, tool) := {
	"phase": phase,
	"resource": {"id": tool, "server": "acme"},
	"context": {"args": {}},
}

test_notes_and_cancellations_are_permitted if {
	every tool in ["acme.notes_add", "acme.orders_cancel"] {
		every phase in ["list", "call", "resume"] {
			count(acme_records.permit) == 1 with input as ask(phase, tool)
		}
	}
}

test_no_other_tool_is_permitted if {
	count(acme_records.permit) == 0 with input as ask("call", "acme.refunds_create")
}
