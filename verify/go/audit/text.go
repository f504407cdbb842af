package audit

import (
	"strconv"
	"unicode/utf8"
)

// shortEscapes are the escapes of RFC 8785 section 3.2.2.2 that have a letter.
var shortEscapes = map[byte]byte{
	'b': '\b', 't': '\t', 'n': '\n', 'f': '\f', 'r': '\r', '"': '"', '\\': '\\',
}

// text reads a string whose characters are escaped where they must be and nowhere else.
func (p *parser) text() (string, error) {
	p.at++
	start := p.at
	for p.at < len(p.data) {
		switch c := p.data[p.at]; {
		case c == '"':
			p.at++
			return string(p.data[start : p.at-1]), nil
		case c == '\\':
			return p.escaped(append([]byte(nil), p.data[start:p.at]...))
		default:
			if err := p.plain(c); err != nil {
				return "", err
			}
		}
	}
	return "", p.refuse("a string without an end")
}

// escaped goes on with a string that has an escape at p.at.
func (p *parser) escaped(text []byte) (string, error) {
	for p.at < len(p.data) {
		switch c := p.data[p.at]; {
		case c == '"':
			p.at++
			return string(text), nil
		case c == '\\':
			char, err := p.escape()
			if err != nil {
				return "", err
			}
			text = append(text, char)
		default:
			from := p.at
			if err := p.plain(c); err != nil {
				return "", err
			}
			text = append(text, p.data[from:p.at]...)
		}
	}
	return "", p.refuse("a string without an end")
}

// plain steps over one character that stands for itself.
func (p *parser) plain(c byte) error {
	if c < ' ' {
		return p.refuse("a control character")
	}
	if c < utf8.RuneSelf {
		p.at++
		return nil
	}
	// DecodeRune refuses surrogates and overlong forms.
	char, size := utf8.DecodeRune(p.data[p.at:])
	if char == utf8.RuneError && size == 1 {
		return p.refuse("bytes that are no UTF-8")
	}
	p.at += size
	return nil
}

// escape reads one escape: a letter where there is one, else \u00xx in small letters.
func (p *parser) escape() (byte, error) {
	p.at++
	if char, ok := shortEscapes[p.peek()]; ok && p.at < len(p.data) {
		p.at++
		return char, nil
	}
	if p.at+5 > len(p.data) || string(p.data[p.at:p.at+3]) != "u00" {
		return 0, p.refuse("an escape that is not needed")
	}
	digits := string(p.data[p.at+3 : p.at+5])
	value, err := strconv.ParseUint(digits, 16, 8)
	char := byte(value)
	if err != nil || char >= ' ' || isShort(char) || !isSmall(digits) {
		return 0, p.refuse("an escape that is not the shortest")
	}
	p.at += 5
	return char, nil
}

func isShort(char byte) bool {
	for _, short := range shortEscapes {
		if char == short {
			return true
		}
	}
	return false
}

func isSmall(hex string) bool {
	for _, c := range hex {
		if 'A' <= c && c <= 'F' {
			return false
		}
	}
	return true
}
