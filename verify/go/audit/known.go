package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// known is a checkpoint that the log must have in it (section 6.1, step 7).
type known struct {
	*checkpoint
	place string
	// seen: the reader itself held this log to be good, so a shorter one was wound back.
	seen bool
	root string // what the log has at that size; "" where it is not so long
}

// newKnown reads a checkpoint from elsewhere.
func newKnown(place string, whole []byte, seen bool) (*known, error) {
	parsed, err := parseNote(string(whole))
	if err != nil {
		return nil, fmt.Errorf("`%s` is no checkpoint: %w", place, err)
	}
	return &known{checkpoint: parsed, place: place, seen: seen}, nil
}

// copies are the checkpoints that the directory itself keeps beside the log.
func copies(dir string) (found []*known, damaged []Finding, err error) {
	for _, name := range []string{"checkpoint", "witness/checkpoint"} {
		whole, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		one, err := newKnown(name, whole, false)
		if err != nil {
			damaged = append(damaged, Finding{
				Kind: Edited, Place: name, What: err.Error(), order: orderKnown,
			})
			continue
		}
		found = append(found, one)
	}
	return found, damaged, nil
}

// note keeps the log's root where it has the size of the checkpoint.
func (k *known) note(tree *tree) {
	if k.size == tree.size() {
		k.root = tree.root()
	}
}

// judge holds the checkpoint against the whole log.
func (k *known) judge(c *chain) *Finding {
	fault := func(kind string, seq uint64, what string, args ...any) *Finding {
		return &Finding{
			Kind: kind, Seq: seq, Place: k.place, What: fmt.Sprintf(what, args...), order: orderKnown,
		}
	}
	switch {
	case k.origin != c.origin || !k.signedByAny(c.epochs):
		return fault(WrongKey, k.seq(), "no key of this log signed the checkpoint")
	case k.size > c.size() && k.seen:
		return fault(Rewound, c.size(), "the log had %d records when it was last read", k.size)
	case k.size > c.size():
		return fault(Truncated, c.size(), "a signed checkpoint counts %d records", k.size)
	case k.size > 0 && k.checkpoint.root != k.root:
		return fault(Forked, k.seq(), "a signed checkpoint has another root at %d records", k.size)
	}
	return nil
}

func (k *known) signedByAny(keys []epoch) bool {
	for _, key := range keys {
		if k.signedBy(key) {
			return true
		}
	}
	return false
}
