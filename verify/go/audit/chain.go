package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/transparency-dev/merkle/compact"
)

// link is what a record says of its place, kept until its batch has held.
type link struct {
	prev, leaf string
}

// chain reads a log from its first line to its last and holds each line against those before it
// (section 6.1, steps 1 to 5). It stops at the first that does not fit.
type chain struct {
	files  segments
	reader *reader
	now    line     // the line at hand
	before position // the line before it

	origin string
	epochs []epoch
	tree   *tree
	prev   string // leaf of the last record
	ts     int64
	sealed string // what the next record must carry in `cp`; "" for nothing

	// Of the batch at hand: the tree before it, its records, and a rotation in it.
	base   *tree
	batch  []link
	rotate *rotation

	last     *checkpoint // the last checkpoint line that held
	accepted func(*record)
	held     func(*checkpoint)
}

// rotation is a `key.rotate` whose batch has not ended yet.
type rotation struct {
	seq   uint64
	at    position
	key   epoch
	fault string
}

// newChain returns a chain that shows each record to accepted and each checkpoint line to held.
func newChain(files segments, nodes compact.VisitFn) *chain {
	tree := newTree(nodes)
	return &chain{
		files:  files,
		reader: files.open(position{}),
		tree:   tree,
		prev:   string(make([]byte, 32)),
		base:   tree.copy(),
	}
}

// run reads to the end. The error is a *broken, or one of reading.
func (c *chain) run() error {
	defer c.reader.close()
	for {
		var err error
		c.before = c.now.at
		if c.now, err = c.reader.read(); errors.Is(err, io.EOF) {
			return c.end()
		} else if err != nil {
			return err
		}
		if err = c.line(); err != nil {
			return err
		}
	}
}

// size is the number of records so far, and so the place of the next one.
func (c *chain) size() uint64 { return c.tree.size() }

// sealSeq is what a finding about a checkpoint line at this place names.
func (c *chain) sealSeq() uint64 { return max(c.size(), 1) - 1 }

func (c *chain) epoch() epoch { return c.epochs[len(c.epochs)-1] }

// fault returns the finding that ends the reading, at the line at hand.
func (c *chain) fault(kind string, seq uint64, what string, args ...any) error {
	return &broken{Finding{
		Kind: kind, Seq: seq, Place: c.files.place(c.now.at), What: fmt.Sprintf(what, args...),
	}}
}

// faultBefore is fault at the line before the one at hand.
func (c *chain) faultBefore(kind string, seq uint64, what string) error {
	return &broken{Finding{Kind: kind, Seq: seq, Place: c.files.place(c.before), What: what}}
}

func (c *chain) line() error {
	seq := c.size()
	if isCheckpoint(c.now.data) {
		seq = c.sealSeq()
	}
	if !c.now.terminated {
		return c.fault(Torn, seq, "the file ends within the line")
	}
	parsed, err := parseLine(c.now.data)
	switch {
	case err == nil && isCheckpoint(c.now.data):
		return c.checkpoint(parsed)
	case err == nil:
		return c.record(parsed)
	case bytes.IndexByte(c.now.data, 0) >= 0 && c.inLastBatch():
		return c.fault(Torn, seq, "zero bytes in the last batch")
	}
	if c.sealStoodHere() {
		seq = c.sealSeq()
	}
	switch {
	case errors.Is(err, errNotCanonical):
		return c.fault(NotCanonical, seq, "%v", err)
	default:
		return c.fault(Edited, seq, "%v", err)
	}
}

// record holds a record against its place (step 2).
func (c *chain) record(parsed fields) error {
	seq := c.size()
	next, err := newRecord(c.now, parsed)
	if log := next.text("log"); c.origin != "" && log != "" && log != c.origin {
		return c.fault(WrongLog, seq, "the record is of the log `%s`", log)
	}
	if err != nil {
		return c.fault(Edited, seq, "%v", err)
	}
	if next.seq != seq {
		return c.explainSeq(next)
	}
	if seq == 0 {
		if err := c.begin(next); err != nil {
			return err
		}
	}
	switch {
	case next.prev != c.prev:
		return c.explainPrev(next)
	case next.cp != c.sealed:
		return c.explainSeal(next)
	case next.ts < c.ts:
		return c.fault(Edited, seq, "`ts` goes back by %d µs", c.ts-next.ts)
	case seq > 0 && next.text("type") == "genesis":
		return c.fault(Edited, seq, "a second `genesis`")
	}
	if err := c.checkSegment(seq); err != nil {
		return err
	}
	c.accept(next)
	return nil
}

// begin takes origin and first key from the first record.
func (c *chain) begin(first *record) error {
	if first.text("type") != "genesis" {
		return c.fault(Edited, 0, "the first record is no `genesis`")
	}
	c.origin = first.text("log")
	key, err := newEpoch(first.fields["key"], c.origin)
	switch {
	case errors.Is(err, errOtherName):
		return c.fault(WrongLog, 0, "%v", err)
	case err != nil:
		return c.fault(Edited, 0, "%v", err)
	}
	c.epochs = []epoch{key}
	return nil
}

// checkSegment holds the names of files against what is in them (section 1).
func (c *chain) checkSegment(seq uint64) error {
	if c.now.at.offset != 0 {
		return nil
	}
	if first := c.files.first(c.now.at.segment); first != seq {
		return c.fault(Edited, seq, "the segment's name says that it begins with record %d", first)
	}
	if len(c.batch) > 0 {
		return c.fault(Edited, seq, "the segment begins within a batch")
	}
	return nil
}

func (c *chain) accept(next *record) {
	if c.rotate != nil && c.rotate.fault == "" {
		c.rotate.fault = "`key.rotate` is not the last record of its batch"
	}
	if next.text("type") == "key.rotate" {
		c.rotate = c.newRotation(next)
	}
	c.batch = append(c.batch, link{next.prev, next.leaf})
	c.prev, c.ts, c.sealed = next.leaf, next.ts, ""
	c.tree.append(next.leaf)
	if c.accepted != nil {
		c.accepted(next)
	}
}

// newRotation reads a `key.rotate` (step 4). It counts once its batch has held.
func (c *chain) newRotation(from *record) *rotation {
	if c.rotate != nil {
		return c.rotate
	}
	found := &rotation{seq: from.seq, at: from.at}
	number, _ := from.number("epoch")
	key, err := newEpoch(from.fields["key"], c.origin)
	found.key = key
	switch {
	case err != nil:
		found.fault = err.Error()
	case number != int64(len(c.epochs)):
		found.fault = fmt.Sprintf("epoch %d is named, %d is the next", number, len(c.epochs))
	case c.isKnown(key.vkey):
		found.fault = "the next epoch has the key of an earlier one"
	}
	return found
}

func (c *chain) isKnown(vkey string) bool {
	for _, one := range c.epochs {
		if one.vkey == vkey {
			return true
		}
	}
	return false
}

// checkpoint holds a checkpoint line against the records before it (step 3).
func (c *chain) checkpoint(parsed fields) error {
	seal, err := sealNote(parsed)
	switch {
	case err != nil:
		return c.fault(Edited, c.sealSeq(), "%v", err)
	case c.origin != "" && seal.origin != c.origin:
		return c.fault(Edited, c.sealSeq(), "the checkpoint is of `%s`", seal.origin)
	case seal.size != c.size() || len(c.batch) == 0:
		return c.explainSize(seal)
	case !seal.signatures[0].names(c.epoch()):
		return c.explainKey(seal)
	case seal.root != c.tree.root():
		return c.fault(Edited, c.sealSeq(), "the root is not that of the records")
	case !seal.signedBy(c.epoch()):
		return c.fault(Edited, c.sealSeq(), "the signature is not good")
	case c.rotate != nil && c.rotate.fault != "":
		c.now.at = c.rotate.at
		return c.fault(OutOfEpoch, c.rotate.seq, "%s", c.rotate.fault)
	case c.now.at.offset == 0:
		return c.fault(Edited, c.sealSeq(), "the segment begins with a checkpoint line")
	}
	c.hold(seal)
	return nil
}

// hold ends the batch: from here on its records are what they say.
func (c *chain) hold(seal *checkpoint) {
	c.last, c.sealed = seal, lineHash(c.now.data)
	if c.held != nil {
		c.held(seal)
	}
	if c.rotate != nil {
		c.epochs = append(c.epochs, c.rotate.key)
	}
	c.rotate, c.batch, c.base = nil, c.batch[:0], c.tree.copy()
}

// end holds the log's last line against what it must be (step 5).
func (c *chain) end() error {
	if c.size() == 0 {
		return c.fault(Missing, 0, "the log has no record")
	}
	if len(c.batch) > 0 {
		return c.fault(Missing, c.sealSeq(), "the log ends without a checkpoint line")
	}
	return nil
}
