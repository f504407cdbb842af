package audit

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
)

// The exit codes of a verifier.
const (
	ExitValid     = 0
	ExitBroken    = 1
	ExitUsage     = 2
	ExitUnassured = 3
	ExitForked    = 4
)

// Where several findings name one record, the chain's come first, in the order of section 6.1.
const (
	orderPinned = iota + 1
	orderKnown
	orderTiles
	orderWitnesses
	orderRules
)

// Options is what the reader knows and asks for.
type Options struct {
	// Keys are the pinned verifier keys; with none, the log's own first key is believed.
	Keys []string
	// Witnesses are the verifier keys of known witnesses.
	Witnesses []string
	// Checkpoints are notes from elsewhere, by the name that a finding gives them.
	Checkpoints map[string][]byte
	// Seen is the last checkpoint that this reader held to be good; nil for none.
	Seen []byte
	// Publishers are the keys of those who may publish releases; none: those that the log names.
	Publishers []string
	// RequireKey asks for a pinned key.
	RequireKey bool
}

// Report is what was found.
type Report struct {
	Valid    bool      `json:"valid"`
	Exit     int       `json:"exit"`
	Findings []Finding `json:"findings"`
	Warnings []string  `json:"warnings"`
	Origin   string    `json:"origin"`
	Records  uint64    `json:"records"`
	Epochs   int       `json:"epochs"`
	// Unscoped counts the intents whose token left `allow` out.
	Unscoped int `json:"unscoped"`
	// Last is the note of the last checkpoint line that held.
	Last string `json:"checkpoint,omitempty"`
}

// verification is one reading of one log.
type verification struct {
	options   Options
	chain     *chain
	tiles     *tiles
	known     []*known
	witnesses []witness
	seals     seals
	rules     *rules
	report    Report
}

// Verify reads the log in a directory. The error says why it could not be read or what of the
// options is of no use; damage is no error but a finding.
func Verify(dir string, options Options) (*Report, error) {
	v := &verification{options: options}
	if err := v.prepare(dir); err != nil {
		return nil, err
	}
	var end *broken
	if err := v.chain.run(); errors.As(err, &end) {
		v.report.Findings = append(v.beforeBatch(), end.Finding)
	} else if err != nil {
		return nil, err
	} else {
		v.whole()
		if len(v.report.Findings) == 0 {
			if err := v.tiles.beyond(v.chain.size()); err != nil {
				return nil, err
			}
		}
	}
	if v.tiles != nil {
		if v.tiles.err != nil {
			return nil, v.tiles.err
		}
		v.report.Findings = append(v.report.Findings, v.tiles.found...)
	}
	v.close()
	return &v.report, nil
}

// prepare reads everything but the log, so that what is wrong there is said first.
func (v *verification) prepare(dir string) error {
	for _, key := range v.options.Keys {
		if _, err := note.NewVerifier(key); err != nil {
			return fmt.Errorf("`%s` is no verifier key: %w", key, err)
		}
	}
	for _, key := range v.options.Witnesses {
		parsed, err := newWitness(key)
		if err != nil {
			return err
		}
		v.witnesses = append(v.witnesses, parsed)
	}
	if err := v.prepareKnown(dir); err != nil {
		return err
	}
	files, err := listSegments(dir)
	if err != nil {
		return err
	}
	if v.tiles, err = newTiles(dir); err != nil {
		return err
	}
	v.chain = newChain(files, v.tiles.node)
	v.rules = newRules(files, v.options.Publishers)
	v.chain.accepted, v.chain.held = v.accepted, v.held
	return nil
}

func (v *verification) prepareKnown(dir string) error {
	beside, damaged, err := copies(dir)
	if err != nil {
		return err
	}
	v.known, v.report.Findings = beside, damaged
	for place, whole := range v.options.Checkpoints {
		one, err := newKnown(place, whole, false)
		if err != nil {
			return err
		}
		v.known = append(v.known, one)
	}
	if v.options.Seen != nil {
		one, err := newKnown("what this reader saw before", v.options.Seen, true)
		if err != nil {
			return err
		}
		v.known = append(v.known, one)
	}
	return nil
}

func (v *verification) accepted(next *record) {
	for _, one := range v.known {
		one.note(v.chain.tree)
	}
	if next.text("type") == "checkpoint.witnessed" {
		if err := checkWitnessed(next, v.seals, v.witnesses); err != nil {
			v.rules.found = append(v.rules.found, Finding{
				Kind: Edited, Seq: next.seq, Place: v.chain.files.place(next.at),
				What: err.Error(), order: orderWitnesses,
			})
		}
	}
	v.rules.record(next, v.chain.epoch().vkey)
}

func (v *verification) held(last *checkpoint) {
	v.seals = append(v.seals, seal{last.size, last.root})
}

// beforeBatch returns what was found in batches that have held.
func (v *verification) beforeBatch() []Finding {
	return slices.DeleteFunc(v.rules.found, func(one Finding) bool {
		return one.Seq >= v.chain.base.size()
	})
}

// whole judges what only a log whose chain holds can answer (steps 6 and 7, and the rules).
func (v *verification) whole() {
	v.rules.end()
	for at := range v.report.Findings {
		// A copy that cannot be read has no size of its own.
		v.report.Findings[at].Seq = v.chain.sealSeq()
	}
	v.report.Findings = append(v.report.Findings, v.rules.found...)
	if !v.isPinned() {
		v.report.Findings = append(v.report.Findings, Finding{
			Kind: WrongKey, Place: v.chain.files.place(position{line: 1}),
			What: "none of the pinned keys is a key of this log", order: orderPinned,
		})
	}
	for _, one := range v.known {
		if found := one.judge(v.chain); found != nil {
			v.report.Findings = append(v.report.Findings, *found)
		}
	}
}

// isPinned says whether a pinned key is that of an epoch (step 6).
func (v *verification) isPinned() bool {
	for _, key := range v.options.Keys {
		if v.chain.isKnown(key) {
			return true
		}
	}
	return len(v.options.Keys) == 0
}

// close works out the verdict.
func (v *verification) close() {
	r := &v.report
	sortFindings(r.Findings)
	r.Origin, r.Records, r.Epochs = v.chain.origin, v.chain.base.size(), len(v.chain.epochs)
	r.Unscoped = v.rules.unscoped
	if v.chain.last != nil {
		r.Last = v.chain.last.whole
	}
	r.Warnings = []string{}
	if len(v.options.Keys) == 0 {
		r.Warnings = append(r.Warnings, "UNPINNED_KEY")
	}
	r.Exit = v.exit()
	r.Valid = len(r.Findings) == 0
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
}

func (v *verification) exit() int {
	for _, one := range v.report.Findings {
		if one.Kind == Forked || one.Kind == Rewound {
			return ExitForked
		}
	}
	switch {
	case len(v.report.Findings) > 0:
		return ExitBroken
	case v.options.RequireKey && len(v.options.Keys) == 0:
		return ExitUnassured
	}
	return ExitValid
}
