# METADATA
# title: Who is asked
# description: >-
#   The conditions of a hold: one of `data.settings.approval.groups` (`approver`) within
#   `data.settings.approval.ttl` (`15m`). Holds in the same words are asked once.
package countersign.lib.approvals

import data.countersign.lib.settings

# METADATA
# title: The pack's usual conditions
# scope: rule
standard := {
	"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": settings.approval_groups(["approver"])}}]}],
	"ttl": settings.approval_ttl("15m"),
	"execute": "on_approval",
}
