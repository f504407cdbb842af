package audit

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestCanonicalLinesAreRead(t *testing.T) {
	for _, line := range []string{
		`{}`,
		`{"a":[],"b":{},"c":[1,-1,0,true,false,null,""]}`,
		`{"a":9007199254740991,"b":-9007199254740991}`,
		`{"a":"quote \" backslash \\ / \b\f\n\r\t\u0000\u001f é 😀"}`,
		"{\"a\":\"\u007f\u2028\"}",
	} {
		parsed, err := parseLine([]byte(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(line), &want); err != nil || len(want) != len(parsed) {
			t.Errorf("%s: read %v, want %v", line, parsed, want)
		}
	}
}

func TestOtherSpellingsAreNotCanonical(t *testing.T) {
	for _, line := range []string{
		`{"a": 1}`, `{"b":1,"a":1}`, `{"a":1,"a":1}`, `{"a":1.5}`, `{"a":1e3}`, `{"a":-0}`,
		`{"a":9007199254740992}`, `{"a":"\ud800"}`, `{"a":"\/"}`, `{"a":"\u0041"}`,
		`{"a":"\u001F"}`, `{"a":"\u000a"}`, `{"é":1}`, "{\"a\":1}\r", ` {"a":1}`,
		`{"a":99999999999999999999999999}`, `{"a":"` + strings.Repeat("x", maxRecordBytes) + `"}`,
	} {
		if _, err := parseLine([]byte(line)); !errors.Is(err, errNotCanonical) {
			t.Errorf("%.40q: %v", line, err)
		}
	}
}

func TestWhatIsNoObjectIsNotJSON(t *testing.T) {
	for _, line := range []string{
		``, `x`, `[]`, `1`, `null`, `{`, `{"a"}`, `{"a":}`, `{"a":01}`, `{"a":NaN}`, `{"a":1`,
		"{\"a\":\"\xff\"}", "{\"a\":\"\x00\"}", `{"a":1}x`, `{"a":[1,]}`, `{"a":"\x"}`, `{"a":tru}`,
	} {
		if _, err := parseLine([]byte(line)); !errors.Is(err, errNotJSON) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func FuzzALineIsCanonicalOrRefused(f *testing.F) {
	f.Add([]byte(`{"a":[{"b":"\u0001"}],"c":-5}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		parsed, err := parseLine(line)
		if err != nil {
			return
		}
		var again map[string]any
		if err := json.Unmarshal(line, &again); err != nil || len(again) != len(parsed) {
			t.Errorf("%q is taken: %v", line, err)
		}
	})
}

const someNote = "log.example.com/audit\n2\nr+RMvaOnf2m9MRSzwJRn1KE8/E/ixianv+GivVpOIOA=\n\n" +
	"— log.example.com/audit uGNwLw0PR5zN4NCxEMFzsyUaD+eSg5++tvKqXtyTw/sRgYDfQ6EzFZwsPuE+" +
	"Wo7xf/FVSBfYSJGlHU9iEXUupazCOQA=\n"

const someKey = "log.example.com/audit+b863702f+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"

func TestTheNoteOfTheSpecificationIsSignedByItsKey(t *testing.T) {
	seal, err := sealNote(fields{"cp": someNote})
	if err != nil {
		t.Fatal(err)
	}
	key, err := newEpoch(someKey, seal.origin)
	if err != nil {
		t.Fatal(err)
	}
	if !seal.signedBy(key) || seal.size != 2 {
		t.Errorf("%+v", seal)
	}
}

func TestOtherNotesAreRefused(t *testing.T) {
	for _, change := range [][2]string{
		{"\n2\n", "\n02\n"}, {"\n2\n", "\n+2\n"}, {"\n2\n", "\n\n"}, {"OIOA=", "OIOB="},
		{"OIOA=\n", "OIOA\n"}, {"— ", "- "}, {"OQA=\n", "OQA="}, {"\n\n", "\nmore\n\n"},
		{"audit uGNw", "audit  uGNw"}, {"OQA=", "OQB="}, {"\n\n—", "\n—"},
	} {
		note := strings.Replace(someNote, change[0], change[1], 1)
		if _, err := sealNote(fields{"cp": note}); err == nil {
			t.Errorf("taken with %q for %q", change[1], change[0])
		}
	}
}

func TestTilePathsHaveGroupsOfThreeDigits(t *testing.T) {
	for number, want := range map[uint64]string{
		0: "000", 7: "007", 999: "999", 1000: "x001/000", 1234067: "x001/x234/067",
	} {
		if path := tilePath(number); path != want {
			t.Errorf("%d: %s, want %s", number, path, want)
		}
	}
}
