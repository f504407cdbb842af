# METADATA
# title: Business hours and freezes
# description: >-
#   Nothing here speaks until `data.settings.calendar` gives `freezes` or `hours`. A freeze is
#   `{"from": "2026-12-20T00:00:00Z", "until": "2027-01-02T00:00:00Z"}` with `effects` and `servers`
#   where it does not mean all of them. `hours` are windows of `days`, `start`, `end` and `zone`.
# custom:
#   applies_to:
#     effects: [create, update, delete, external_send, money, privilege]
#     phases: [call, resume]
#   settings:
#     calendar:
#       freezes: []
#       hours: []
#       hours_effects: [delete, external_send, money, privilege]
#       zones: {}
package policies.calendar

import data.countersign.lib.approvals
import data.countersign.lib.calendar

# METADATA
# title: A freeze
# description: >-
#   From the first moment up to, not including, the last. A time that cannot be read counts as
#   frozen: write a date, a time, and `Z` or an offset.
# scope: rule
# custom:
#   rationale: >-
#     During a release, an audit or a holiday nobody wants to find out what an agent has changed.
#   owasp: [ASI08]
deny contains {"code": "frozen", "message": "changes are frozen now"} if {
	count(data.settings.calendar.freezes) > 0
	input.resource.effect != "read"
	input.phase in {"call", "resume"}
	calendar.frozen
}

# METADATA
# title: Outside business hours
# description: Held while no window of `hours` is open, for the effects in `hours_effects`.
# scope: rule
# custom:
#   rationale: >-
#     What happens at three in the morning is seen at nine. Somebody on call may agree to it.
#   owasp: [ASI10]
hold contains {
	"code": "outside_hours",
	"message": "it is outside business hours",
	"approval": approvals.standard,
} if {
	count(data.settings.calendar.hours) > 0
	input.phase in {"call", "resume"}
	calendar.closed
}
