package audit

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// signaturePrefix begins a signature line of a C2SP signed note.
const signaturePrefix = "— "

// strictBase64 refuses unused bits that are not zero; line breaks are refused by splitting lines.
var strictBase64 = base64.StdEncoding.Strict()

// checkpoint is a C2SP tlog-checkpoint with its signatures.
type checkpoint struct {
	origin     string
	size       uint64
	root       string // 32 bytes
	text       string // what is signed
	whole      string
	signatures []signature
}

// signature is one signature line of a note.
type signature struct {
	name string
	id   uint32
	blob []byte // behind the key id
}

// seq is what a finding about this checkpoint names: the record before it.
func (c *checkpoint) seq() uint64 {
	return max(c.size, 1) - 1
}

// parseNote reads a checkpoint strictly: three lines of text, an empty one, signature lines.
func parseNote(whole string) (*checkpoint, error) {
	text, tail, found := strings.Cut(whole, "\n\n")
	if !found {
		return nil, errors.New("no empty line before the signatures")
	}
	lines := strings.Split(text, "\n")
	if len(lines) != 3 {
		return nil, fmt.Errorf("the text has %d lines, not 3", len(lines))
	}
	size, err := strconv.ParseUint(lines[1], 10, 53)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return nil, fmt.Errorf("`%s` is no size", lines[1])
	}
	root, err := strictBase64.DecodeString(lines[2])
	if err != nil || len(root) != 32 || strings.ContainsRune(lines[2], '\r') {
		return nil, fmt.Errorf("`%s` is no root", lines[2])
	}
	parsed := &checkpoint{
		origin: lines[0], size: size, root: string(root), text: text + "\n", whole: whole,
	}
	parsed.signatures, err = parseSignatures(tail)
	return parsed, err
}

func parseSignatures(tail string) ([]signature, error) {
	body, terminated := strings.CutSuffix(tail, "\n")
	if !terminated {
		return nil, errors.New("the last signature line has no LF")
	}
	var found []signature
	for _, line := range strings.Split(body, "\n") {
		rest, isSignature := strings.CutPrefix(line, signaturePrefix)
		name, encoded, hasName := strings.Cut(rest, " ")
		if !isSignature || !hasName {
			return nil, fmt.Errorf("`%s` is no signature line", line)
		}
		one, err := parseSignature(name, encoded)
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, nil
}

// parseSignature reads the base64 of key id and signature under a name.
func parseSignature(name, encoded string) (signature, error) {
	blob, err := strictBase64.DecodeString(encoded)
	if err != nil || len(blob) < 5 || strings.ContainsRune(encoded, '\r') {
		return signature{}, fmt.Errorf("the signature of `%s` is not base64 of one", name)
	}
	return signature{name: name, id: binary.BigEndian.Uint32(blob), blob: blob[4:]}, nil
}

// sealNote reads the note of a checkpoint line: in v1 exactly one Ed25519 signature (section 4.1).
func sealNote(fields map[string]any) (*checkpoint, error) {
	whole, isText := fields["cp"].(string)
	if !isText || len(fields) != 1 {
		return nil, errors.New("not one member `cp` with a note")
	}
	parsed, err := parseNote(whole)
	if err != nil {
		return nil, err
	}
	if len(parsed.signatures) != 1 || len(parsed.signatures[0].blob) != 64 {
		return nil, errors.New("not exactly one Ed25519 signature")
	}
	return parsed, nil
}

// signedBy says whether one of the signatures is a good one of the key.
func (c *checkpoint) signedBy(key note.Verifier) bool {
	for _, one := range c.signatures {
		if one.names(key) && key.Verify([]byte(c.text), one.blob) {
			return true
		}
	}
	return false
}

// names says whether the signature line claims to be of the key.
func (s signature) names(key note.Verifier) bool {
	return s.name == key.Name() && s.id == key.KeyHash()
}

// epoch is a key of the log with its text, which is how keys are compared.
type epoch struct {
	vkey string
	note.Verifier
}

var errOtherName = errors.New("a key of another name")

// newEpoch reads a verifier key of the log of this origin.
func newEpoch(vkey any, origin string) (epoch, error) {
	text, _ := vkey.(string)
	verifier, err := note.NewVerifier(text)
	if err != nil {
		return epoch{}, fmt.Errorf("`%s` is no verifier key: %w", text, err)
	}
	if verifier.Name() != origin {
		return epoch{}, fmt.Errorf("%w: it is of `%s`, not of `%s`", errOtherName, verifier.Name(),
			origin)
	}
	return epoch{text, verifier}, nil
}
