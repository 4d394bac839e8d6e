package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"presenced/aggregator/presence"
	"presenced/internal/config"
	"presenced/internal/htdigest"
)

// Config is the directory: section.
type Config struct {
	Files    []string      `yaml:"files" doc:"YAML files with people; a change is seen within the interval."`
	LDAP     []LDAPConfig  `yaml:"ldap" doc:"LDAP servers to read people from."`
	Interval time.Duration `yaml:"interval" default:"5m" doc:"How often everything is read again."`
	Keep     float64       `yaml:"keep" default:"0.8" doc:"Smallest share of the people of the last reading that a new one must have; with fewer, nobody is removed."`
}

// Check tells what is wrong with c.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if len(c.Files) == 0 && len(c.LDAP) == 0 {
		ps = append(ps, config.Wrong("files", "name at least one file with people, or an LDAP server"))
	}
	for i := range c.LDAP {
		ps = append(ps, config.Under(fmt.Sprintf("ldap[%d]", i), c.LDAP[i].Check())...)
	}
	if c.Interval < time.Second {
		ps = append(ps, config.Wrong("interval", "%s is less than a second", c.Interval))
	}
	if c.Keep < 0 || c.Keep > 1 {
		ps = append(ps, config.Wrong("keep", "%g is not between 0 and 1", c.Keep))
	}
	return ps
}

// A Reading is what one place knows of people.
type Reading struct {
	People   []presence.Person
	Complete bool // everybody is in it: who is not, is gone
	Skipped  int  // entries without an identifier

	Accounts    htdigest.Accounts // for digest authentication; nil: none
	BadAccounts int               // that are not of the form user:realm:HA1
}

// A Reader reads all people of one place.
type Reader interface {
	Read(ctx context.Context) (Reading, error)
	String() string
}

// A Watch reads people again and again, and merges what several places say.
type Watch struct {
	readers  []Reader
	interval time.Duration
	keep     float64
	log      *slog.Logger
	last     []*Directory // of each reader
	merged   *Directory
	accounts []atomic.Pointer[htdigest.Accounts] // of each reader
	again    chan struct{}                       // holds a token where the next reading is not to wait

	mu       sync.Mutex
	people   int       // of merged
	failed   error     // of the last reading
	failedAt time.Time // it, or one before it
	lastErr  error     // failed, or one before it
}

// NewWatch makes a watch over all that c names.
func NewWatch(c Config, log *slog.Logger) *Watch {
	w := &Watch{interval: c.Interval, keep: c.Keep, log: log, again: make(chan struct{}, 1)}
	for _, f := range c.Files {
		w.readers = append(w.readers, File{f})
	}
	for _, l := range c.LDAP {
		w.readers = append(w.readers, &LDAP{l})
	}
	w.last = slices.Repeat([]*Directory{Empty()}, len(w.readers))
	w.merged = Empty()
	w.accounts = make([]atomic.Pointer[htdigest.Accounts], len(w.readers))
	for i := range w.accounts {
		w.accounts[i].Store(&htdigest.Accounts{})
	}
	return w
}

// Read reads every place once and gives everybody. A place that cannot be read
// keeps what it said last; err names each such place. People are removed only
// by a complete reading that is not suspiciously small. Where nothing changed since
// the last call, the Directory is the same one.
func (w *Watch) Read(ctx context.Context) (*Directory, error) {
	var errs []error
	for i, r := range w.readers {
		reading, err := r.Read(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if reading.Skipped > 0 {
			w.log.Warn("entries without an identifier are left out", "directory", r.String(), "entries", reading.Skipped)
		}
		if reading.BadAccounts > 0 {
			w.log.Warn("accounts that are not of the form user:realm:HA1 are left out", "directory", r.String(), "accounts", reading.BadAccounts)
		}
		fresh := w.index(reading.People)
		if before := w.last[i].Len(); before > 0 && (!reading.Complete || float64(fresh.Len()) < w.keep*float64(before)) {
			w.log.Warn("the directory gave fewer people than before; nobody is removed", "directory", r.String(),
				"before", before, "now", fresh.Len(), "complete", reading.Complete)
			fresh = w.index(union(fresh, w.last[i]))
			all := maps.Clone(*w.accounts[i].Load()) // nobody is locked out either
			maps.Copy(all, reading.Accounts)
			reading.Accounts = all
		}
		w.accounts[i].Store(&reading.Accounts)
		w.last[i] = fresh
	}
	var merged *Directory
	if len(w.last) == 1 {
		merged = w.last[0]
	} else {
		merged = w.index(union(w.last...)) // the place named first knows best
	}
	if !merged.Equal(w.merged) {
		w.merged = merged
	}
	err := errors.Join(errs...)
	w.note(err)
	return w.merged, err
}

// note keeps how a reading ended, for Status.
func (w *Watch) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.people, w.failed = w.merged.Len(), err
	if err != nil {
		w.lastErr, w.failedAt = err, time.Now()
	}
}

// Status tells how many people were read, and whether every place could be read last.
func (w *Watch) Status() presence.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseLive, Detail: fmt.Sprintf("%d people", w.people), LastErrorAt: w.failedAt}
	if w.lastErr != nil {
		s.LastError = w.lastErr.Error()
	}
	if w.failed != nil {
		s.Phase, s.Detail = presence.PhaseDegraded, fmt.Sprintf("part of the directory cannot be read; the %d people stay as they were", w.people)
	}
	return s
}

// PollNow has Run read again at once. It does not block.
func (w *Watch) PollNow() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// HA1 gives what a place knows of an account for digest authentication, the place
// named first if several do. It may be called from any goroutine, and does not block.
func (w *Watch) HA1(user, realm, algorithm string) (string, bool) {
	for i := range w.accounts {
		if ha1, ok := w.accounts[i].Load().HA1(user, realm, algorithm); ok {
			return ha1, true
		}
	}
	return "", false
}

// index is New for a reading; the problems are logged.
func (w *Watch) index(people []presence.Person) *Directory {
	d, problems := New(people)
	for _, p := range problems {
		w.log.Warn("directory", "problem", p)
	}
	return d
}

// union gives the people of several directories, each from the first that has them.
func union(all ...*Directory) []presence.Person {
	var people []presence.Person
	for i, d := range all {
		for p := range d.All() {
			if !slices.ContainsFunc(all[:i], func(before *Directory) bool { return before.Has(p.ID) }) {
				people = append(people, p)
			}
		}
	}
	return people
}

// Run reads again every interval until ctx ends, and calls set when something
// changed; what cannot be read is logged.
func (w *Watch) Run(ctx context.Context, set func(*Directory)) error {
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-w.again:
		}
		before := w.merged
		d, err := w.Read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			w.log.Error("the directory cannot be read; the people stay as they are", "error", err)
		}
		if d != before {
			set(d)
		}
	}
}
