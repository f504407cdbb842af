package audit

// everyone is the subject of a legal hold on all.
const everyone = "*"

func (s *rules) hold(r *record) {
	persons := set{}
	for _, tag := range r.texts("persons") {
		persons[tag] = true
	}
	if len(persons) < 2 {
		s.at(r, "hold_persons", "%d persons stand behind it", len(persons))
	}
	if r.text("type") == "hold.set" {
		s.holds[r.text("hold")] = r.text("subject")
	} else {
		delete(s.holds, r.text("hold"))
	}
}

func (s *rules) redact(r *record) {
	for hold, subject := range s.holds {
		if subject == everyone || subject == r.text("subject") {
			s.at(r, "hold_broken", "the subject is under the hold `%s`", hold)
			return
		}
	}
}
