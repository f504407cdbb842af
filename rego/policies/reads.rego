# METADATA
# title: Reading
# description: >-
#   Looking things up changes nothing, so an agent may do it wherever its token reaches. The gateway
#   has checked the token's grants and argument limits before it asks; the scope is asked for here.
# custom:
#   applies_to:
#     effects: [read]
#     phases: [list, call, resume]
package policies.reads

scope := {"list": "tools:list", "call": "tools:call", "resume": "tools:call"}

# METADATA
# title: A granted read
# scope: rule
# custom:
#   rationale: >-
#     An agent that may not look is asked about everything, and then nobody reads the questions.
#   owasp: [LLM06]
permit contains {"code": "read_only", "message": "reading changes nothing"} if {
	input.resource.effect == "read"
	scope[input.phase] in input.context.token.scopes
}
