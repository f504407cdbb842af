package calendar_test

import data.policies.calendar

# 2026-12-23 is a Wednesday.
noon := time.parse_rfc3339_ns("2026-12-23T12:00:00Z")

call(now) := {
	"version": 1,
	"phase": "call",
	"resource": {"id": "bank.pay", "server": "bank", "effect": "money"},
	"context": {"now_ns": now},
}

freeze := {"from": "2026-12-20T00:00:00Z", "until": "2027-01-02T00:00:00+01:00"}

hours := [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "08:00", "end": "18:00", "zone": "Europe/Vienna"}]

codes(items) := {item.code | some item in items}

frozen(text, freezes) if {
	codes(calendar.deny) == {"frozen"} with input as call(time.parse_rfc3339_ns(text))
		with data.settings.calendar.freezes as freezes
}

closed(text, windows) if {
	codes(calendar.hold) == {"outside_hours"} with input as call(time.parse_rfc3339_ns(text))
		with data.settings.calendar as {"hours": windows, "zones": {"Europe/Vienna": 60}}
}

test_without_settings_nothing_is_said if {
	codes(calendar.deny | calendar.hold) == set() with input as call(noon)
	codes(calendar.deny | calendar.hold) == set() with input as call(noon)
		with data.settings.calendar as {"freezes": [], "hours": []}
}

test_a_freeze_denies_between_its_moments if {
	frozen("2026-12-20T00:00:00Z", [freeze])
	frozen("2027-01-01T22:59:59Z", [freeze])
	not frozen("2026-12-19T23:59:59Z", [freeze])
	not frozen("2027-01-01T23:00:00Z", [freeze])
}

test_a_freeze_may_mean_some_effects_and_servers if {
	frozen("2026-12-23T12:00:00Z", [object.union(freeze, {"effects": ["money"], "servers": ["bank"]})])
	not frozen("2026-12-23T12:00:00Z", [object.union(freeze, {"effects": ["delete"]})])
	not frozen("2026-12-23T12:00:00Z", [object.union(freeze, {"servers": ["mail"]})])
}

test_a_freeze_that_cannot_be_read_is_in_force if {
	every wrong in [
		{},
		{"from": "2026-12-20T00:00:00Z"},
		{"from": "2026-12-20", "until": "2026-12-21"},
		{"from": 1, "until": 2},
		{"from": "2026-12-20T00:00:00Z", "until": "2027-02-30T00:00:00Z"},
	] {
		frozen("2026-12-23T12:00:00Z", [wrong])
	}
}

test_a_freeze_that_is_yet_to_come_is_not_in_force if {
	not frozen("2026-12-23T12:00:00Z", [{"from": "2027-03-01T00:00:00Z"}])
}

test_reads_are_never_frozen if {
	ask := object.union(call(noon), {"resource": {"effect": "read"}})
	codes(calendar.deny) == set() with input as ask
		with data.settings.calendar.freezes as [freeze]
}

test_outside_business_hours_people_are_asked if {
	not closed("2026-12-23T07:00:00Z", hours)
	not closed("2026-12-23T16:59:59Z", hours)
	closed("2026-12-23T06:59:59Z", hours)
	closed("2026-12-23T17:00:00Z", hours)
	closed("2026-12-26T12:00:00Z", hours)
}

test_the_day_is_that_of_the_zone if {
	sunday := [{"days": ["sun"], "zone": "+10:00"}]
	not closed("2026-12-26T20:00:00Z", sunday)
	closed("2026-12-27T20:00:00Z", sunday)
	closed("2026-12-26T20:00:00Z", [{"days": ["sun"], "zone": "-10:00"}])
}

test_a_window_may_go_past_midnight if {
	night := [{"days": ["fri"], "start": "22:00", "end": "06:00"}]
	not closed("2026-12-25T22:00:00Z", night)
	not closed("2026-12-26T05:59:00Z", night)
	closed("2026-12-26T06:00:00Z", night)
	closed("2026-12-26T22:30:00Z", night)
	closed("2026-12-25T05:00:00Z", night)
}

test_a_window_that_cannot_be_read_is_never_open if {
	every wrong in [7, null, {"zone": "Mars/Base"}, {"start": "8"}, {"end": "25:00"}, {"days": "wed"}, {"zone": "+99:00"}] {
		closed("2026-12-23T12:00:00Z", [wrong])
	}
}

test_hours_concern_the_effects_that_are_said if {
	writing := object.union(call(time.parse_rfc3339_ns("2026-12-26T12:00:00Z")), {"resource": {"effect": "update"}})
	codes(calendar.hold) == set() with input as writing
		with data.settings.calendar as {"hours": [{"days": ["mon"]}]}
	codes(calendar.hold) == {"outside_hours"} with input as writing
		with data.settings.calendar as {"hours": [{"days": ["mon"]}], "hours_effects": ["update"]}
}

test_a_freeze_whose_effects_or_servers_are_no_lists_means_all if {
	every wrong in [{"effects": "delete"}, {"servers": "mail"}, {"effects": {"delete": true}, "servers": 5}] {
		frozen("2026-12-23T12:00:00Z", [object.union(freeze, wrong)])
	}
}
