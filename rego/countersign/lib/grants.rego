# METADATA
# title: The grant that covers this call
# description: >-
#   What the token's own grant says of the tool. An agent may ask for a token that says less than
#   its run, so what stands here may tighten an answer, or turn a refusal into a question to people.
#   It should release nothing.
package countersign.lib.grants

# METADATA
# title: One of these grants names the tool, not only its server or what it does
# description: "For `input.context.token.constraints`, which holds the grant that covers the call."
# scope: rule
names_it(grants) if {
	some grant in grants
	grant.tool != "*"
}

# METADATA
# title: The grant says how often
# description: It was written for one task, so a person who knows the task can be asked.
# scope: rule
counted if {
	some grant in input.context.token.constraints
	is_number(grant.max_calls)
}

# METADATA
# title: The token has the scope that this phase needs
# scope: rule
scoped if {
	input.phase in {"call", "resume"}
	"tools:call" in input.context.token.scopes
}

scoped if {
	input.phase == "list"
	"tools:list" in input.context.token.scopes
}
