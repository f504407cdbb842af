# METADATA
# title: The grant that covers this call
# description: >-
#   What the token's own grant says of the tool. An agent may ask for a token that says less than
#   its run. What it wrote itself is told in `context.token.narrowed` and does not count here: that
#   a grant names a tool, or says how often, is the launcher's word. All else that a grant says may
#   tighten an answer, and should release nothing.
package countersign.lib.grants

# METADATA
# title: One of these grants names the tool, not only its server or what it does
# description: >-
#   For `input.context.token.constraints`, which holds the grant that covers the call. Not where the
#   agent itself narrowed the grant of a server down to the tool.
# scope: rule
names_it(grants) if {
	some grant in grants
	grant.tool != "*"
	not holder_named
}

holder_named if "tool" in input.context.token.narrowed

# METADATA
# title: The grant says how often
# description: >-
#   It was written for one task, so a person who knows the task can be asked. Not where the agent
#   itself said how often.
# scope: rule
counted if {
	some grant in input.context.token.constraints
	is_number(grant.max_calls)
	not holder_counted
}

holder_counted if "max_calls" in input.context.token.narrowed

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
