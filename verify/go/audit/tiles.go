package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/transparency-dev/merkle/compact"
)

const (
	hashBytes = 32
	tileWidth = 256
	tileBits  = 8
)

// tiles holds the hashes that are worked out against those that stand in `tile/` (section 5).
type tiles struct {
	dir    string
	levels map[uint]openTile
	found  []Finding
	err    error
}

// openTile is a tile that hashes are being held against, in every width that stands.
type openTile struct {
	number uint64
	widths []tileFile
}

type tileFile struct {
	name string
	data []byte
}

// newTiles returns nil where the log keeps no tiles.
func newTiles(dir string) (*tiles, error) {
	if _, err := os.Stat(filepath.Join(dir, "tile")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return &tiles{dir: dir, levels: map[uint]openTile{}}, nil
}

// node is shown every node of a full subtree.
func (t *tiles) node(id compact.NodeID, hash []byte) {
	if t == nil || t.err != nil || id.Level%tileBits != 0 {
		return
	}
	level, number := id.Level/tileBits, id.Index/tileWidth
	open, ok := t.levels[level]
	if !ok || open.number != number {
		if open, t.err = t.open(level, number); t.err != nil {
			return
		}
		t.levels[level] = open
	}
	at := int(id.Index%tileWidth) * hashBytes
	for _, file := range open.widths {
		if stands := file.hash(at); stands != nil && string(stands) != string(hash) {
			t.found = append(t.found, Finding{
				Kind: Edited, Seq: id.Index << id.Level, Place: file.name,
				What: "the tile's hash is not that of the records", order: orderTiles,
			})
		}
	}
}

// hash returns the hash at an offset, or nil where the tile ends before it or is torn there.
func (f tileFile) hash(at int) []byte {
	if at+hashBytes > len(f.data) {
		return nil
	}
	if found := f.data[at : at+hashBytes]; string(found) != string(make([]byte, hashBytes)) {
		return found
	}
	return nil
}

// beyond finds tiles of more records than the log has: it was longer.
func (t *tiles) beyond(size uint64) error {
	if t == nil {
		return nil
	}
	for number, first := size/tileWidth, int(size%tileWidth); number <= size/tileWidth+1; number, first = number+1, 0 {
		open, err := t.open(0, number)
		if err != nil {
			return err
		}
		for _, file := range open.widths {
			for at := first * hashBytes; at < len(file.data); at += hashBytes {
				if file.hash(at) == nil {
					continue
				}
				t.found = append(t.found, Finding{
					Kind: Truncated, Seq: size, Place: file.name,
					What: "the tile has hashes of records behind the log's last", order: orderTiles,
				})
				return nil
			}
		}
	}
	return nil
}

// open reads a tile, full or partial.
func (t *tiles) open(level uint, number uint64) (openTile, error) {
	name := fmt.Sprintf("tile/%d/%s", level, tilePath(number))
	names := []string{name}
	partial, err := os.ReadDir(filepath.Join(t.dir, name+".p"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return openTile{}, err
	}
	for _, entry := range partial {
		if width, err := strconv.Atoi(entry.Name()); err == nil && width > 0 && width < tileWidth {
			names = append(names, name+".p/"+entry.Name())
		}
	}
	opened := openTile{number: number}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(t.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return openTile{}, err
		}
		opened.widths = append(opened.widths, tileFile{name, data})
	}
	return opened, nil
}

// tilePath writes a tile's number in groups of three digits: 1234067 is x001/x234/067.
func tilePath(number uint64) string {
	path := fmt.Sprintf("%03d", number%1000)
	for number /= 1000; number > 0; number /= 1000 {
		path = fmt.Sprintf("x%03d/%s", number%1000, path)
	}
	return path
}
