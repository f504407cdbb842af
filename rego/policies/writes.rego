# METADATA
# title: Creating and updating
# description: >-
#   Permitted where the grant names the tool (`{"server": "files", "tool": "put"}`). One of a whole
#   server, or of effects, is good for reading only, also where an agent narrows it down to a tool. Switched by `data.settings.writes.permit`:
#   `named`, `granted` (any grant will do) or `none` (nothing here permits writes).
# custom:
#   applies_to:
#     effects: [create, update]
#     phases: [list, call, resume]
#   settings:
#     writes:
#       permit: named
package policies.writes

import data.countersign.lib.grants
import data.countersign.lib.settings

scope := {"list": "tools:list", "call": "tools:call", "resume": "tools:call"}

# METADATA
# title: Least privilege by grants
# scope: rule
# custom:
#   rationale: >-
#     Whoever grants a server thinks of reading it. Who wants records written says which, and then a
#     new tool of that server is not granted by chance.
#   owasp: [ASI03, LLM06]
permit contains {"code": "write_granted", "message": "the grant names this tool"} if {
	input.resource.effect in {"create", "update"}
	grants.names_it(input.context.token.constraints)
	scope[input.phase] in input.context.token.scopes
	settings.writes_permit("named") in {"named", "granted"}
}

# METADATA
# title: Any grant will do
# scope: rule
# custom:
#   rationale: For deployments whose grants are written tool by tool anyway.
#   owasp: [LLM06]
permit contains {"code": "write_granted", "message": "the server is granted"} if {
	data.settings.writes.permit == "granted"
	input.resource.effect in {"create", "update"}
	scope[input.phase] in input.context.token.scopes
}
