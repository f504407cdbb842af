# METADATA
# title: Grants for one thing
# description: >-
#   Phase `issue`: what a run may be launched with. Nothing here speaks until
#   `data.settings.grants.named` is true or `data.settings.grants.bounded` names effects.
# custom:
#   applies_to:
#     phases: [issue]
#   settings:
#     grants:
#       named: false
#       bounded: []
package policies.grants

# METADATA
# title: A grant of a whole server
# description: >-
#   With `named`, each grant names a tool, or effects, or is refused.
# scope: rule
# custom:
#   rationale: >-
#     A grant of a server grants also what that server will offer tomorrow.
#   owasp: [ASI03, LLM06]
deny contains {
	"code": "grant_too_wide",
	"message": "a grant names neither a tool nor effects",
} if {
	data.settings.grants.named == true
	input.phase == "issue"
	some grant in input.context.token.constraints
	object.get(grant, "tool", "*") == "*"
	count(object.get(grant, "effects", [])) == 0
}

# METADATA
# title: A grant without bounds
# description: >-
#   A grant of one of the effects in `bounded` says how often (`max_calls`). One that says no
#   `effects` may be of any, also where it names a tool.
# scope: rule
# custom:
#   rationale: What can be counted ends.
#   owasp: [LLM06, LLM10]
deny contains {
	"code": "grant_unbounded",
	"message": "a grant that may be of this effect has no `max_calls`",
} if {
	some effect in data.settings.grants.bounded
	input.phase == "issue"
	some grant in input.context.token.constraints
	not elsewhere(grant, effect)
	not counted(grant)
}

elsewhere(grant, effect) if {
	effects := grant.effects
	count(effects) > 0
	not has(effects, effect)
}

has(effects, effect) if effect in effects

counted(grant) if is_number(grant.max_calls)
