# METADATA
# title: Settings
# description: >-
#   What `data.settings` says, or what is shipped, which the caller gives. Settings stand in a
#   `data.json` beside the policies: `{"settings": {"pace": {"calls_per_run": 200}}}`. Each has a
#   function of its own: where engines look a document up by a name that they learn on the way, it
#   costs ten times as much. A number or list that is none is taken for left out.
package countersign.lib.settings

approval_groups(shipped) := found if {
	found := data.settings.approval.groups
} else := shipped

approval_ttl(shipped) := found if {
	found := data.settings.approval.ttl
} else := shipped

calls_per_minute(shipped) := found if {
	found := data.settings.pace.calls_per_minute
	is_number(found)
} else := shipped

calls_per_run(shipped) := found if {
	found := data.settings.pace.calls_per_run
	is_number(found)
} else := shipped

egress_links(shipped) := found if {
	found := data.settings.egress.links
} else := shipped

egress_secret(shipped) := found if {
	found := data.settings.egress.secret
} else := shipped

egress_unknown(shipped) := found if {
	found := data.settings.egress.unknown
} else := shipped

egress_untrusted(shipped) := found if {
	found := data.settings.egress.untrusted
} else := shipped

fetches_next(shipped) := found if {
	found := data.settings.fetches.next
} else := shipped

high_risk_looked_up(shipped) := found if {
	found := data.settings.high_risk.looked_up
	is_array(found)
} else := shipped

high_risk_named(shipped) := found if {
	found := data.settings.high_risk.named
	is_array(found)
} else := shipped

hours_effects(shipped) := found if {
	found := data.settings.calendar.hours_effects
	is_array(found)
} else := shipped

labels_private(shipped) := found if {
	found := data.settings.labels.private
	is_array(found)
} else := shipped

loops_in_a_row(shipped) := found if {
	found := data.settings.loops.in_a_row
	is_number(found)
} else := shipped

loops_per_tool(shipped) := found if {
	found := data.settings.loops.per_tool
	is_number(found)
} else := shipped

loops_same_call(shipped) := found if {
	found := data.settings.loops.same_call
	is_number(found)
} else := shipped

pace_same_call(shipped) := found if {
	found := data.settings.pace.same_call
	is_number(found)
} else := shipped

writes_permit(shipped) := found if {
	found := data.settings.writes.permit
} else := shipped
