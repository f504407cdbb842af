# METADATA
# title: Freezes and business hours
# description: "What `data.settings.calendar` says of now."
package countersign.lib.calendar

import data.countersign.lib.clock
import data.countersign.lib.settings

# METADATA
# title: A freeze covers this call, now
# description: From its first moment up to, not including, the last. What cannot be read is in force.
# scope: rule
frozen if {
	some freeze in data.settings.calendar.freezes
	not elsewhere(freeze)
	not over(freeze)
	not ahead(freeze)
}

# Left out, or no lists, `effects` and `servers` mean all of them.
elsewhere(freeze) if {
	effects := freeze.effects
	is_array(effects)
	effect := input.resource.effect
	not has(effects, effect)
}

elsewhere(freeze) if {
	servers := freeze.servers
	is_array(servers)
	server := input.resource.server
	not has(servers, server)
}

has(names, name) if name in names

over(freeze) if input.context.now_ns >= clock.instant(freeze.until)

ahead(freeze) if input.context.now_ns < clock.instant(freeze.from)

# METADATA
# title: There are business hours for this effect, and none of them is now
# scope: rule
closed if {
	count(data.settings.calendar.hours) > 0
	effects := settings.hours_effects(["delete", "external_send", "money", "privilege"])
	input.resource.effect in effects
	not open
}

open if {
	some window in data.settings.calendar.hours
	clock.open(window)
}
