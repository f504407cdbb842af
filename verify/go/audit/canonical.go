package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxRecordBytes is the length of a record line without its LF (section 2).
const maxRecordBytes = 16384

// maxExact is the magnitude below which integers are exact everywhere (section 2).
const maxExact = 1 << 53

// maxDepth bounds the nesting that the parser follows.
const maxDepth = 512

var (
	errNotJSON      = errors.New("the line is no JSON object")
	errNotCanonical = errors.New("the line is JSON in another spelling than the canonical one")
)

// parseLine reads a line in canonical form: nil, bool, int64, string, []any, map[string]any.
//
// The grammar accepts the canonical spelling alone (section 2), so a line that it takes would be
// encoded to the same bytes; nothing needs to be encoded again. Errors wrap errNotJSON or
// errNotCanonical.
func parseLine(line []byte) (map[string]any, error) {
	p := parser{data: line}
	value, err := p.value(0)
	if err == nil && p.at != len(line) {
		err = p.refuse("something follows the object")
	}
	if err == nil && len(line) > maxRecordBytes && !isCheckpoint(line) {
		err = fmt.Errorf("it has %d bytes", len(line))
	}
	object, isObject := value.(map[string]any)
	switch {
	case err == nil && isObject:
		return object, nil
	case isJSONObject(line):
		return nil, fmt.Errorf("%w: %w", errNotCanonical, cmpErr(err))
	default:
		return nil, errNotJSON
	}
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("it is no object")
	}
	return err
}

func isJSONObject(line []byte) bool {
	var object map[string]json.RawMessage
	return utf8.Valid(line) && json.Unmarshal(line, &object) == nil && object != nil
}

// parser reads canonical JSON and nothing else.
type parser struct {
	data []byte
	at   int
}

func (p *parser) refuse(what string) error {
	return fmt.Errorf("%s at byte %d", what, p.at)
}

func (p *parser) peek() byte {
	if p.at < len(p.data) {
		return p.data[p.at]
	}
	return 0
}

func (p *parser) take(want byte) bool {
	if p.peek() != want || p.at >= len(p.data) {
		return false
	}
	p.at++
	return true
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, p.refuse("too deep a nesting")
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		return p.text()
	case c == '-' || ('0' <= c && c <= '9'):
		return p.integer()
	}
	for word, value := range map[string]any{"true": true, "false": false, "null": nil} {
		if end := p.at + len(word); end <= len(p.data) && string(p.data[p.at:end]) == word {
			p.at = end
			return value, nil
		}
	}
	return nil, p.refuse("no value")
}

func (p *parser) object(depth int) (any, error) {
	p.at++
	object := map[string]any{}
	if p.take('}') {
		return object, nil
	}
	last := ""
	for first := true; ; first = false {
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		// Ordered and no name twice, in one comparison.
		if !first && name <= last {
			return nil, p.refuse("a member out of order, or twice")
		}
		last = name
		if !p.take(':') {
			return nil, p.refuse("no colon")
		}
		if object[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		if p.take('}') {
			return object, nil
		}
		if !p.take(',') {
			return nil, p.refuse("no comma")
		}
	}
}

func (p *parser) name() (string, error) {
	if p.peek() != '"' {
		return "", p.refuse("no member name")
	}
	name, err := p.text()
	if err != nil {
		return "", err
	}
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return "", p.refuse("a member name that is not ASCII")
		}
	}
	return name, nil
}

func (p *parser) array(depth int) (any, error) {
	p.at++
	items := []any{}
	if p.take(']') {
		return items, nil
	}
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
		if p.take(']') {
			return items, nil
		}
		if !p.take(',') {
			return nil, p.refuse("no comma")
		}
	}
}

func (p *parser) integer() (any, error) {
	start := p.at
	negative := p.take('-')
	digits := p.at
	var value int64
	for '0' <= p.peek() && p.peek() <= '9' {
		if value = value*10 + int64(p.peek()-'0'); value >= maxExact {
			return nil, p.refuse("an integer of 2^53 or more")
		}
		p.at++
	}
	length := p.at - digits
	leadingZero := length > 1 && p.data[digits] == '0'
	if length == 0 || leadingZero || (negative && value == 0) {
		p.at = start
		return nil, p.refuse("a number in another spelling")
	}
	if c := p.peek(); c == '.' || c == 'e' || c == 'E' {
		return nil, p.refuse("a number that is no integer")
	}
	if negative {
		value = -value
	}
	return value, nil
}
