package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// SyncCommand reads one complete account from a source.
type SyncCommand struct {
	Source  string        `arg:"" enum:"aes,exchange,domino,directory" help:"What to read: aes, exchange, domino or directory."`
	Config  string        `short:"c" required:"" help:"Configuration file." type:"path" placeholder:"FILE"`
	Person  string        `help:"Only this person, by identifier."`
	Format  string        `enum:"text,json" default:"text" help:"text or json."`
	Timeout time.Duration `default:"10m" help:"How long it may take."`

	OPTIM   string `name:"optim" help:"aes: instead, tie this off-PBX station mapping (the report of the system access terminal, or CSV) to the people of the directory." type:"path" placeholder:"FILE"`
	DryRun  bool   `help:"With --optim: only print what would be added to whom."`
	Out     string `help:"With --optim: directory file to write the people to that something is added to; what stands in it does not count." type:"path" placeholder:"FILE"`
	Domain  string `help:"With --optim: the SIP domain of OPS telephones, which makes sip:NUMBER@DOMAIN of their numbers; without it they are not added."`
	Mobiles bool   `help:"With --optim: add the numbers of EC500 and other telephones as tel:."`
}

// Run implements the command.
func (c *SyncCommand) Run(ctx context.Context, term *Terminal) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not complete after %s", c.Timeout))
	defer cancel()
	if c.OPTIM != "" { // what was written the last time is not what it is made of
		cfg.Directory.Files = slices.DeleteFunc(cfg.Directory.Files, func(file string) bool { return filepath.Clean(file) == filepath.Clean(c.Out) })
	}
	people, err := readPeople(ctx, cfg, c.Person, term)
	if err != nil {
		return err
	}
	if c.OPTIM != "" {
		return c.optim(people, term)
	}
	if c.Source == "directory" {
		return printPeople(term.Out, people, c.Format)
	}
	kept := *cfg
	kept.AES, kept.Exchange, kept.Domino = nil, nil, nil
	switch c.Source {
	case "aes":
		kept.AES = cfg.AES
	case "exchange":
		kept.Exchange = cfg.Exchange
	case "domino":
		kept.Domino = cfg.Domino
	}
	sources, err := kept.sources(cfg.Log.logger(term.Err))
	if err != nil {
		return err
	}
	if len(sources) == 0 {
		return fmt.Errorf("%s names no %s server", c.Config, c.Source)
	}
	var reports []presence.Report
	var failed []error
	for _, s := range sources {
		got, err := account(ctx, s, staticRoster{people}, term.Err)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.Name(), err))
		}
		reports = append(reports, got...)
	}
	return errors.Join(append(failed, printReports(term.Out, people, reports, c.Format))...)
}

// readPeople reads the directory; only that person, if one is named.
func readPeople(ctx context.Context, cfg *Config, person string, term *Terminal) (*directory.Directory, error) {
	d, err := directory.NewWatch(cfg.Directory, cfg.Log.logger(term.Err)).Read(ctx)
	if err != nil || person == "" {
		return d, err
	}
	p, ok := d.Person(presence.ID(person))
	if !ok {
		return nil, fmt.Errorf("nobody in the directory has the identifier %q", person)
	}
	d, _ = directory.New([]presence.Person{p})
	return d, nil
}

// A staticRoster is a directory that does not change.
type staticRoster struct{ *directory.Directory }

// Subjects implements presence.Roster.
func (r staticRoster) Subjects(ctx context.Context, scheme string) iter.Seq[[]presence.Subject] {
	return func(yield func([]presence.Subject) bool) {
		if yield(r.Directory.Subjects(scheme)) {
			<-ctx.Done()
		}
	}
}

// account runs a source until its first complete account is there, and gives it.
// Progress goes to w, once something takes longer than two seconds.
func account(ctx context.Context, s aggregator.Source, roster presence.Roster, w io.Writer) ([]presence.Report, error) {
	status := func() presence.Status { return presence.Status{} }
	if own, ok := s.(interface{ Status() presence.Status }); ok {
		status = own.Status
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	held := map[presence.Subject]presence.Report{}
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- s.Run(run, roster, func(r presence.Report) error {
			mu.Lock()
			defer mu.Unlock()
			held[r.Subject] = r
			return run.Err()
		})
	}()
	began, shown := time.Now(), time.Time{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-ended:
			waiting = false
		case <-ctx.Done():
			err = context.Cause(ctx)
			stop()
			drain(ended)
			waiting = false
		case <-tick.C:
			now := status()
			if now.Phase == presence.PhaseLive || now.Phase == presence.PhaseDegraded {
				stop()
				drain(ended)
				waiting = false
				if now.Phase == presence.PhaseDegraded {
					fmt.Fprintf(w, "%s: %s\n", s.Name(), now.Detail)
				}
			} else if time.Since(began) > 2*time.Second && time.Since(shown) > time.Second {
				shown = time.Now()
				fmt.Fprintf(w, "%s: %s %d of %d\n", s.Name(), now.Phase, now.Done, now.Total)
			}
		}
	}
	for subject, why := range status().Unmonitored {
		fmt.Fprintf(w, "%s: %s: %s\n", s.Name(), subject, why)
	}
	mu.Lock()
	defer mu.Unlock()
	var out []presence.Report
	for _, r := range held {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b presence.Report) int { return strings.Compare(a.Subject.String(), b.Subject.String()) })
	return out, err
}

// drain waits until the channel is closed.
func drain(ended <-chan error) {
	for range ended { //nolint:revive // what it says does not matter any more
	}
}

func printReports(w io.Writer, people *directory.Directory, reports []presence.Report, format string) error {
	if format == "json" {
		return printJSON(w, nonNil(reports))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range reports {
		p, _ := people.Find(r.Subject)
		if len(r.Spans) == 0 {
			fmt.Fprintf(t, "%s\t%s\t%s\tnothing is known\n", p.ID, r.Subject, r.Source)
		}
		for _, s := range r.Spans {
			until := "on"
			if !s.Until.IsZero() {
				until = "until " + s.Until.Local().Format("2006-01-02 15:04")
			}
			private := ""
			if s.Private {
				private = "private"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\tfrom %s %s\t%s\n", p.ID, r.Subject, r.Source, s.Fact, s.From.Local().Format("2006-01-02 15:04"), until, private)
		}
	}
	return t.Flush()
}

func printPeople(w io.Writer, people *directory.Directory, format string) error {
	if format == "json" {
		return printJSON(w, nonNil(slices.Collect(people.All())))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for p := range people.All() {
		var subjects []string
		for _, s := range p.Subjects {
			subjects = append(subjects, s.String())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.ID, p.Name, strings.Join(p.Groups, ", "), strings.Join(subjects, " "))
	}
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// nonNil makes an empty list of none, so that JSON has [] and not null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
