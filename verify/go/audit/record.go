package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/transparency-dev/merkle/rfc6962"
)

// fields is a parsed object; its methods answer the zero value for what is not there.
type fields map[string]any

func (f fields) text(name string) string {
	text, _ := f[name].(string)
	return text
}

func (f fields) number(name string) (int64, bool) {
	number, ok := f[name].(int64)
	return number, ok
}

func (f fields) object(name string) fields {
	object, _ := f[name].(map[string]any)
	return object
}

func (f fields) texts(name string) []string {
	items, _ := f[name].([]any)
	var texts []string
	for _, item := range items {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// has says whether a member is there and not null.
func (f fields) has(name string) bool {
	return f[name] != nil
}

// record is a record line, parsed.
type record struct {
	fields
	at   position
	leaf string // 32 bytes
	prev string // 32 bytes, or "" where it is not 64 hex digits
	seq  uint64
	cp   string // hex; "" where there is none
	ts   int64
}

var errReserved = errors.New("a reserved member is missing or of another type")

// newRecord reads the members that every record has (section 3).
func newRecord(from line, parsed fields) (*record, error) {
	r := &record{fields: parsed, at: from.at, leaf: leafHash(from.data)}
	seq, hasSeq := parsed.number("seq")
	ts, hasTS := parsed.number("ts")
	r.seq, r.ts, r.cp = uint64(seq), ts, parsed.text("cp")
	if prev := parsed.text("prev"); len(prev) == 64 && strings.ToLower(prev) == prev {
		raw, err := hex.DecodeString(prev)
		if err == nil {
			r.prev = string(raw)
		}
	}
	version, _ := parsed.number("v")
	_, hasCP := parsed["cp"]
	switch {
	case !hasSeq || seq < 0 || !hasTS || version != 1 || r.prev == "":
		return r, errReserved
	case parsed.text("boot") == "" || parsed.text("type") == "" || parsed.text("log") == "":
		return r, errReserved
	case hasCP && r.cp == "":
		return r, errReserved
	}
	return r, nil
}

// leafHash is the leaf of RFC 6962 section 2.1.
func leafHash(line []byte) string {
	return string(rfc6962.DefaultHasher.HashLeaf(line))
}

// lineHash is what the record behind a checkpoint line carries in `cp`.
func lineHash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}
