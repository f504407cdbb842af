package lib_args_test

import data.countersign.lib.args

given_args := {
	"amount": 12.5, "count": 3, "to": "ann@acme.example", "cc": ["a", "b"], "mixed": ["a", 1],
	"nothing": null, "empty": "", "list": [], "deep": {"items": [{"price": 7}, {"price": 8}]},
	"a/b": 1, "m~n": 2, "0": "zero", "flag": true,
}

test_a_name_and_a_pointer_lead_to_the_same if {
	args.at("amount") == 12.5 with input.context.args as given_args
	args.at("/amount") == 12.5 with input.context.args as given_args
	args.at("/0") == "zero" with input.context.args as given_args
}

test_a_pointer_leads_into_objects_and_lists if {
	args.at("/deep/items/1/price") == 8 with input.context.args as given_args
	args.at("/cc/0") == "a" with input.context.args as given_args
}

test_escapes_are_read if {
	args.at("/a~1b") == 1 with input.context.args as given_args
	args.at("/m~0n") == 2 with input.context.args as given_args
}

test_what_is_not_there_is_undefined if {
	every pointer in ["/x", "x", "/deep/x", "/cc/2", "/deep/items/-", "", "/", "/a/b"] {
		not there(pointer)
	}
}

there(pointer) if {
	found := args.at(pointer) with input.context.args as given_args
	found != "never"
}

test_types_are_kept_apart if {
	args.number("/amount") == 12.5 with input.context.args as given_args
	args.amount("/count") == 3 with input.context.args as given_args
	args.string("to") == "ann@acme.example" with input.context.args as given_args
	every name in ["to", "flag", "nothing", "cc"] { not is_a_number(name) }
	every name in ["amount", "cc", "nothing"] { not is_a_text(name) }
}

is_a_number(name) if {
	found := args.number(name) with input.context.args as given_args
	is_number(found)
}

is_a_text(name) if {
	found := args.string(name) with input.context.args as given_args
	is_string(found)
}

test_an_amount_is_whole_and_not_negative if {
	every value in [-1, 0.5, "1", null] {
		not whole(value)
	}
	whole(0)
}

whole(value) if {
	found := args.amount("n") with input.context.args as {"n": value}
	found == value
}

test_texts_come_as_a_list if {
	args.strings("to") == ["ann@acme.example"] with input.context.args as given_args
	args.strings("cc") == ["a", "b"] with input.context.args as given_args
	args.strings("list") == [] with input.context.args as given_args
	not texts("mixed")
	not texts("amount")
}

texts(name) if {
	found := args.strings(name) with input.context.args as given_args
	is_array(found)
}

test_something_is_given if {
	every name in ["to", "cc", "amount", "flag", "deep"] { args.given(name) with input.context.args as given_args }
	every name in ["nothing", "empty", "list", "gone"] { not has(name) }
}

has(name) if args.given(name) with input.context.args as given_args
