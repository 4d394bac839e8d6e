package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/mqtt"
	"presenced/bridges/sip"
	"presenced/bridges/webhook"
	"presenced/bridges/xmpp"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// CheckCommand checks a configuration.
type CheckCommand struct {
	Config  string        `short:"c" required:"" help:"Configuration file." type:"path" placeholder:"FILE"`
	Online  bool          `help:"Also connect to everything that the configuration names."`
	Timeout time.Duration `default:"20s" help:"How long each connection may take, with --online."`
	Format  string        `enum:"text,json" default:"text" help:"text or json."`
}

// A verdict is what came of one check.
type verdict struct {
	Checked string `json:"checked"`
	OK      bool   `json:"ok"`
	Detail  string `json:"detail,omitempty"` // what was seen, or why it failed
}

// Run implements the command.
func (c *CheckCommand) Run(ctx context.Context, term *Terminal) error {
	cfg, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	var verdicts []verdict
	bad := 0
	judge := func(what string, err error, detail string) {
		v := verdict{what, err == nil, detail}
		word := "ok    "
		if err != nil {
			bad++
			word, v.Detail = "failed", err.Error()
		}
		verdicts = append(verdicts, v)
		if c.Format == "text" {
			fmt.Fprintf(term.Out, "%s  %s: %s\n", word, what, v.Detail)
		}
	}
	judge(c.Config, nil, "every key is right")
	cfg.judgeFiles(judge)
	if c.Online {
		sources, err := cfg.sources(quiet())
		if err != nil {
			judge("sources", fmt.Errorf("none is asked: %w", err), "")
		}
		people, err := directory.NewWatch(cfg.Directory, quiet()).Read(ctx)
		judge("directory", err, fmt.Sprintf("%d people", people.Len()))
		unreachable := map[string]bool{}
		for _, server := range cfg.AES {
			unreachable[server.Name] = c.inquire(ctx, server, values(people.Subjects("tel")), judge)
		}
		for _, s := range sources {
			if unreachable[s.Name()] {
				continue
			}
			one, stop := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no complete answer within %s", c.Timeout))
			reports, err := account(one, s, sample{staticRoster{people}}, term.Err)
			stop()
			judge("source "+s.Name(), err, fmt.Sprintf("answered for %d", len(reports)))
		}
		try := func(name string, f func(context.Context) error) {
			one, stop := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no answer within %s", c.Timeout))
			defer stop()
			judge("bridge "+name, f(one), "connected")
		}
		for _, w := range cfg.Webhooks { // nothing is sent: a receiver believes what it gets
			try(w.Name, func(ctx context.Context) error { return webhook.Try(ctx, w) })
		}
		for _, m := range cfg.MQTT {
			try(m.Name, func(ctx context.Context) error { return mqtt.Try(ctx, m) })
		}
		for _, b := range cfg.peers() {
			one, stop := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("not live within %s", c.Timeout))
			judge("bridge "+b.Name(), connects(one, b), "connected")
			stop()
		}
	}
	if c.Format == "json" {
		if err := printJSON(term.Out, verdicts); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d checks failed", bad, len(verdicts))
	}
	return nil
}

// judgeFiles reads each secret and certificate that the configuration names, so that
// all that are missing are told at once.
func (c *Config) judgeFiles(judge func(string, error, string)) {
	for path, file := range config.Values[secret.File](c) {
		if file != "" {
			_, err := file.Read()
			judge(path, err, "can be read")
		}
	}
	for path, believe := range config.Values[trust.Config](c) {
		if believe.CAFile != "" || believe.CertFile != "" {
			_, err := believe.Client("")
			judge(path, err, "can be used")
		}
	}
}

// inquire asks an AES for all that the collector needs of it, so that each thing that is
// wrong is told together with what to change. It tells whether the collector could not
// answer for anybody.
func (c *CheckCommand) inquire(ctx context.Context, cfg aes.Config, extensions []string, judge func(string, error, string)) (hopeless bool) {
	ctx, stop := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("no complete answer within %s", c.Timeout))
	defer stop()
	what := "aes " + cfg.Name
	q, err := aes.Inquire(ctx, cfg)
	if err != nil {
		judge(what, err, "")
		return true
	}
	defer q.Close()
	extensions = extensions[:min(sampleSize, len(extensions))]
	wrong := q.Examine(ctx, extensions)
	for _, err := range wrong {
		judge(what, err, "")
		f := (*aes.Fault)(nil)
		hopeless = hopeless || errors.As(err, &f) && f.Kind == aes.FaultSwitch
	}
	if len(wrong) == 0 {
		judge(what, nil, fmt.Sprintf("lets the user in, and %d extensions be monitored", len(extensions)))
	}
	return hopeless || len(wrong) > 0 && len(wrong) == len(extensions)
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
		all = append(all, sip.New(cfg, forgetful{}, openGate{}, quiet()))
	}
	for _, cfg := range c.XMPP {
		all = append(all, xmpp.New(cfg, forgetful{}, openGate{}, quiet()))
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
