package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"

	"presenced/aggregator/journal"
	"presenced/aggregator/policy"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
	"presenced/internal/config"
)

// PolicyCommand is about the policy.
type PolicyCommand struct {
	Show   PolicyShowCommand   `cmd:"" help:"Print the table in force with a configuration."`
	Check  PolicyCheckCommand  `cmd:"" help:"Check a file with a table, and name everything that is wrong with it."`
	DryRun PolicyDryRunCommand `cmd:"" help:"Tell who would have been different by another table, from what a running service remembers."`
}

// PolicyShowCommand prints a table.
type PolicyShowCommand struct {
	Config string `short:"c" help:"Configuration file; without it, the default table is printed." type:"path" placeholder:"FILE"`
	Format string `enum:"text,yaml,json" default:"yaml" help:"text for people; yaml or json as policy.file may have it."`
}

// Run implements the command.
func (c *PolicyShowCommand) Run(term *Terminal) error {
	p := presence.DefaultPolicy()
	if c.Config != "" {
		cfg, err := loadConfig(c.Config)
		if err != nil {
			return err
		}
		p = cfg.policy()
	}
	switch c.Format {
	case "text":
		return writeTable(term.Out, p)
	case "json":
		var table any
		if err := yaml.Unmarshal(policy.Format(p), &table); err != nil {
			return err
		}
		out := json.NewEncoder(term.Out)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		return out.Encode(table)
	default:
		_, err := term.Out.Write(policy.Format(p))
		return err
	}
}

// writeTable writes a table for people.
func writeTable(w io.Writer, p *presence.Policy) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RULE\tDECIDES\tCLASS\tWHERE")
	for _, r := range p.Rules {
		class := r.Class
		if class == 0 {
			class = r.Availability.Class()
		}
		var where []string
		for _, c := range []struct {
			word  string
			facts presence.FactSet
		}{{"any of", r.Any}, {"all of", r.All}, {"none of", r.None}, {"not lately", r.NotRecent}} {
			if c.facts != 0 {
				where = append(where, c.word+" "+c.facts.String())
			}
		}
		if len(where) == 0 {
			where = append(where, "always")
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", r.Name, r.Availability, class, strings.Join(where, ", "))
	}
	fmt.Fprintln(t, "\nFACT\tSHOWS AS\tAT CLASS")
	for _, s := range p.Shown {
		var at []string
		for _, window := range s.Windows {
			at = append(at, fmt.Sprintf("%d to %d", window.Min, window.Max))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Fact, s.Activity, strings.Join(at, ", "))
	}
	fmt.Fprintf(t, "\nLately is within %s.\n", p.Recent)
	fmt.Fprintf(t, "Somebody becomes easier to reach after what was shown for %s", p.MinDwell)
	if p.FlapLimit > 0 {
		fmt.Fprintf(t, ", and at most %d times within %s", p.FlapLimit, p.FlapWindow)
	}
	fmt.Fprintln(t, ".")
	for f := range presence.Expired {
		var times []string
		for _, c := range []struct {
			word string
			time time.Duration
		}{{"counts after", p.Delay[f]}, {"lingers for", p.Linger[f]}, {"goes on over gaps of", p.Gap[f]}} {
			if c.time != 0 {
				times = append(times, c.word+" "+c.time.String())
			}
		}
		if p.Delay[f] != 0 && p.Meanwhile[f] != 0 {
			times = append(times, "is until then "+p.Meanwhile[f].String())
		}
		if len(times) > 0 {
			fmt.Fprintf(t, "%s %s.\n", f, strings.Join(times, ", "))
		}
	}
	return t.Flush()
}

// policies is the web.Policies of the page and the api.Policy.
type policies struct {
	cfg  *Config
	past *archive
}

// Policy implements web.Policies.
func (p *policies) Policy() *presence.Policy { return p.past.hub.Policy() }

// Origin implements web.Policies. The knobs are those of presence.Setting, as its tags
// describe them.
func (p *policies) Origin() web.PolicyOrigin {
	origin := web.PolicyOrigin{File: p.cfg.PolicyFile}
	if origin.File != "" {
		return origin
	}
	values := reflect.ValueOf(p.cfg.Policy)
	for f, v := range values.Fields() {
		key := f.Tag.Get("yaml")
		text := fmt.Sprint(v.Interface())
		if d, ok := reflect.TypeAssert[time.Duration](v); ok {
			text = policy.Duration(d)
		}
		origin.Knobs = append(origin.Knobs, web.Knob{
			Key: key, Value: text, Default: f.Tag.Get("default"), Meaning: f.Tag.Get("doc"), Set: slices.Contains(p.cfg.knobs, key),
		})
	}
	return origin
}

// Table implements web.Policies.
func (p *policies) Table() []byte { return policy.Format(p.Policy()) }

// Parse implements web.Policies.
func (*policies) Parse(table []byte) (*presence.Policy, error) {
	if len(table) > maxPolicyFile {
		return nil, fmt.Errorf("the table is larger than %d bytes", maxPolicyFile)
	}
	return policy.Parse("table", table)
}

// DryRun implements web.Policies.
func (p *policies) DryRun(ctx context.Context, would *presence.Policy, since, until time.Time) ([]journal.Difference, error) {
	return p.past.dryRun(ctx, p.Policy(), would, since, until)
}

// PolicyCheckCommand checks a table.
type PolicyCheckCommand struct {
	File string `arg:"" help:"File with a table." type:"path"`
}

// Run implements the command.
func (c *PolicyCheckCommand) Run(term *Terminal) error {
	t, err := readTable(c.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(term.Out, "%s: %d rules, ok\n", c.File, len(t.policy.Rules))
	return err
}

// A tableFile is a file with a table, as it was when it was read.
type tableFile struct {
	path   string
	stamp  stamp
	policy *presence.Policy // nil: it could not be read
}

// A stamp tells versions of a file apart. The zero stamp is that of no file.
type stamp struct{ modified, size int64 }

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime().UnixNano(), info.Size()}
}

// The largest table that is read.
const maxPolicyFile = 1 << 20

// readTable reads a table. The error is a *config.Error where the table is wrong;
// the stamp holds in any case.
func readTable(path string) (tableFile, error) {
	t := tableFile{path: path, stamp: stampOf(path)} // the stamp first: what is written meanwhile has another one
	f, err := os.Open(path)                          //nolint:gosec // the file that the administrator names
	if err != nil {
		return t, fmt.Errorf("policy: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPolicyFile+1))
	if err != nil {
		return t, fmt.Errorf("policy: %w", err)
	}
	if len(data) > maxPolicyFile {
		return t, fmt.Errorf("policy: %s is larger than %d bytes", path, maxPolicyFile)
	}
	t.policy, err = policy.Parse(path, data)
	return t, err
}

// A policyWatch reads a table again when its file changes or when it is told to.
// What is wrong with a new one is logged and shown in health; the policy in force
// stays.
type policyWatch struct {
	log *slog.Logger

	mu     sync.Mutex
	read   tableFile // as it was last
	rules  int       // in force
	failed error
	when   time.Time // it failed
}

func newPolicyWatch(t tableFile, log *slog.Logger) *policyWatch {
	return &policyWatch{log: log, read: t, rules: len(t.policy.Rules)}
}

// How often the file is looked at. A change counts when it is the same at two
// looks: a file that is being written is left alone.
const policyInterval = time.Second

// Run watches until ctx ends, and calls set with each new policy. A value from
// again has the file read whether it changed or not.
func (w *policyWatch) Run(ctx context.Context, again <-chan os.Signal, set func(*presence.Policy)) error {
	tick := time.NewTicker(policyInterval)
	defer tick.Stop()
	var before stamp
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-tick.C:
			now := stampOf(w.read.path)
			settled := now == before
			before = now
			if !settled || now == w.read.stamp {
				continue
			}
		}
		if p := w.reload(time.Now()); p != nil {
			set(p)
		}
	}
}

// reload gives the policy of the file, or nil where it cannot be read.
func (w *policyWatch) reload(now time.Time) *presence.Policy {
	t, err := readTable(w.read.path)
	var invalid *config.Error
	switch {
	case errors.As(err, &invalid):
		for _, p := range invalid.Wrong {
			w.log.Error("the policy file is wrong; the policy stays as it is", "file", t.path, "line", p.Line, "key", p.Path, "problem", p.Text)
		}
	case err != nil:
		w.log.Error("the policy file cannot be read; the policy stays as it is", "error", err)
	default:
		w.log.Info("the policy was read again", "file", t.path, "rules", len(t.policy.Rules))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read, w.failed, w.when = t, err, now
	if err != nil {
		return nil
	}
	w.rules = len(t.policy.Rules)
	return t.policy
}

// Status tells whether the file is in force.
func (w *policyWatch) Status() presence.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		return presence.Status{Phase: presence.PhaseLive, Detail: fmt.Sprintf("%d rules of %s", w.rules, w.read.path)}
	}
	text, rest, _ := strings.Cut(w.failed.Error(), "\n")
	if rest != "" {
		text += fmt.Sprintf(" (and %d more, see the log)", strings.Count(rest, "\n")+1)
	}
	return presence.Status{
		Phase: presence.PhaseDegraded, LastError: text, LastErrorAt: w.when,
		Detail: fmt.Sprintf("the %d rules that were read before stay in force until %s is right", w.rules, w.read.path),
	}
}
