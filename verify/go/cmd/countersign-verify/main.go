// Command countersign-verify verifies an audit log of the profile countersign.audit/v1.
//
//	countersign-verify [-key VKEY]... [-witness VKEY]... [-checkpoint FILE]... [-state FILE]
//	                   [-publisher-key KEY]... [-require key] [-json] DIR
//
// Exit codes: 0 valid, 1 integrity failure, 2 usage or I/O, 3 valid but below what -require asks,
// 4 fork or rollback.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"countersign.dev/verify/audit"
)

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string { return fmt.Sprint(*l) }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

type arguments struct {
	dir         string
	checkpoints list
	state       string
	asJSON      bool
	options     audit.Options
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errs io.Writer) int {
	given, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return audit.ExitValid
	}
	if err == nil {
		err = given.load()
	}
	var report *audit.Report
	if err == nil {
		report, err = audit.Verify(given.dir, given.options)
	}
	if err == nil {
		err = given.remember(report)
	}
	if err == nil {
		err = show(report, given.asJSON, out)
	}
	if err != nil {
		fmt.Fprintln(errs, "countersign-verify:", err)
		return audit.ExitUsage
	}
	return report.Exit
}

func parse(args []string, errs io.Writer) (*arguments, error) {
	var given arguments
	var keys, witnesses, publishers list
	var require string
	flags := flag.NewFlagSet("countersign-verify", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Var(&keys, "key", "a `verifier key` that you trust; may be given again")
	flags.Var(&witnesses, "witness", "the `verifier key` of a witness; may be given again")
	flags.Var(&publishers, "publisher-key", "the `key` of a publisher; may be given again")
	flags.Var(&given.checkpoints, "checkpoint", "a `file` with a checkpoint from elsewhere")
	flags.StringVar(&given.state, "state", "", "the `file` that remembers the last good checkpoint")
	flags.StringVar(&require, "require", "", "what must be so for exit code 0: `key`")
	flags.BoolVar(&given.asJSON, "json", false, "print the report as JSON")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() != 1 {
		return nil, errors.New("name one directory that holds a log; -help tells more")
	}
	if require != "" && require != "key" {
		return nil, fmt.Errorf("`%s` cannot be required, `key` can", require)
	}
	given.dir = flags.Arg(0)
	given.options = audit.Options{
		Keys: keys, Witnesses: witnesses, RequireKey: require == "key", Publishers: publishers,
		Checkpoints: map[string][]byte{},
	}
	return &given, nil
}

// load reads the files that the arguments name.
func (a *arguments) load() error {
	for _, path := range a.checkpoints {
		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		a.options.Checkpoints[path] = whole
	}
	if a.state == "" {
		return nil
	}
	seen, err := os.ReadFile(a.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	a.options.Seen = seen
	return err
}

// remember keeps the last checkpoint of a log that was found good.
func (a *arguments) remember(report *audit.Report) error {
	if a.state == "" || !report.Valid {
		return nil
	}
	temporary, err := os.CreateTemp(filepath.Dir(a.state), ".seen-*")
	if err != nil {
		return err
	}
	_, err = temporary.WriteString(report.Last)
	if err = errors.Join(err, temporary.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return os.Rename(temporary.Name(), a.state)
}

func show(report *audit.Report, asJSON bool, out io.Writer) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(report)
	}
	for _, one := range report.Findings {
		fmt.Fprintln(out, one)
	}
	for _, warning := range report.Warnings {
		fmt.Fprintln(out, "warning:", warning)
	}
	verdict := "valid"
	if !report.Valid {
		verdict = "NOT valid"
	}
	_, err := fmt.Fprintf(out, "%s: %s, %d records, %d epochs\n", report.Origin, verdict,
		report.Records, report.Epochs)
	return err
}
