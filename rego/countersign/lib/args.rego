# METADATA
# title: Arguments
# description: >-
#   Typed access to the arguments of a call, by name (`amount`) or JSON Pointer (`/items/0/price`).
#   What is absent or of another type is undefined, so a rule that stands on it stays silent; a rule
#   that must speak then negates a rule of its own (`not amount`).
# custom:
#   rationale: >-
#     Rego orders values of every type, and null is below each number: `null <= 100` is true. A
#     comparison that stands on these cannot be passed by an argument of the wrong type.
package countersign.lib.args

# METADATA
# title: The value at a name or pointer, whatever its type
# scope: rule
at(name) := value if {
	startswith(name, "/")
	key := substring(name, 1, -1)
	not contains(key, "/")
	value := input.context.args[unescaped(key)]
} else := value if {
	not startswith(name, "/")
	value := input.context.args[name]
} else := value if {
	startswith(name, "/")
	parts := split(substring(name, 1, -1), "/")
	count(parts) > 1
	wanted := [unescaped(part) | some part in parts]
	found := [each |
		walk(input.context.args, [path, each])
		wanted == [sprintf("%v", [part]) | some part in path]
	]
	count(found) == 1
	value := found[0]
}

# RFC 6901, section 4: `~1` first, then `~0`.
unescaped(part) := replace(replace(part, "~1", "/"), "~0", "~")

# METADATA
# title: A number
# scope: rule
number(name) := value if {
	value := at(name)
	is_number(value)
}

# METADATA
# title: A whole number, at least 0
# scope: rule
amount(name) := value if {
	value := number(name)
	value >= 0
	value == round(value)
}

# METADATA
# title: A text
# scope: rule
string(name) := value if {
	value := at(name)
	is_string(value)
}

# METADATA
# title: The texts at a name or pointer
# description: One text is a list of one. A list with anything else in it is undefined.
# scope: document
strings(name) := [value] if value := string(name)

strings(name) := values if {
	values := at(name)
	is_array(values)
	every value in values { is_string(value) }
}

# METADATA
# title: Something is there
# description: Not absent, null, or an empty text, list or object.
# scope: rule
given(name) if {
	value := at(name)
	not value in {null, "", [], {}}
}
