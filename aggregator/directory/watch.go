package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"presenced/aggregator/presence"
	"presenced/internal/config"
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
	last     []map[presence.ID]presence.Person // of each reader
}

// NewWatch makes a watch over all that c names.
func NewWatch(c Config, log *slog.Logger) *Watch {
	w := &Watch{interval: c.Interval, keep: c.Keep, log: log}
	for _, f := range c.Files {
		w.readers = append(w.readers, File{f})
	}
	for _, l := range c.LDAP {
		w.readers = append(w.readers, &LDAP{l})
	}
	w.last = make([]map[presence.ID]presence.Person, len(w.readers))
	return w
}

// Read reads every place once and gives everybody. A place that cannot be read
// keeps what it said last; err names each such place. People are removed only
// by a complete reading that is not suspiciously small.
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
		fresh := map[presence.ID]presence.Person{}
		for _, p := range reading.People {
			fresh[p.ID] = p
		}
		if before := len(w.last[i]); before > 0 && (!reading.Complete || float64(len(fresh)) < w.keep*float64(before)) {
			w.log.Warn("the directory gave fewer people than before; nobody is removed", "directory", r.String(),
				"before", before, "now", len(fresh), "complete", reading.Complete)
			for id, p := range w.last[i] {
				if _, ok := fresh[id]; !ok {
					fresh[id] = p
				}
			}
		}
		w.last[i] = fresh
	}
	seen := map[presence.ID]bool{}
	var people []presence.Person
	for _, of := range w.last {
		for _, id := range slices.Sorted(maps.Keys(of)) {
			if !seen[id] { // the place named first knows best
				seen[id] = true
				people = append(people, of[id])
			}
		}
	}
	d, problems := New(people)
	for _, p := range problems {
		w.log.Warn("directory", "problem", p)
	}
	return d, errors.Join(errs...)
}

// Run reads again every interval until ctx ends, and calls set with every
// reading; what cannot be read is logged.
func (w *Watch) Run(ctx context.Context, set func(*Directory)) error {
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d, err := w.Read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			w.log.Error("the directory cannot be read; the people stay as they are", "error", err)
		}
		set(d)
	}
}
