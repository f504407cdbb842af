package audit

import (
	"fmt"
	"slices"
	"strings"
)

// scopeCall is the scope that a token needs for a call.
const scopeCall = "tools:call"

// anything stands for every server or tool in `allow`.
const anything = "*"

// revocable are the members of `actor` that a `token.revoke` may name.
var revocable = []string{"jti", "root", "run", "agent", "client"}

// token is what `token.issue` said.
type token struct {
	seq    uint64
	actor  map[string]string
	exp    int64 // seconds
	scopes []string
	allow  []any
	listed bool // `allow` is there
}

// intent judges a `call.intent` and opens the call.
func (s *rules) intent(r *record) {
	op := r.text("op")
	if outcome := r.object("decision").text("outcome"); outcome != "permit" {
		s.at(r, "effect_despite_deny", "the decision is `%s`", outcome)
	} else if s.refused[op] {
		s.at(r, "effect_despite_deny", "the call `%s` was refused before", op)
	}
	earlier := s.calls[op]
	if earlier != nil && (earlier.open || earlier.sent) {
		s.at(r, "second_intent", "record %d is an intent of `%s` too", earlier.seq, op)
	}
	next := &call{op: op, seq: r.seq, at: r.at, boot: s.boot, open: true}
	if r.has("approval") {
		s.heldIntent(r, next)
	} else {
		s.plainIntent(r)
	}
	next.ifSent = append(s.killed(r), s.authorityGone(r.object("actor"))...)
	s.calls[op], s.open[op] = next, next
}

// plainIntent judges the token of a call that nobody had to approve.
func (s *rules) plainIntent(r *record) {
	if held := s.heldOps[r.text("op")]; held != "" {
		s.at(r, "approval_missing", "the call was held as `%s`", held)
	}
	actor := r.object("actor")
	issued := s.tokens[actor.text("jti")]
	if issued == nil {
		s.at(r, "token_unknown", "token `%s` was never issued", actor.text("jti"))
		return
	}
	for _, name := range []string{"agent", "run", "root"} {
		if actor.text(name) != issued.actor[name] {
			s.at(r, "token_mismatch", "`%s` was issued for %s `%s`", actor.text("jti"), name,
				issued.actor[name])
			break
		}
	}
	if r.ts > issued.exp*1_000_000+graceUs {
		s.at(r, "token_expired", "token `%s` ended at %d", actor.text("jti"), issued.exp)
	}
	s.scope(r, issued)
}

// scope holds the tool against what the token reaches.
func (s *rules) scope(r *record, issued *token) {
	tool := r.object("tool")
	switch {
	case !slices.Contains(issued.scopes, scopeCall):
		s.at(r, "token_scope", "the token's scopes lack `%s`", scopeCall)
	case !issued.listed:
		s.unscoped++
	case !issued.covers(tool):
		s.at(r, "token_scope", "the token does not reach `%s`", tool.text("id"))
	}
}

func (t *token) covers(tool fields) bool {
	server := tool.text("server")
	for _, item := range t.allow {
		object, _ := item.(map[string]any)
		entry := fields(object)
		onServer := entry.text("server") == anything || entry.text("server") == server
		name := entry.text("tool")
		names := name == anything || server+"."+name == tool.text("id") || name == tool.text("id")
		effects := entry.texts("effects")
		does := !entry.has("effects") || slices.Contains(effects, tool.text("effect"))
		if onServer && names && does {
			return true
		}
	}
	return false
}

// authorityGone returns the rules that a call breaks if it is sent now.
func (s *rules) authorityGone(actor fields) []breach {
	var found []breach
	issued := uint64(0)
	if one := s.tokens[actor.text("jti")]; one != nil {
		issued = one.seq
	}
	for _, name := range revocable {
		if value := actor.text(name); value != "" && s.revoked[name][value] > issued {
			what := fmt.Sprintf("%s `%s` was revoked before", name, value)
			found = append(found, breach{"token_revoked", what})
			break
		}
	}
	if run := actor.text("run"); s.ended[run] {
		found = append(found, breach{"run_ended", fmt.Sprintf("run `%s` ended before", run)})
	}
	return found
}

// closing judges a `call.outcome` or `call.orphan` and closes the call.
func (s *rules) closing(r *record) {
	op := r.text("op")
	one := s.calls[op]
	if one == nil {
		s.at(r, "outcome_without_intent", "there is no intent of `%s` before", op)
		return
	}
	if intent, ok := r.number("intent"); !ok || uint64(intent) != one.seq {
		s.at(r, "outcome_mismatch", "the last intent of `%s` is record %d", op, one.seq)
	}
	if !one.open {
		s.at(r, "second_outcome", "the intent %d was closed before", one.seq)
		return
	}
	delivery := r.text("delivery")
	one.open, one.sent = false, delivery != "not_sent"
	delete(s.open, op)
	if one.sent {
		s.tellSent(one)
	}
	if one.approval != nil {
		one.approval.close(delivery, r.text("type") == "call.orphan")
	}
}

// issue keeps what a token may.
func (s *rules) issue(r *record) {
	if run := r.text("run"); s.ended[run] {
		s.at(r, "run_ended", "a token for run `%s`, which ended before", run)
	}
	exp, _ := r.number("exp")
	issued := &token{seq: r.seq, actor: map[string]string{}, exp: exp, scopes: r.texts("scopes")}
	if scopes := r.text("scopes"); scopes != "" {
		issued.scopes = strings.Fields(scopes)
	}
	for _, name := range []string{"agent", "run", "root"} {
		issued.actor[name] = r.text(name)
	}
	issued.allow, issued.listed = r.fields["allow"].([]any)
	s.tokens[r.text("jti")] = issued
}

func (s *rules) revoke(r *record) {
	for _, name := range revocable {
		if value := r.text(name); value != "" {
			s.revoked[name][value] = r.seq
		}
	}
}

// forgetTokens lets go of tokens that ended more than an hour ago.
func (s *rules) forgetTokens() {
	for jti, one := range s.tokens {
		if s.lastUs > one.exp*1_000_000+keptUs {
			delete(s.tokens, jti)
		}
	}
}
