// Command sumdb reads a log's directory with the code of the Go checksum database, which nobody
// here wrote: it opens the signed checkpoint, authenticates every tile against its root, and prints
// the proofs that it makes from them, to be compared with ours.
//
// Usage: sumdb DIR VKEY; on standard input, a line `record N` or `tree N` for each proof.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tileDir reads C2SP tiles, whose paths leave out the height of 8.
type tileDir string

func (d tileDir) Height() int { return 8 }

func (d tileDir) SaveTiles([]tlog.Tile, [][]byte) {}

func (d tileDir) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(d), path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func main() {
	log.SetFlags(0)
	dir, vkey := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		log.Fatal(err)
	}
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		log.Fatal(err)
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		log.Fatal(err)
	}
	lines := strings.Split(opened.Text, "\n")
	var tree tlog.Tree
	if _, err := fmt.Sscan(lines[1], &tree.N); err != nil {
		log.Fatal(err)
	}
	if tree.Hash, err = tlog.ParseHash(lines[2]); err != nil {
		log.Fatal(err)
	}
	reader := tlog.TileHashReader(tree, tileDir(dir))
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		if err := prove(tree, reader, asked.Text()); err != nil {
			log.Fatal(err)
		}
	}
}

func prove(tree tlog.Tree, reader tlog.HashReader, asked string) error {
	var kind string
	var number int64
	if _, err := fmt.Sscan(asked, &kind, &number); err != nil {
		return err
	}
	var hashes []tlog.Hash
	var err error
	if kind == "record" {
		hashes, err = tlog.ProveRecord(tree.N, number, reader)
	} else {
		hashes, err = tlog.ProveTree(tree.N, number, reader)
	}
	if err != nil {
		return err
	}
	words := []string{}
	for _, hash := range hashes {
		words = append(words, hash.String())
	}
	fmt.Println(strings.Join(words, " "))
	return nil
}
