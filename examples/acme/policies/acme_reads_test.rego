package policies.acme_reads_test

import data.policies.acme_reads

ask(phase, server, effect) := {
	"phase": phase,
	"resource": {"id": "acme.orders_get", "server": server, "effect": effect},
	"context": {"args": {"order_id": "ord_5001"}},
}

test_a_read_is_permitted_and_listed if {
	every phase in ["list", "call", "resume"] {
		count(acme_reads.permit) == 1 with input as ask(phase, "acme", "read")
	}
}

test_nothing_but_a_read_is_permitted if {
	every effect in ["create", "update", "delete", "external_send", "money", "privilege", "unreviewed"] {
		count(acme_reads.permit) == 0 with input as ask("call", "acme", effect)
	}
}

test_other_servers_and_phases_are_none_of_its_business if {
	count(acme_reads.permit) == 0 with input as ask("call", "billing", "read")
	count(acme_reads.permit) == 0 with input as ask("issue", "acme", "read")
	count(acme_reads.permit) == 0 with input as ask("result", "acme", "read")
}
