package audit

import (
	"reflect"
	"slices"
)

// The life of a held call (section 9.2).
const (
	asked     = "asked"
	granted   = "granted"
	sending   = "sending"   // an intent of it is open
	uncertain = "uncertain" // its intent ended unknown
	lost      = "lost"      // `approval.unknown`
	over      = "over"
)

// moves says from which states a record leads where.
var moves = map[string]struct {
	from []string
	to   string
}{
	"approval.grant":   {[]string{asked}, granted},
	"approval.deny":    {[]string{asked}, over},
	"approval.expire":  {[]string{asked, granted}, over},
	"approval.cancel":  {[]string{asked, granted}, over},
	"approval.stale":   {[]string{granted}, over},
	"approval.unknown": {[]string{uncertain}, lost},
	"approval.resolve": {[]string{lost}, over},
}

// approval is a held call.
type approval struct {
	id      string
	request fields
	state   string
	granted bool
	used    bool // an intent of it is open or was sent
	expires int64
	votes   map[string]bool // voter tag: approves
}

func (s *rules) request(r *record) {
	expires, _ := r.number("expires")
	id := r.text("approval")
	s.heldOps[r.text("op")] = id
	s.approvals[id] = &approval{
		id: id, request: r.fields, state: asked, expires: expires,
		votes: map[string]bool{},
	}
}

// of returns the held call that a record names, and tells where there is none or another.
func (s *rules) of(r *record) *approval {
	one := s.approvals[r.text("approval")]
	if one == nil {
		s.at(r, "approval_unknown", "there is no request `%s` before", r.text("approval"))
		return nil
	}
	if r.text("type") == "call.intent" {
		s.sameCall(r, one)
		return one
	}
	for _, name := range []string{"binding", "tool", "agent", "run"} {
		if !reflect.DeepEqual(r.fields[name], one.request[name]) {
			s.at(r, "approval_mismatch", "`%s` is not that of the request", name)
			break
		}
	}
	return one
}

// sameCall holds an intent against the request that it is of.
func (s *rules) sameCall(r *record, one *approval) {
	actor := r.object("actor")
	same := []struct {
		name      string
		got, want any
	}{
		{"op", r.fields["op"], one.request["op"]},
		{"tool", r.fields["tool"], one.request["tool"]},
		{"agent", actor["agent"], one.request["agent"]},
		{"run", actor["run"], one.request["run"]},
	}
	for _, pair := range same {
		if !reflect.DeepEqual(pair.got, pair.want) {
			s.at(r, "approval_mismatch", "`%s` is not that of the request", pair.name)
			return
		}
	}
}

func (s *rules) vote(r *record) {
	one := s.of(r)
	if one == nil {
		return
	}
	s.late(r, one)
	if one.state != asked {
		s.at(r, "approval_late", "`%s` was decided before", one.id)
	}
	voter := r.text("voter_tag")
	if slices.Contains(one.request.texts("sod"), voter) {
		s.at(r, "approval_self", "the voter is one of those who may not vote")
	}
	if _, voted := one.votes[voter]; voted {
		s.at(r, "approval_twice", "the voter voted before")
	}
	one.votes[voter] = r.text("decision") == "approve"
}

func (s *rules) late(r *record, one *approval) {
	if at, ok := r.number("at"); !ok || at > one.expires {
		s.at(r, "approval_late", "it is of %d, the request ended at %d", at, one.expires)
	}
}

// move judges a record that brings a held call to another state.
func (s *rules) move(r *record) {
	one := s.of(r)
	if one == nil {
		return
	}
	kind := r.text("type")
	if kind == "approval.grant" {
		s.late(r, one)
		s.quorum(r, one)
		one.granted = true
	}
	if step := moves[kind]; slices.Contains(step.from, one.state) {
		one.state = step.to
	} else {
		s.at(r, "approval_decided", "`%s` does not follow on the state that it is in", kind)
	}
}

func (s *rules) quorum(r *record, one *approval) {
	least, known := one.request["quorum"].(int64)
	approving := int64(0)
	for _, approves := range one.votes {
		if approves {
			approving++
		}
	}
	if !known || approving < least {
		s.at(r, "approval_quorum", "%d of %d people approved", approving, least)
	}
}

// heldIntent judges the intent of a held call.
func (s *rules) heldIntent(r *record, next *call) {
	one := s.of(r)
	if one == nil {
		return
	}
	switch {
	case !one.granted:
		s.at(r, "approval_missing", "`%s` was not granted", one.id)
	case one.used:
		s.at(r, "approval_reused", "`%s` has another intent", one.id)
	case one.state != granted:
		s.at(r, "approval_decided", "`%s` had ended", one.id)
	}
	if r.text("args_tag") != one.request.text("args_tag") {
		s.at(r, "approval_args", "the arguments are not those that were approved")
	}
	if r.ts > one.expires*1_000_000+graceUs {
		s.at(r, "approval_expired", "`%s` ended at %d", one.id, one.expires)
	}
	next.approval, one.used = one, true
	if one.state == granted {
		one.state = sending
	}
}

// close follows how an intent of the held call ended.
func (a *approval) close(delivery string, orphan bool) {
	if delivery == "not_sent" {
		a.used = false
	}
	if a.state != sending {
		return
	}
	switch {
	case delivery == "not_sent":
		a.state = granted
	case orphan || delivery == "unknown":
		a.state = uncertain
	default:
		a.state = over
	}
}
