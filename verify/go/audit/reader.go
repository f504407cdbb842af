package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

const readBufferBytes = 1 << 16

var (
	segmentName      = regexp.MustCompile(`^[0-9]{20}\.jsonl$`)
	checkpointPrefix = []byte(`{"cp":`)
)

// isCheckpoint tells the two kinds of lines apart (section 2).
func isCheckpoint(line []byte) bool {
	return bytes.HasPrefix(line, checkpointPrefix)
}

// segments are the files that make up the log, in their order.
type segments []string

// listSegments finds the segments of a directory; other files are no part of the log.
func listSegments(dir string) (segments, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found segments
	for _, entry := range entries { // sorted by name, and names have one length
		if segmentName.MatchString(entry.Name()) {
			found = append(found, filepath.Join(dir, entry.Name()))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("`%s` holds no segment; name the directory of a log", dir)
	}
	return found, nil
}

// position is the start of a line.
type position struct {
	segment int
	offset  int64
	line    int // counted from 1 within the segment
}

// line is one line without its LF.
type line struct {
	data       []byte
	at         position
	terminated bool
}

// reader gives the lines of a log one after the other.
type reader struct {
	files segments
	next  position
	file  *os.File
	buf   *bufio.Reader
}

// open returns a reader that begins at a position.
func (s segments) open(at position) *reader {
	return &reader{files: s, next: at}
}

// first returns the number that the name of a segment says it begins with.
func (s segments) first(segment int) uint64 {
	name := filepath.Base(s[segment])
	number, err := strconv.ParseUint(name[:20], 10, 64)
	if err != nil {
		return ^uint64(0)
	}
	return number
}

// place returns `<file>:<line>`.
func (s segments) place(at position) string {
	if at.segment >= len(s) {
		return filepath.Base(s[len(s)-1])
	}
	return fmt.Sprintf("%s:%d", filepath.Base(s[at.segment]), at.line)
}

// read returns the next line, or io.EOF behind the last one. The data is the caller's to keep.
func (r *reader) read() (line, error) {
	for r.next.segment < len(r.files) {
		if err := r.enter(); err != nil {
			return line{}, err
		}
		data, err := r.buf.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return line{}, err
		}
		if len(data) == 0 {
			r.leave()
			continue
		}
		found := line{data: data, at: r.next}
		r.next.offset += int64(len(data))
		r.next.line++
		found.data, found.terminated = bytes.CutSuffix(data, []byte{'\n'})
		return found, nil
	}
	return line{}, io.EOF
}

// enter opens the segment of the next line, unless it is open.
func (r *reader) enter() error {
	if r.file != nil {
		return nil
	}
	file, err := os.Open(r.files[r.next.segment])
	if err != nil {
		return err
	}
	if _, err := file.Seek(r.next.offset, io.SeekStart); err != nil {
		return errors.Join(err, file.Close())
	}
	r.file, r.buf = file, bufio.NewReaderSize(file, readBufferBytes)
	r.next.line = max(r.next.line, 1)
	return nil
}

func (r *reader) leave() {
	r.close()
	r.next = position{segment: r.next.segment + 1, line: 1}
}

// close lets go of the open segment; closing a file that was only read cannot lose anything.
func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}
