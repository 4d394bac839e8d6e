package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/sip"
	"presenced/bridges/xmpp"
)

// CheckCommand checks a configuration.
type CheckCommand struct {
	Config  string        `short:"c" required:"" help:"Configuration file." type:"path"`
	Online  bool          `help:"Also connect to everything that the configuration names."`
	Timeout time.Duration `default:"20s" help:"How long each connection may take, with --online."`
}

// Run implements the command.
func (c *CheckCommand) Run(ctx context.Context, term *Terminal) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	fmt.Fprintf(term.Out, "ok      %s\n", c.Config)
	bad := 0
	verdict := func(name string, err error, detail string) {
		if err != nil {
			bad++
			fmt.Fprintf(term.Out, "failed  %s: %v\n", name, err)
			return
		}
		fmt.Fprintf(term.Out, "ok      %s%s\n", name, detail)
	}
	sources, err := cfg.sources(quiet())
	verdict("secrets and certificates of the sources", err, "")
	if c.Online {
		people, err := directory.NewWatch(cfg.Directory, quiet()).Read(ctx)
		verdict("directory", err, fmt.Sprintf(": %d people", len(people.People())))
		for _, s := range sources {
			one, stop := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no complete answer within %s", c.Timeout))
			reports, err := account(one, s, sample{staticRoster{people}}, term.Err)
			stop()
			verdict("source "+s.Name(), err, fmt.Sprintf(": answered for %d", len(reports)))
		}
		for _, b := range cfg.peers() {
			one, stop := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not live within %s", c.Timeout))
			verdict("bridge "+b.Name(), connects(one, b), ": connected")
			stop()
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d checks failed", bad)
	}
	return nil
}

// A sample is the first few subjects of a roster: enough to see that a source answers.
type sample struct{ presence.Roster }

const sampleSize = 5

// Subjects implements presence.Roster.
func (s sample) Subjects(ctx context.Context, scheme string) iter.Seq[[]presence.Subject] {
	return func(yield func([]presence.Subject) bool) {
		for all := range s.Roster.Subjects(ctx, scheme) {
			if !yield(all[:min(sampleSize, len(all))]) {
				return
			}
		}
	}
}

// peers makes the bridges without a memory: nothing is published when connecting only.
func (c *Config) peers() []aggregator.Bridge {
	var all []aggregator.Bridge
	for _, cfg := range c.SIP {
		all = append(all, sip.New(cfg, forgetful{}, quiet()))
	}
	for _, cfg := range c.XMPP {
		all = append(all, xmpp.New(cfg, forgetful{}, quiet()))
	}
	return all
}

// forgetful is a memory that keeps nothing.
type forgetful struct{}

// Load implements the memory of a bridge.
func (forgetful) Load(context.Context) (map[string][]byte, error) { return nil, nil }

// Put implements the memory of a bridge.
func (forgetful) Put(context.Context, string, []byte) error { return nil }

// Delete implements the memory of a bridge.
func (forgetful) Delete(context.Context, string) error { return nil }

// connects runs a bridge with nobody to serve until it is live.
func connects(ctx context.Context, b aggregator.Bridge) error {
	own, ok := b.(interface{ Status() presence.Status })
	if !ok {
		return errors.New("says nothing of itself")
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	nobody := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet())
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- b.Run(run, nobody)
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			stop()
			err := <-ended
			if s := own.Status(); s.LastError != "" {
				err = errors.New(s.LastError)
			}
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
			if own.Status().Phase == presence.PhaseLive {
				stop()
				drain(ended)
				return nil
			}
		}
	}
}
