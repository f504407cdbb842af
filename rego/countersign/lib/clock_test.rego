package lib_clock_test

import data.countersign.lib.clock

at(text) := time.parse_rfc3339_ns(text)

test_the_day_and_minute_of_a_zone if {
	clock.local("UTC") == ["wed", 720] with input.context.now_ns as at("2026-12-23T12:00:59Z")
	clock.local("+05:30") == ["thu", 0] with input.context.now_ns as at("2026-12-23T18:30:00Z")
	clock.local("-01:00") == ["tue", 1439] with input.context.now_ns as at("2026-12-23T00:59:00Z")
	clock.local("Here") == ["wed", 840] with input.context.now_ns as at("2026-12-23T12:00:00Z")
		with data.settings.calendar.zones as {"Here": 120}
}

test_a_zone_nobody_knows_is_undefined if {
	every zone in ["Europe/Vienna", "+1", "", "+15:00", null, 60] { not known(zone) }
}

known(zone) if clock.offset(zone) > -10000

test_minutes_are_read if {
	clock.minute("08:09") == 489
	clock.minute("00:00") == 0
	clock.minute("24:00") == 1440
	every text in ["8:00", "08:60", "24:01", "25:00", "", null, 800] { not read(text) }
}

read(text) if clock.minute(text) >= 0

test_instants_are_read if {
	clock.instant("2026-12-20T00:00:00Z") == at("2026-12-20T00:00:00Z")
	clock.instant("2026-12-31T23:59:59+02:00") == at("2026-12-31T23:59:59+02:00")
	every text in ["2026-12-20", "2026-02-30T00:00:00Z", "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z", "soon", null, 5] {
		not known_instant(text)
	}
}

known_instant(text) if clock.instant(text) > 0
