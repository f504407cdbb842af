package audit

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"reflect"
	"slices"
	"strings"
)

// statementType is the `typ` of what publishers sign (section 9.3).
const statementType = "countersign-release+jwt"

// decided is a release in the row of those that decided.
type decided struct {
	release string
	number  int64
}

// publisher is one of `policy.trust`.
type publisher struct{ key, person string }

// releases follow whose signatures count, and which release decides (section 9.3).
type releases struct {
	pinned     []string // keys that the reader knows; none: those that the log names
	trust      fields   // of this process run; nil for none
	publishers map[string]publisher
	current    decided
	top        int64
	back       *decided // where a halt of the current one leads
	seen       map[decided]bool
	seenNames  set
	left       set // releases that were halted or gone back from
	withdrawn  map[said]bool
}

// said is what a statement is about, whether it asks for it or takes it back.
type said struct {
	number, shadow, again float64
	release               string
}

// trusts takes `policy.trust`.
func (s *rules) trusts(r *record) {
	s.releases.trust = r.fields
	s.releases.publishers = map[string]publisher{}
	items, _ := r.fields["publishers"].([]any)
	for _, item := range items {
		one, _ := item.(map[string]any)
		named := fields(one)
		s.releases.publishers[named.text("kid")] = publisher{named.text("key"), named.text("person")}
	}
}

// halts takes `policy.halt`.
func (s *rules) halts(r *record) {
	if decidedOf(r.fields) == s.releases.current {
		s.releases.back = nil
		if back := r.object("back_to"); back != nil {
			found := decidedOf(back)
			s.releases.back = &found
		}
		s.releases.left[r.text("release")] = true
	}
}

// withdraws takes `policy.withdraw`.
func (s *rules) withdraws(r *record) {
	m := &s.releases
	word, _ := m.readWords(r, decidedOf(r.fields))
	if word == nil || word["act"] != "withdraw" {
		s.at(r, "release_withdrawn", "release `%s` was withdrawn by no publisher", r.text("release"))
		return
	}
	m.withdrawn[saidBy(word)] = true
}

// activates takes `policy.activate`.
func (s *rules) activates(r *record) {
	s.policies[r.text("rev")] = true
	m := &s.releases
	if m.trust == nil && len(m.pinned) == 0 {
		return
	}
	now := decidedOf(r.fields)
	isBack := m.back != nil && *m.back == now && m.seen[now]
	word := m.signed(r, now)
	if word == nil {
		s.at(r, "release_unsigned", "release `%s` was not signed by two publishers", now.release)
	} else if m.withdrawn[saidBy(word)] {
		s.at(r, "release_withdrawn", "release `%s` was withdrawn before", now.release)
	} else if now != m.current && now.number <= m.top && !isBack {
		s.at(r, "release_replayed", "number %d comes after number %d", now.number, m.top)
	}
	if now != m.current {
		m.back = nil
		if word != nil && word["act"] == "rollback" {
			m.left[m.current.release] = true
		}
		if len(r.texts("kids")) > 1 {
			delete(m.left, now.release)
		}
	}
	m.current, m.top = now, max(m.top, now.number)
	m.seen[now], m.seenNames[now.release] = true, true
}

// signed is what enough publishers said of a release for this log and place, or nil.
func (m *releases) signed(r *record, now decided) map[string]any {
	word, count := m.readWords(r, now)
	if word == nil || word["act"] == "withdraw" {
		return nil
	}
	needed := 2
	if word["act"] == "rollback" && m.trust.text("rollback") == "one" &&
		m.seenNames[now.release] && !m.left[now.release] {
		needed = 1
	}
	if count < needed {
		return nil
	}
	return word
}

// readWords is what publishers say alike about this place, and how many of them.
func (m *releases) readWords(r *record, now decided) (map[string]any, int) {
	kids, statements := r.texts("kids"), r.texts("statements")
	if len(kids) == 0 || len(kids) != len(statements) {
		return nil, 0
	}
	people, keys := set{}, set{}
	var first map[string]any
	for at, kid := range kids {
		one, known := m.publishers[kid]
		if !known || (len(m.pinned) > 0 && !slices.Contains(m.pinned, one.key)) {
			return nil, 0
		}
		word := readStatement(statements[at], kid, one.key)
		if word == nil || (first != nil && !reflect.DeepEqual(first, word)) {
			return nil, 0
		}
		first, people[one.person], keys[one.key] = word, true, true
	}
	number, _ := first["number"].(float64)
	if first["rev"] != now.release || int64(number) != now.number ||
		first["env"] != m.trust.text("environment") || first["log"] != r.text("log") {
		return nil, 0
	}
	return first, min(len(people), len(keys))
}

func saidBy(word map[string]any) said {
	number, _ := word["number"].(float64)
	shadow, _ := word["shadow_s"].(float64)
	again, _ := word["again"].(float64)
	release, _ := word["rev"].(string)
	return said{number, shadow, again, release}
}

// readStatement is what a publisher's JWT says, or nil where this key did not sign it.
func readStatement(token, kid, key string) map[string]any {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	var header, said map[string]any
	if readPart(parts[0], &header) != nil || readPart(parts[1], &said) != nil || said == nil {
		return nil
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	_, isCritical := header["crit"]
	if err != nil || isCritical || header["typ"] != statementType || header["kid"] != kid {
		return nil
	}
	alg, _ := header["alg"].(string)
	if !isSignedBy(key, alg, []byte(parts[0]+"."+parts[1]), signature) {
		return nil
	}
	return said
}

func readPart(part string, into *map[string]any) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// isSignedBy checks a signature under Ed25519 or ES256; key is a SubjectPublicKeyInfo in base64.
func isSignedBy(key, alg string, message, signature []byte) bool {
	der, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil {
		return false
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return false
	}
	switch public := parsed.(type) {
	case ed25519.PublicKey:
		return (alg == "EdDSA" || alg == "Ed25519") && ed25519.Verify(public, message, signature)
	case *ecdsa.PublicKey:
		if alg != "ES256" || public.Curve != elliptic.P256() || len(signature) != 64 {
			return false
		}
		hash := sha256.Sum256(message)
		r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		return ecdsa.Verify(public, hash[:], r, s)
	}
	return false
}

func decidedOf(of fields) decided {
	number, _ := of.number("number")
	return decided{of.text("release"), number}
}
