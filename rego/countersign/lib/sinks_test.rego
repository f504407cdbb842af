package lib_sinks_test

import data.countersign.lib.sinks

test_a_host_is_found_where_everybody_finds_the_same if {
	sinks.host("ann@ACME.example") == "acme.example"
	sinks.host("https://acme.example/a?b=c#d") == "acme.example"
	sinks.host("http://acme.example:8080") == "acme.example"
	sinks.host("acme.example") == "acme.example"
}

test_no_host_where_readers_could_disagree if {
	every value in [
		"https://acme.example@evil.example/", "https://evil.example\\@acme.example/",
		"ann@evil.example,bob@acme.example", "Ann <ann@acme.example>", "\"a b\"@acme.example",
		"ann@acme.example ", "ann@acme.example\n", "ann@evil.example@acme.example",
		"ftp://acme.example/", "javascript:acme.example", "//acme.example", "https://1.2.3.4/",
		"https://[::1]/", "acmé.example", "acme.example.", "https://acme.example?x", "localhost", "",
		"https://acme.example/a b", "a%b@acme.example",
	] {
		not found(value)
	}
}

found(value) if sinks.host(value) != ""

ask(class) := {
	"resource": {"id": "mail.send", "sinks": ["/to", "/cc"]},
	"context": {"args": {"to": "ann@acme.example"}, "run": {"provenance": {"/to": class}}, "token": {"allowed_values": {}}},
}

test_each_class_is_what_the_gateway_says if {
	every class in ["allowed", "trusted", "untrusted", "unseen"] {
		sinks.classes == {class} with input as ask(class)
	}
}

test_a_word_of_a_later_gateway_is_unseen if {
	every class in ["perhaps", null, 7] { sinks.classes == {"unseen"} with input as ask(class) }
}

test_internal_comes_before_trusted_and_after_allowed if {
	every class in ["trusted", "untrusted", "unseen"] {
		sinks.classes == {"internal"} with input as ask(class)
			with data.settings.egress.internal_domains as ["acme.example"]
	}
	sinks.classes == {"allowed"} with input as ask("allowed")
		with data.settings.egress.internal_domains as ["acme.example"]
}

test_all_known_needs_at_least_one if {
	sinks.all_known with input as ask("trusted")
	not known("unseen")
	not nothing_known
}

known(class) if sinks.all_known with input as ask(class)

nothing_known if sinks.all_known with input as {"resource": {"id": "a.b", "sinks": []}, "context": {}}

test_a_sink_in_each_of_a_list_has_the_class_that_the_gateway_says if {
	each := {
		"resource": {"id": "mail.send", "sinks": ["/to/*/address"]},
		"context": {"args": {"to": [{"address": "eve@bad.example"}]}, "token": {"allowed_values": {}}},
	}
	every class in ["allowed", "trusted", "untrusted", "unseen"] {
		asked := object.union(each, {"context": {"run": {"provenance": {"/to/*/address": class}}}})
		sinks.classes == {class} with input as asked
	}
}

test_a_sink_in_each_of_a_list_is_internal_if_all_of_them_are[note] if {
	some note, tc in {
		"all": {"to": [{"address": "ann@acme.example"}, {"address": "bob@acme.example"}], "class": "internal"},
		"one is not": {"to": [{"address": "ann@acme.example"}, {"address": "eve@bad.example"}], "class": "unseen"},
		"a text among them": {"to": [{"address": "ann@acme.example"}, "eve@bad.example"], "class": "unseen"},
		"a list in it": {"to": [{"address": ["ann@acme.example"]}], "class": "unseen"},
		"none has any": {"to": [{"name": "Ann"}], "class": "unseen"},
		"an object": {"to": {"a": {"address": "ann@acme.example"}}, "class": "unseen"},
	}
	asked := {
		"resource": {"id": "mail.send", "sinks": ["/to/*/address"]},
		"context": {
			"args": {"to": tc.to}, "token": {"allowed_values": {}},
			"run": {"provenance": {"/to/*/address": "unseen"}},
		},
	}
	sinks.classes == {tc["class"]} with input as asked
		with data.settings.egress.internal_domains as ["acme.example"]
	plain := {
		"resource": {"id": "mail.send", "sinks": ["/to/*"]},
		"context": {
			"args": {"to": ["ann@acme.example"]}, "token": {"allowed_values": {}},
			"run": {"provenance": {"/to/*": "unseen"}},
		},
	}
	sinks.classes == {"internal"} with input as plain
		with data.settings.egress.internal_domains as ["acme.example"]
}
