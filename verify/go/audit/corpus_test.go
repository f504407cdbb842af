package audit

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// corpus is tests/conformance/audit, whose README.md tells the format.
const corpus = "../../../tests/conformance/audit/cases.jsonl"

// maxCaseBytes is more than any line of the corpus has.
const maxCaseBytes = 8 << 20

type content []byte

func (c *content) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*c = content(text)
		return nil
	}
	var binary struct{ B64 string }
	if err := json.Unmarshal(data, &binary); err != nil {
		return err
	}
	decoded, err := base64.StdEncoding.DecodeString(binary.B64)
	*c = decoded
	return err
}

type corpusCase struct {
	Name      string
	Files     map[string]content
	Before    map[string]content
	Keys      []string
	Witnesses []string
	// Publishers are keys of publishers that the reader knows.
	Publishers []string
	Known      []string
	Require    []string
	Expect     struct {
		Exit int
		Kind string
		Rule string
		Seq  *uint64
		Also []string
	}
}

func readCorpus(t *testing.T) []corpusCase {
	t.Helper()
	file, err := os.Open(corpus)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var cases []corpusCase
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxCaseBytes)
	for lines.Scan() {
		var one corpusCase
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, one)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return cases
}

func place(t *testing.T, files map[string]content) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// verify answers what the reader of a case finds.
func (c corpusCase) verify(t *testing.T) (int, *Report) {
	t.Helper()
	options := Options{
		Keys: c.Keys, Witnesses: c.Witnesses, RequireKey: len(c.Require) > 0,
		Publishers:  c.Publishers,
		Checkpoints: map[string][]byte{},
	}
	for number, known := range c.Known {
		options.Checkpoints["known "+strconv.Itoa(number)] = []byte(known)
	}
	if c.Before != nil {
		first, err := Verify(place(t, c.Before), options)
		if err != nil || !first.Valid {
			t.Fatalf("what was there before is not valid: %v %v", first, err)
		}
		options.Seen = []byte(first.Last)
	}
	report, err := Verify(place(t, c.Files), options)
	if err != nil {
		t.Log(err)
		return ExitUsage, nil
	}
	return report.Exit, report
}

func TestEveryCaseOfTheCorpusIsFound(t *testing.T) {
	for _, one := range readCorpus(t) {
		t.Run(one.Name, func(t *testing.T) {
			t.Parallel()
			exit, report := one.verify(t)
			if exit != one.Expect.Exit {
				t.Errorf("exit %d, want %d", exit, one.Expect.Exit)
			}
			if report != nil {
				one.compare(t, report.Findings)
			}
		})
	}
}

// compare holds the findings against the expected one: it is among them, and none names an
// earlier record.
func (c corpusCase) compare(t *testing.T, findings []Finding) {
	t.Helper()
	want := c.Expect
	if want.Kind == "" {
		if len(findings) > 0 {
			t.Errorf("found %v in a valid log", findings)
		}
		return
	}
	if len(findings) == 0 || findings[0].Seq != *want.Seq {
		t.Errorf("found %v, want the first at %d", findings, *want.Seq)
	}
	found := false
	for _, one := range findings {
		expected := one.Seq == *want.Seq && one.Kind == want.Kind && one.Rule == want.Rule
		found = found || expected
		also := one.Seq == *want.Seq && slices.Contains(want.Also, one.Rule)
		if want.Kind == Semantic && !expected && !also {
			t.Errorf("found %v, which is not broken", one)
		}
	}
	if !found {
		t.Errorf("found %v, want %s %s", findings, want.Kind, want.Rule)
	}
}
