package audit

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
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
	Known     []string
	Require   []string
	Expect    struct {
		Exit int
		Kind string
		Rule string
		Seq  *uint64
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
			if report == nil {
				return
			}
			var first Finding
			if len(report.Findings) > 0 {
				first = report.Findings[0]
			}
			if first.Kind != one.Expect.Kind || first.Rule != one.Expect.Rule {
				t.Errorf("found %v, want %s %s", report.Findings, one.Expect.Kind, one.Expect.Rule)
			}
			if one.Expect.Seq != nil && first.Seq != *one.Expect.Seq {
				t.Errorf("found %v, want it at %d", report.Findings, *one.Expect.Seq)
			}
			if one.Expect.Kind == Semantic && len(report.Findings) != 1 {
				t.Errorf("one rule is broken, %d were found: %v", len(report.Findings),
					report.Findings)
			}
		})
	}
}
