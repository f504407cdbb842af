package policies.acme_email_test

import data.policies.acme_email

mail(to, allowed_values) := {
	"phase": "call",
	"resource": {"id": "acme.email_send", "server": "acme", "effect": "external_send"},
	"context": {
		"args": {"to": to, "subject": "Your order", "body": "Hello"},
		"token": {"allowed_values": allowed_values},
	},
}

keller := {"acme.email_send#/to": ["maria.keller@keller-optik.example"]}

test_colleagues_are_reachable if {
	every to in ["support@acme.example", "Support@ACME.example"] {
		count(acme_email.permit) == 1 with input as mail(to, {})
		count(acme_email.deny) == 0 with input as mail(to, {})
	}
}

test_the_customers_of_the_run_are_reachable if {
	every to in ["maria.keller@keller-optik.example", "Maria.Keller@Keller-Optik.example"] {
		count(acme_email.permit) == 1 with input as mail(to, keller)
		count(acme_email.deny) == 0 with input as mail(to, keller)
	}
}

test_a_named_recipient_does_not_open_the_domain if {
	count(acme_email.deny) == 1 with input as mail("someone@keller-optik.example", keller)
}

test_values_for_other_tools_open_nothing if {
	values := {"acme.notes_add#/to": ["maria.keller@keller-optik.example"]}
	count(acme_email.deny) == 1 with input as mail("maria.keller@keller-optik.example", values)
}

test_anyone_else_is_outside if {
	every to in [
		"archive@collector.example",
		"maria@keller-optik.example.collector.example",
		"maria@sub.keller-optik.example",
		"keller-optik.example",
		"@keller-optik.example",
		"a@collector.example,b@keller-optik.example",
		"",
		null,
		7,
	] {
		count(acme_email.permit) == 0 with input as mail(to, keller)
		{d.code | some d in acme_email.deny} == {"recipient_outside"} with input as mail(to, keller)
	}
}

test_a_run_without_allowed_values_reaches_colleagues_only if {
	to := "maria.keller@keller-optik.example"
	bare := object.remove(mail(to, {}), ["context"])
	no_token := object.union(bare, {"context": {"args": {"to": to}}})
	count(acme_email.deny) == 1 with input as no_token
	count(acme_email.permit) == 0 with input as no_token
}

test_the_tool_is_listed if {
	listing := {"phase": "list", "resource": {"id": "acme.email_send"}, "context": {}}
	count(acme_email.permit) == 1 with input as listing
	count(acme_email.deny) == 0 with input as listing
}
