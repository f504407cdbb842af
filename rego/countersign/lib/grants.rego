# METADATA
# title: The grant that covers this call
# description: >-
#   What the token's own grant says of the tool. An agent may ask for a token that says less than
#   its run, so what stands here may tighten an answer, or turn a refusal into a question to people.
#   It should release nothing.
package countersign.lib.grants

# METADATA
# title: The grant names the tool or what it does, not only its server
# scope: document
named if {
	some grant in input.context.token.constraints
	concat(".", [grant.server, grant.tool]) == input.resource.id
}

named if {
	some grant in input.context.token.constraints
	grant.server == input.resource.server
	input.resource.effect in grant.effects
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
scoped if scope[input.phase] in input.context.token.scopes

scope := {"list": "tools:list", "call": "tools:call", "resume": "tools:call"}
