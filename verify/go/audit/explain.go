package audit

import (
	"slices"

	"golang.org/x/mod/sumdb/note"
)

// What stands behind a line that does not fit tells what was done to it. Everything here runs once,
// after the first misfit, and only reads on.

// maxWindow bounds how many lines of a batch are looked at.
const maxWindow = 1 << 16

// window is the rest of the batch behind the line at hand.
type window struct {
	records []*record
	seal    *checkpoint // nil where no checkpoint line ends the batch
	next    *record     // behind that; nil where none follows at once
}

// ahead reads the rest of the batch.
func (c *chain) ahead() window {
	var found window
	c.scan(func(next *record, seal *checkpoint) bool {
		switch {
		case found.seal != nil:
			found.next = next
			return false
		case next == nil:
			found.seal = seal
			return seal != nil
		}
		found.records = append(found.records, next)
		return len(found.records) < maxWindow
	})
	return found
}

// scan shows the lines behind the one at hand until see says no. A line that cannot be read is
// shown as nothing.
func (c *chain) scan(see func(next *record, seal *checkpoint) bool) {
	rest := c.files.open(c.reader.next)
	defer rest.close()
	for {
		found, err := rest.read()
		if err != nil {
			return
		}
		parsed, err := parseLine(found.data)
		var next *record
		var seal *checkpoint
		switch {
		case err != nil:
		case isCheckpoint(found.data):
			seal, _ = sealNote(parsed)
		default:
			next, _ = newRecord(found, parsed)
		}
		if !see(next, seal) {
			return
		}
	}
}

// inLastBatch says whether no record follows behind the next checkpoint line.
func (c *chain) inLastBatch() bool {
	rest := c.files.open(c.reader.next)
	defer rest.close()
	for sealed := false; ; {
		found, err := rest.read()
		if err != nil {
			return true
		}
		if sealed {
			return false
		}
		sealed = isCheckpoint(found.data)
	}
}

// sealStoodHere says whether a line that cannot be read stands where a checkpoint line belongs: the
// next record goes on with the number that would be this one's, or the log ends within a batch.
func (c *chain) sealStoodHere() bool {
	if len(c.batch) == 0 {
		return false
	}
	last, goesOn := true, false
	c.scan(func(next *record, _ *checkpoint) bool {
		last = false
		goesOn = next != nil && next.seq == c.size() && next.prev == c.prev
		return false
	})
	return last || goesOn
}

// claims returns the leaves that the records of a batch say the ones before them have, from the
// second record on, and the last record's own leaf.
func claims(links []link) []string {
	var leaves []string
	for _, one := range links[1:] {
		leaves = append(leaves, one.prev)
	}
	return append(leaves, links[len(links)-1].leaf)
}

// continued says whether what stands behind a record says that it is as it was written.
func (c *chain) continued(found *record, rest window, before []string) bool {
	if len(rest.records) > 0 {
		return rest.records[0].prev == found.leaf
	}
	if rest.next != nil && rest.next.prev == found.leaf {
		return true
	}
	if rest.seal == nil {
		return false
	}
	leaves := append(slices.Clone(before), found.leaf)
	return rest.seal.size == c.base.size()+uint64(len(leaves)) &&
		rest.seal.root == c.base.rootWith(leaves)
}

// leaves returns the leaves of the batch so far.
func (c *chain) leaves() []string {
	var leaves []string
	for _, one := range c.batch {
		leaves = append(leaves, one.leaf)
	}
	return leaves
}

// explainPrev: `prev` is not the leaf of the record before. One of the two was changed.
func (c *chain) explainPrev(found *record) error {
	seq := c.size()
	here := c.fault(Edited, seq, "`prev` is not the leaf of the record before")
	// Records of earlier batches are held by the roots of those.
	if len(c.batch) == 0 {
		return here
	}
	before := c.faultBefore(Edited, seq-1, "its leaf is not the one that the next record carries")
	rest := c.ahead()
	links := append(slices.Clone(c.batch), link{found.prev, found.leaf})
	for _, one := range rest.records {
		links = append(links, link{one.prev, one.leaf})
	}
	if rest.seal != nil {
		told := claims(links)
		if rest.seal.root == c.base.rootWith(told) {
			return before
		}
		if rest.seal.root == c.base.rootWith(append(c.leaves(), told[len(c.batch):]...)) {
			return here
		}
	}
	if c.continued(found, rest, c.leaves()) {
		return before
	}
	return here
}

// explainSeal: `cp` does not fit. Either the record was changed or the checkpoint line before it.
func (c *chain) explainSeal(found *record) error {
	seq := c.size()
	switch {
	case !c.continued(found, c.ahead(), c.leaves()):
		return c.fault(Edited, seq, "`cp` is not the hash of the checkpoint line before")
	case c.sealed == "" && c.sealFollows(seq):
		return c.faultBefore(Reordered, seq-1, "the checkpoint line before this record stands further on")
	case c.sealed == "":
		return c.faultBefore(Deleted, seq-1, "the checkpoint line before this record is gone")
	case found.cp == "":
		return c.faultBefore(Inserted, seq-1, "the record knows of no checkpoint line before it")
	default:
		return c.faultBefore(Edited, seq-1, "the checkpoint line is not the one that the record carries")
	}
}

// explainSeq: a record of another number stands here.
func (c *chain) explainSeq(found *record) error {
	seq := c.size()
	rest := c.ahead()
	if found.prev == c.prev && c.numberAlone(rest) {
		return c.fault(Edited, seq, "`seq` is %d", found.seq)
	}
	if found.seq < seq {
		return c.fault(Inserted, c.twice(found, rest), "record %d stands here too", found.seq)
	}
	here, again, highest := false, false, uint64(0)
	c.scan(func(next *record, _ *checkpoint) bool {
		if next != nil {
			here = here || (next.seq == seq && next.prev == c.prev)
			again = again || next.seq == found.seq
			highest = max(highest, next.seq)
		}
		return true
	})
	switch {
	case !here:
		return c.fault(Deleted, seq, "record %d stands here, %d is gone", found.seq, seq)
	case again || found.seq > highest+1:
		return c.fault(Inserted, seq, "record %d stands here and does not belong here", found.seq)
	default:
		return c.fault(Reordered, seq, "record %d stands here, %d further on", found.seq, seq)
	}
}

// numberAlone says whether the lines behind go on as if only the number was another.
func (c *chain) numberAlone(rest window) bool {
	if len(rest.records) > 0 {
		return rest.records[0].seq == c.size()+1
	}
	return rest.seal != nil && rest.seal.size == c.size()+1
}

// twice returns the place of the one of two records of the same number that was inserted: the one
// that the lines behind do not continue.
func (c *chain) twice(found *record, rest window) uint64 {
	if found.seq < c.base.size() {
		return c.size()
	}
	index := found.seq - c.base.size()
	first := c.batch[index]
	if first.prev == found.prev && first.leaf != found.leaf &&
		c.continued(found, rest, c.leaves()[:index]) {
		return found.seq
	}
	return c.size()
}

// explainKey: the checkpoint line names another key than the epoch's.
func (c *chain) explainKey(seal *checkpoint) error {
	other := c.fault(OutOfEpoch, c.sealSeq(), "the signature is of a key of another epoch")
	keys := c.epochs
	if c.rotate != nil && c.rotate.key.Verifier != nil {
		keys = append(slices.Clone(keys), c.rotate.key)
	}
	for _, key := range keys {
		if seal.signatures[0].names(key) {
			return other
		}
	}
	later := false
	c.scan(func(next *record, _ *checkpoint) bool {
		if next != nil && next.text("type") == "key.rotate" {
			key, err := note.NewVerifier(next.text("key"))
			later = later || (err == nil && seal.signatures[0].names(key))
		}
		return !later
	})
	if later {
		return other
	}
	return c.fault(WrongKey, c.sealSeq(), "the signature is of a key that is none of this log's")
}

// explainSize: the checkpoint line counts another number of records, or none that is new.
func (c *chain) explainSize(seal *checkpoint) error {
	size := c.size()
	switch {
	case seal.size == size:
		return c.fault(Inserted, c.sealSeq(), "a checkpoint line without a record of its own")
	case len(c.batch) > 0 && seal.root == c.tree.root():
		return c.fault(Edited, c.sealSeq(), "the checkpoint counts %d records", seal.size)
	case seal.size > size:
		return c.explainEarly(seal)
	case seal.size > c.base.size():
		return c.fault(Inserted, seal.size, "%d records too many", size-seal.size)
	default:
		return c.fault(Inserted, c.sealSeq(), "a checkpoint line of an earlier batch stands here")
	}
}

// explainEarly: the checkpoint line counts records that do not stand before it. Either they are
// gone, or they follow and the line came too early.
func (c *chain) explainEarly(seal *checkpoint) error {
	size := c.size()
	first, goesOn, ended, here, again := true, false, false, false, false
	c.scan(func(next *record, other *checkpoint) bool {
		switch {
		case next != nil:
			goesOn = goesOn || (first && next.seq == size && next.prev == c.prev)
			here = here || (next.seq == size && next.prev == c.prev)
		case other != nil:
			ended = ended || (other.size == size && len(c.batch) > 0)
			again = again || other.text == seal.text
		}
		first = false
		return true
	})
	switch {
	case (goesOn || ended) && again:
		return c.fault(Inserted, c.sealSeq(), "a checkpoint line of a later batch stands here too")
	case goesOn || ended:
		return c.fault(Reordered, c.sealSeq(), "the checkpoint line of another batch stands here")
	case here:
		return c.fault(Reordered, size, "record %d stands further on", size)
	default:
		return c.fault(Deleted, size, "%d records are gone", seal.size-size)
	}
}

// sealFollows says whether a checkpoint line of this size stands further on.
func (c *chain) sealFollows(size uint64) bool {
	follows := false
	c.scan(func(_ *record, seal *checkpoint) bool {
		follows = seal != nil && seal.size == size
		return !follows
	})
	return follows
}
