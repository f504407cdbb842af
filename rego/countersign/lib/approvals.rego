# METADATA
# title: Who is asked
# description: >-
#   The conditions of a hold: one of `data.settings.approval.groups` (`approver`) within
#   `data.settings.approval.ttl` (`15m`). Holds in the same words are asked once.
package countersign.lib.approvals

default groups := ["approver"]

groups := data.settings.approval.groups

default ttl := "15m"

ttl := data.settings.approval.ttl

# METADATA
# title: The pack's usual conditions
# scope: rule
standard := {
	"stages": [{"any_of": [{"approve": 1, "deny": 1, "who": {"groups": groups}}]}],
	"ttl": ttl,
	"execute": "on_approval",
}
