// Package audit verifies audit logs of the profile countersign.audit/v1.
//
// It is written from docs/spec/audit-log-v1.md and shares no code with the gateway or with the
// verifier in Python. Section numbers in comments are those of that page.
package audit

import (
	"cmp"
	"fmt"
	"slices"
)

// The kinds of section 6.1, in the order in which that section meets them, and `semantic` of 6.2.
const (
	NotCanonical = "not_canonical"
	Edited       = "edited"
	Torn         = "torn"
	WrongLog     = "wrong_log"
	Deleted      = "deleted"
	Inserted     = "inserted"
	Reordered    = "reordered"
	WrongKey     = "wrong_key"
	OutOfEpoch   = "out_of_epoch"
	Missing      = "missing"
	Truncated    = "truncated"
	Forked       = "forked"
	Rewound      = "rewound"
	Semantic     = "semantic"
)

// Finding is one thing that is not as an honest gateway wrote it.
type Finding struct {
	Kind string `json:"kind"`
	// Rule is the rule of section 6.2; empty unless Kind is Semantic.
	Rule string `json:"rule,omitempty"`
	// Seq is the number of records before the first that is not as it was written.
	Seq uint64 `json:"seq"`
	// Place is `<file>:<line>`, or a file of the directory.
	Place string `json:"place"`
	What  string `json:"what"`

	order int
}

func (f Finding) String() string {
	kind := f.Kind
	if f.Rule != "" {
		kind += " " + f.Rule
	}
	return fmt.Sprintf("%s: record %d (%s): %s", kind, f.Seq, f.Place, f.What)
}

// sortFindings orders by place; among equals those of the chain come first, then the rules in the
// order of section 6.2.
func sortFindings(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.order, b.order))
	})
}

// broken is the finding at which the reading of the chain ends.
type broken struct{ Finding }

func (b *broken) Error() string { return b.String() }
