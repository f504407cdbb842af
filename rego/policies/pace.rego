# METADATA
# title: Pace
# description: >-
#   How many calls one run may make, and how fast. `data.settings.pace`; a limit of 0 is none.
# custom:
#   applies_to:
#     phases: [call]
#   settings:
#     pace:
#       calls_per_run: 5000
#       calls_per_minute: 240
#       same_call: 50
package policies.pace

import data.countersign.lib.settings

# METADATA
# title: The run is too long
# scope: rule
# custom:
#   rationale: >-
#     No task that a person has in mind takes five thousand calls. A loop does.
#   owasp: [ASI08, LLM10]
deny contains {"code": "run_too_long", "message": "this run has made too many calls"} if {
	limit := settings.calls_per_run(5000)
	input.context.run.calls >= limit
	limit != 0
	input.phase == "call"
}

# METADATA
# title: Too fast
# scope: rule
# custom:
#   rationale: Harvesting is reading, only more of it.
#   owasp: [ASI02, LLM10]
deny contains {"code": "too_fast", "message": "too many calls within a minute"} if {
	now := input.context.family.last_minute
	limit := settings.calls_per_minute(240)
	now >= limit
	limit != 0
	input.phase == "call"
}

# METADATA
# title: The same call again and again
# scope: rule
# custom:
#   rationale: An agent that asks the same for the fiftieth time does not read the answer.
#   owasp: [ASI08, LLM10]
deny contains {"code": "same_call_repeated", "message": "exactly this call was made too often"} if {
	input.context.run.repeats > 0
	limit := settings.pace_same_call(50)
	input.context.run.repeats >= limit
	limit != 0
	input.phase == "call"
}
