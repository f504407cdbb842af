# METADATA
# title: Hours and dates
# description: >-
#   Time comes from `context.now_ns` alone. A zone is a fixed offset (`+01:00`) or a name that
#   `data.settings.calendar.zones` gives one, in minutes: engines may know different time zone
#   databases, and a decision must come out the same when it is computed again. A zone nobody knows
#   is undefined.
package countersign.lib.clock

days := {
	"Monday": "mon", "Tuesday": "tue", "Wednesday": "wed", "Thursday": "thu",
	"Friday": "fri", "Saturday": "sat", "Sunday": "sun",
}

# METADATA
# title: Minutes that a zone is ahead of UTC
# scope: document
offset(zone) := 0 if zone == "UTC"

offset(zone) := minutes if {
	zone != "UTC"
	minutes := data.settings.calendar.zones[zone]
	is_number(minutes)
}

offset(zone) := sign(zone) * ((two_digits(zone, 1) * 60) + two_digits(zone, 4)) if {
	is_string(zone)
	regex.match(`^[+-](0[0-9]|1[0-4]):[0-5][0-9]$`, zone)
}

# `08` alone is a number to some readers only.
two_digits(text, at) := to_number(concat("", ["1", substring(text, at, 2)])) - 100

sign(zone) := 1 if startswith(zone, "+")

sign(zone) := -1 if startswith(zone, "-")

# METADATA
# title: "The day (`mon` … `sun`) and the minute of the day in a zone: `[day, minute] := clock.local(\"UTC\")`"
# scope: rule
local(zone) := [day, minute] if {
	now := input.context.now_ns
	is_number(now)
	there := now + (offset(zone) * 60000000000)
	day := days[time.weekday(there)]
	[hour, past, _] := time.clock(there)
	minute := (hour * 60) + past
}

# METADATA
# title: The minute of the day of `HH:MM`, `24:00` included
# scope: rule
minute(text) := (two_digits(text, 0) * 60) + two_digits(text, 3) if {
	is_string(text)
	regex.match(`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`, text)
}

# METADATA
# title: It is now within a window
# description: >-
#   `{"days": ["mon"], "start": "08:00", "end": "18:00", "zone": "+01:00"}`. All but `zone` may be
#   left out; the zone is UTC then. An `end` before `start` is on the next day, and belongs to the
#   day on which the window opened. A window that cannot be read is never open.
# scope: document
open(window) if {
	is_object(window)
	[day, now] := local(object.get(window, "zone", "UTC"))
	day in object.get(window, "days", every_day)
	start := minute(object.get(window, "start", "00:00"))
	end := minute(object.get(window, "end", "24:00"))
	start <= end
	now >= start
	now < end
}

open(window) if {
	is_object(window)
	[day, now] := local(object.get(window, "zone", "UTC"))
	day in object.get(window, "days", every_day)
	start := minute(object.get(window, "start", "00:00"))
	start > minute(object.get(window, "end", "24:00"))
	now >= start
}

open(window) if {
	is_object(window)
	[day, now] := local(object.get(window, "zone", "UTC"))
	before[day] in object.get(window, "days", every_day)
	end := minute(object.get(window, "end", "24:00"))
	minute(object.get(window, "start", "00:00")) > end
	now < end
}

every_day := ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

before := {
	"mon": "sun", "tue": "mon", "wed": "tue", "thu": "wed",
	"fri": "thu", "sat": "fri", "sun": "sat",
}

# METADATA
# title: A date and time (`2026-12-20T00:00:00Z`) in ns since the epoch
# scope: rule
instant(text) := time.parse_rfc3339_ns(text) if {
	is_string(text)
	regex.match(`^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$`, text)
}

# Never a day that the month may lack: one engine fails on it, the other does not. 29 February is
# written as 1 March, 00:00.
instant(text) := time.parse_rfc3339_ns(text) if {
	is_string(text)
	regex.match(`^20[0-9]{2}-((0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$`, text)
}
