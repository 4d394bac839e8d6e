package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"presenced/fixtures"
)

// ReplayCommand runs scenarios in virtual time.
type ReplayCommand struct {
	Quiet   bool     `help:"Print one line for each scenario instead of its timeline."`
	Update  bool     `help:"Write the timeline into the file as the expected one."`
	Verbose bool     `short:"v" help:"Also write what the collectors log."`
	Format  string   `enum:"text,json" default:"text" help:"text, or json: one object for each scenario."`
	Files   []string `arg:"" name:"file" help:"Scenario files (.txtar)."`
}

// Run prints the timeline of states of each scenario, and fails with a difference
// where one is not as expected.
func (c *ReplayCommand) Run(ctx context.Context, term *Terminal) error {
	different := 0
	for _, file := range c.Files {
		s, err := fixtures.Load(file)
		if err != nil {
			return err
		}
		log := quiet()
		if c.Verbose {
			log = (&LogConfig{Level: "debug"}).logger(term.Err)
		}
		got, err := replay(ctx, s, log)
		if err != nil {
			return err
		}
		if !c.Quiet && c.Format == "text" {
			fmt.Fprintf(term.Out, "# %s: %s\n%s", s.Name, firstLine(s.About), got)
		}
		if c.Update {
			if err := updateExpect(file, got); err != nil {
				return err
			}
			continue
		}
		diff := lineDiff(s.Expect, got)
		if diff != "" {
			different++
		}
		switch {
		case c.Format == "json":
			timeline := significant(got)
			if err := printJSON(term.Out, replayed{s.Name, timeline, diff == "", significant(diff)}); err != nil {
				return err
			}
		case diff != "":
			fmt.Fprintf(term.Out, "--- %s: expected\n+++ %s: replayed\n%s", file, file, diff)
		case c.Quiet:
			fmt.Fprintf(term.Out, "ok   %s\n", filepath.Base(file))
		}
	}
	if different > 0 {
		return fmt.Errorf("%d of %d scenarios differ from what is expected", different, len(c.Files))
	}
	return nil
}

// replayed is what --format json says of a scenario.
type replayed struct {
	Scenario string   `json:"scenario"`
	Timeline []string `json:"timeline"`
	Expected bool     `json:"as_expected"`
	Diff     []string `json:"diff,omitempty"`
}

// replay gives the timeline of states of a scenario.
func replay(ctx context.Context, s *fixtures.Scenario, log *slog.Logger) (string, error) {
	var out bytes.Buffer
	w, err := newWorld(s, &out, log)
	if err != nil {
		return "", err
	}
	err = w.run(ctx)
	return out.String(), err
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// updateExpect replaces the section expect of a scenario file.
func updateExpect(file, expect string) error {
	data, err := os.ReadFile(file) //nolint:gosec // the file that the user names
	if err != nil {
		return err
	}
	ar := txtar.Parse(data)
	found := false
	for i := range ar.Files {
		if ar.Files[i].Name == "expect" {
			ar.Files[i].Data, found = []byte(expect), true
		}
	}
	if !found {
		ar.Files = append(ar.Files, txtar.File{Name: "expect", Data: []byte(expect)})
	}
	return os.WriteFile(file, txtar.Format(ar), 0o644) //nolint:gosec // a scenario is no secret
}

// lineDiff gives the lines that differ, - for expected and + for got, with a line
// of context; blank lines, comments and the width of blanks do not count.
func lineDiff(want, got string) string {
	a, b := significant(want), significant(got)
	// The longest common subsequence: scenarios have some hundred lines.
	table := make([][]int, len(a)+1)
	for i := range table {
		table[i] = make([]int, len(b)+1)
	}
	for i, left := range slices.Backward(a) {
		for j, right := range slices.Backward(b) {
			if left == right {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	var out strings.Builder
	context, gap := "", false
	i, j := 0, 0
	show := func(sign, line string) {
		if context != "" {
			out.WriteString("  " + context + "\n")
			context = ""
		}
		out.WriteString(sign + " " + line + "\n")
		gap = true
	}
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			if gap {
				out.WriteString("  " + a[i] + "\n")
				gap = false
			} else {
				context = a[i]
			}
			i++
			j++
		case j == len(b) || i < len(a) && table[i+1][j] >= table[i][j+1]:
			show("-", a[i])
			i++
		default:
			show("+", b[j])
			j++
		}
	}
	return out.String()
}

func significant(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.Join(strings.Fields(line), " "); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}
