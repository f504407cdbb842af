package audit

import (
	"fmt"
	"slices"
)

const (
	// graceUs is what clocks may differ by before a time is late (section 6.2).
	graceUs = 60 * 1_000_000
	// keptUs is how long after its end a token is remembered.
	keptUs = 3600 * 1_000_000
	// sweepEvery is how many records pass between two looks for tokens to forget.
	sweepEvery = 1 << 12
)

// ruleOrder is the table of section 6.2.
var ruleOrder = []string{
	"boot_unknown", "boot_count", "key_mismatch", "outcome_without_intent", "outcome_mismatch",
	"second_outcome", "second_intent", "orphan_open", "intent_open", "effect_despite_deny",
	"effect_despite_kill", "policy_unknown", "token_unknown", "token_mismatch", "token_expired", "token_revoked",
	"token_scope", "run_ended", "approval_unknown", "approval_mismatch", "approval_missing",
	"approval_args", "approval_late", "approval_expired", "approval_self", "approval_twice",
	"approval_quorum", "approval_decided", "approval_reused", "hold_persons", "hold_broken",
	"release_unsigned", "release_replayed", "release_withdrawn", "event_twice",
}

type set map[string]bool

// rules hold what the records say together (section 6.2).
type rules struct {
	files segments
	found []Finding
	// unscoped counts the intents whose token left `allow` out.
	unscoped int

	boot      string
	bootUs    int64
	firstBoot *record // `genesis`, until the `boot` that follows it
	lastUs    int64
	count     uint64

	policies  set
	refused   set
	events    set
	ended     set                          // runs
	revoked   map[string]map[string]uint64 // member: value: seq of the last revocation
	tokens    map[string]*token
	calls     map[string]*call
	open      map[string]*call
	approvals map[string]*approval
	heldOps   map[string]string // op: approval
	holds     map[string]string // hold: subject
	kills     map[string]target // kill: whom it stops
	releases  releases
}

// call is the last intent of an operation.
type call struct {
	op       string
	seq      uint64
	at       position
	boot     string
	open     bool
	told     bool // that it is open
	sent     bool // known once it is closed
	approval *approval
	// ifSent are the rules that are broken unless the call turns out not to have been sent.
	ifSent []breach
}

type breach struct{ rule, what string }

func newRules(files segments, publishers []string) *rules {
	revoked := map[string]map[string]uint64{}
	for _, name := range revocable {
		revoked[name] = map[string]uint64{}
	}
	return &rules{
		files: files, policies: set{}, refused: set{}, events: set{}, ended: set{},
		revoked: revoked, tokens: map[string]*token{}, calls: map[string]*call{},
		open: map[string]*call{}, approvals: map[string]*approval{},
		heldOps: map[string]string{}, holds: map[string]string{},
		kills:    map[string]target{},
		releases: releases{pinned: publishers, seen: map[decided]bool{}, seenNames: set{}, left: set{}, withdrawn: map[said]bool{}},
	}
}

// breaks notes that a rule is broken at a record.
func (s *rules) breaks(rule string, seq uint64, at position, what string, args ...any) {
	s.found = append(s.found, Finding{
		Kind: Semantic, Rule: rule, Seq: seq, Place: s.files.place(at),
		What: fmt.Sprintf(what, args...), order: orderRules + slices.Index(ruleOrder, rule),
	})
}

// at is breaks for the record at hand.
func (s *rules) at(r *record, rule, what string, args ...any) {
	s.breaks(rule, r.seq, r.at, what, args...)
}

// handlers say what each type does; the others stand for themselves.
var handlers = map[string]func(*rules, *record){
	"shutdown":        (*rules).shutdown,
	"call.intent":     (*rules).intent,
	"call.outcome":    (*rules).closing,
	"call.orphan":     (*rules).closing,
	"call.refused":    func(s *rules, r *record) { s.refused[r.text("op")] = true },
	"policy.activate": (*rules).activates,
	"policy.trust":    (*rules).trusts,
	"policy.halt":     (*rules).halts,
	"policy.withdraw": (*rules).withdraws,
	"token.issue":     (*rules).issue,
	"token.revoke":    (*rules).revoke,
	"kill.set":        (*rules).kill,
	"kill.lift":       func(s *rules, r *record) { delete(s.kills, r.text("kill")) },
	"run.end":         func(s *rules, r *record) { s.ended[r.text("run")] = true },

	"approval.request": (*rules).request,
	"approval.vote":    (*rules).vote,
	"approval.grant":   (*rules).move,
	"approval.deny":    (*rules).move,
	"approval.expire":  (*rules).move,
	"approval.cancel":  (*rules).move,
	"approval.stale":   (*rules).move,
	"approval.unknown": (*rules).move,
	"approval.resolve": (*rules).move,

	"hold.set":     (*rules).hold,
	"hold.release": (*rules).hold,
	"redact":       (*rules).redact,
}

// record takes the next record; key is that of the epoch.
func (s *rules) record(r *record, key string) {
	s.lastUs = r.ts
	s.starts(r, key)
	if event := r.text("event"); event != "" {
		if s.events[event] {
			s.at(r, "event_twice", "the event `%s` was recorded before", event)
		}
		s.events[event] = true
	}
	if rev := r.object("policy").text("rev"); rev != "" && !s.policies[rev] {
		s.at(r, "policy_unknown", "policy `%s` was never activated", rev)
	}
	if handle := handlers[r.text("type")]; handle != nil {
		handle(s, r)
	}
	if s.count++; s.count%sweepEvery == 0 {
		s.forgetTokens()
	}
}

// starts follows `genesis` and `boot`, and holds every record's `boot` against the last one.
func (s *rules) starts(r *record, key string) {
	switch kind := r.text("type"); {
	case kind == "genesis":
		s.firstBoot = r
		s.holdKey(r, key)
		return
	case kind == "boot":
		s.boot, s.bootUs = r.text("op"), r.ts
		s.releases.trust, s.releases.publishers = nil, nil
		s.holdKey(r, key)
		if number, ok := r.number("open_intents"); !ok || number != int64(len(s.open)) {
			s.at(r, "boot_count", "%d intents are open, not %d", len(s.open), number)
		}
	}
	if s.firstBoot != nil {
		if s.firstBoot.text("boot") != s.boot {
			s.at(s.firstBoot, "boot_unknown", "the first boot is `%s`", s.boot)
		}
		s.firstBoot = nil
	}
	if boot := r.text("boot"); boot != s.boot {
		s.at(r, "boot_unknown", "boot `%s` is not the last one", boot)
	}
}

func (s *rules) holdKey(r *record, key string) {
	if r.text("key") != key {
		s.at(r, "key_mismatch", "`%s` is not the epoch's key", r.text("key"))
	}
}

// shutdown: nothing may be under way any more.
func (s *rules) shutdown(*record) {
	s.tellOrphans("at the shutdown")
	for _, one := range s.open {
		if one.boot == s.boot && !one.told {
			one.told = true
			s.breaks("intent_open", one.seq, one.at, "the intent is open at the shutdown")
		}
	}
}

func (s *rules) tellOrphans(when string) {
	for _, one := range s.open {
		if one.boot != s.boot && !one.told {
			one.told = true
			s.breaks("orphan_open", one.seq, one.at, "the intent of an earlier boot is open %s", when)
		}
	}
}

// end decides what only the log's end decides.
func (s *rules) end() {
	if s.lastUs-s.bootUs > graceUs {
		s.tellOrphans("long after the last boot")
	}
	for _, one := range s.open {
		s.tellSent(one)
	}
}

// tellSent tells the rules that a call broke by being sent.
func (s *rules) tellSent(one *call) {
	for _, broken := range one.ifSent {
		s.breaks(broken.rule, one.seq, one.at, "%s", broken.what)
	}
	one.ifSent = nil
}
