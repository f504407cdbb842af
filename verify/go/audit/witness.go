package audit

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	algorithmCosignature = 0x04
	cosignatureBytes     = 8 + ed25519.SignatureSize
)

// witness is the key of a C2SP tlog-witness that the reader knows (section 4.3).
type witness struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

// newWitness reads `<name>+<hex key id>+<base64(0x04 ‖ public key)>`.
func newWitness(vkey string) (witness, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, encoded, _ := strings.Cut(rest, "+")
	public, err := strictBase64.DecodeString(encoded)
	if err != nil || len(public) != 1+ed25519.PublicKeySize || public[0] != algorithmCosignature {
		return witness{}, fmt.Errorf("`%s` is no verifier key of a witness", vkey)
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), public...))
	if hex.EncodeToString(sum[:4]) != id {
		return witness{}, fmt.Errorf("`%s` has the key id of another key", vkey)
	}
	return witness{name, binary.BigEndian.Uint32(sum[:]), public[1:]}, nil
}

// good says whether the blob, time and signature, is a cosignature over a checkpoint's text.
func (w witness) good(text string, blob []byte) bool {
	seconds := strconv.FormatUint(binary.BigEndian.Uint64(blob), 10)
	signed := "cosignature/v1\ntime " + seconds + "\n" + text
	return ed25519.Verify(w.key, []byte(signed), blob[8:])
}

// seals are the log's checkpoint lines so far, in ascending order of size.
type seals []seal

type seal struct {
	size uint64
	root string
}

func (s seals) has(size uint64, root string) bool {
	at, found := slices.BinarySearchFunc(s, size, func(one seal, size uint64) int {
		return cmp.Compare(one.size, size)
	})
	return found && s[at].root == root
}

// checkWitnessed holds a `checkpoint.witnessed` against the log (section 6.1, step 9).
func checkWitnessed(from *record, before seals, witnesses []witness) error {
	size, ok := from.number("size")
	root, err := hex.DecodeString(from.text("root"))
	if err != nil || !ok || size < 0 || !before.has(uint64(size), string(root)) {
		return errors.New("no checkpoint line before it has this size and root")
	}
	origin := from.text("log")
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, strictBase64.EncodeToString(root))
	lines, _ := from.fields["cosignatures"].([]any)
	if len(lines) == 0 {
		return errors.New("no cosignature in it")
	}
	for _, one := range lines {
		line, _ := one.(string)
		name, encoded, _ := strings.Cut(line, " ")
		parsed, err := parseSignature(name, encoded)
		if err != nil || len(parsed.blob) != cosignatureBytes {
			return fmt.Errorf("`%s` is no cosignature", line)
		}
		for _, known := range witnesses {
			if known.name == name && known.id == parsed.id && !known.good(text, parsed.blob) {
				return fmt.Errorf("the cosignature of `%s` is not good", name)
			}
		}
	}
	return nil
}
