package fetches_test

import data.policies.fetches

call(labels, class) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": "web.get", "server": "web", "effect": "read", "labels": [], "sinks": ["/url"]},
	"context": {
		"args": {"url": "https://elsewhere.example/?q=1"},
		"token": {"allowed_values": {}},
		"run": {"labels": labels, "provenance": {"/url": class}},
	},
}

codes(items) := {item.code | some item in items}

test_an_address_that_nobody_trusted_named_is_held_once_private_data_was_read if {
	every label in ["confidential", "pii", "secret"] {
		every class in ["unseen", "untrusted"] {
			codes(fetches.hold) == {"read_may_carry_data"} with input as call([label], class)
		}
	}
}

test_before_that_it_is_only_a_read if {
	every labels in [[], ["untrusted"]] {
		codes(fetches.hold | fetches.deny) == set() with input as call(labels, "unseen")
	}
}

test_named_addresses_are_read if {
	every class in ["allowed", "trusted"] {
		codes(fetches.hold | fetches.deny) == set() with input as call(["confidential"], class)
	}
}

test_what_is_private_can_be_said if {
	codes(fetches.hold) == {"read_may_carry_data"} with input as call(["export"], "unseen")
		with data.settings.labels.private as ["export"]
	codes(fetches.hold) == set() with input as call(["pii"], "unseen")
		with data.settings.labels.private as ["export"]
}

test_secrets_stay_also_when_reading if {
	codes(fetches.deny) == {"secret_would_leave"} with input as call(["secret"], "trusted")
	codes(fetches.deny) == set() with input as call(["secret"], "allowed")
	codes(fetches.deny) == set() with input as call(["secret"], "trusted")
		with data.settings.egress.secret as "off"
}

test_a_read_without_sinks_is_no_business_of_this_package if {
	codes(fetches.hold | fetches.deny) == set() with input as json.remove(call(["secret"], "unseen"), ["resource/sinks"])
}

test_a_change_is_the_business_of_egress if {
	ask := object.union(call(["secret"], "unseen"), {"resource": {"effect": "external_send"}})
	codes(fetches.hold | fetches.deny) == set() with input as ask
}

fetched(ask, more) := object.union(ask, {"context": {"run": {"counts": more}}})

test_a_page_does_not_choose_the_next_one if {
	ask := fetched(call(["untrusted"], "untrusted"), {"web.get": 1})
	codes(fetches.hold) == {"address_out_of_a_page"} with input as ask
	codes(fetches.hold) == set() with input as ask
		with data.settings.fetches.next as "off"
}

test_the_first_page_may_be_named_by_anybody if {
	every counts in [{}, {"web.get": 0}, {"mail.read": 3}] {
		codes(fetches.hold) == set() with input as fetched(call(["untrusted"], "untrusted"), counts)
	}
}

test_the_next_page_may_be_named_by_who_is_trusted_or_by_nobody if {
	every class in ["allowed", "trusted", "unseen"] {
		codes(fetches.hold) == set() with input as fetched(call(["untrusted"], class), {"web.get": 1})
	}
}

test_a_query_leads_nowhere if {
	asked := object.union(call(["untrusted"], "untrusted"), {"context": {"args": {"url": "best hotel"}}})
	codes(fetches.hold) == set() with input as fetched(asked, {"web.get": 1})
}

test_an_address_leads_somewhere_however_it_is_written if {
	every url in [
		"https://elsewhere.example/2 ", " elsewhere.example/2", "http://[2001:db8::1]/2", "http://3232235777/2",
		"https:elsewhere.example/a b", "HTTPS://elsewhere.example/a b", "//elsewhere.example/a b",
		["best hotel", "elsewhere.example"], ["https://elsewhere.example/2", 5], {"href": "https://elsewhere.example/2"},
	] {
		asked := object.union(call(["untrusted"], "untrusted"), {"context": {"args": {"url": url}}})
		codes(fetches.hold) == {"address_out_of_a_page"} with input as fetched(asked, {"web.get": 1})
	}
}

test_what_leads_somewhere_in_each_of_a_list_is_held_too if {
	asked := json.patch(
		fetched(call(["untrusted"], "untrusted"), {"web.get": 1}),
		[
			{"op": "replace", "path": "/resource/sinks", "value": ["/pages/*/url"]},
			{"op": "replace", "path": "/context/run/provenance", "value": {"/pages/*/url": "untrusted"}},
			{"op": "replace", "path": "/context/args", "value": {"pages": [{"url": "https://elsewhere.example/2"}]}},
		],
	)
	codes(fetches.hold) == {"address_out_of_a_page"} with input as asked
}
