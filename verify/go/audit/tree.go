package audit

import (
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

var factory = compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// tree keeps the O(log n) subtree roots of all leaves so far.
type tree struct {
	nodes *compact.Range
	visit compact.VisitFn // sees every node of a full subtree; may be nil
}

func newTree(visit compact.VisitFn) *tree {
	return &tree{factory.NewEmptyRange(0), visit}
}

func (t *tree) size() uint64 {
	return t.nodes.End()
}

func (t *tree) append(leaf string) {
	// Append fails on ranges that do not fit together only, and a leaf always fits.
	if err := t.nodes.Append([]byte(leaf), t.visit); err != nil {
		panic(err)
	}
}

func (t *tree) root() string {
	if t.size() == 0 {
		return string(rfc6962.DefaultHasher.EmptyRoot())
	}
	root, err := t.nodes.GetRootHash(nil)
	if err != nil {
		panic(err) // the range begins at 0
	}
	return string(root)
}

// copy returns a tree that grows on its own and shows its nodes to nobody.
func (t *tree) copy() *tree {
	nodes, err := factory.NewRange(0, t.size(), slices.Clone(t.nodes.Hashes()))
	if err != nil {
		panic(err) // the hashes are those of a range of this size
	}
	return &tree{nodes: nodes}
}

// rootWith returns the root with further leaves.
func (t *tree) rootWith(leaves []string) string {
	grown := t.copy()
	for _, leaf := range leaves {
		grown.append(leaf)
	}
	return grown.root()
}
