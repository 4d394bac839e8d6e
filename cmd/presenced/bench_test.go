package main

import (
	"context"
	"testing"
	"time"

	"presenced/aes"
	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/fixtures"
	"presenced/fixtures/sim/simaes"
)

// BenchmarkRoad is the road of one event, without the sockets at its ends: the bytes
// of a call event are decoded, the call model and the policy decide, a watcher
// takes the state from its mailbox, and the document to publish is written.
func BenchmarkRoad(b *testing.B) {
	person := presence.Person{ID: "ann", Name: "Ann", Subjects: []presence.Subject{{Scheme: "tel", Value: "4750"}}}
	people, _ := directory.New([]presence.Person{person})
	hub := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet())
	hub.SetDirectory(people, time.Now())

	cfg := aes.DefaultConfig()
	cfg.Switch, cfg.Rate, cfg.FeaturePoll = simulatedSwitch, 100_000, 0
	p := &phoneWorld{sw: simaes.New(simaes.Config{Switch: simulatedSwitch, Stations: []string{"4750"}}), link: aes.NewLink(cfg, "aes")}
	p.link.Cover(people.Subjects("tel"), time.Now())
	p.conn = p.sw.Attach(time.Now())
	p.link.Connected(time.Now())
	report := func() {
		for _, r := range p.link.Reports() {
			if err := hub.Report(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
	}
	for range 200 { // log in, monitor, snapshot
		p.link.Tick(time.Now())
		var out []byte
		for _, f := range p.link.Frames() {
			out, _ = f.Append(out)
		}
		p.conn.Input(out, time.Now())
		if err := p.receive(p.conn.Output(), time.Now()); err != nil {
			b.Fatal(err)
		}
		report()
	}
	do := func(words ...string) []byte {
		if err := p.sw.Do(time.Now(), words); err != nil {
			b.Fatal(err)
		}
		return p.conn.Output()
	}
	do("call", "1", "4711", "4750")
	if err := p.receive(do("answer", "1", "4750"), time.Now()); err != nil {
		b.Fatal(err)
	}
	held, retrieved := do("hold", "1", "4750"), do("retrieve", "1", "4750")

	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	states := make(chan presence.State)
	go func() {
		defer close(states)
		for s := range hub.Watch(ctx, "ann") {
			states <- s
		}
	}()
	<-states
	var document []byte
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		in := held
		if n%2 == 1 {
			in = retrieved
		}
		if err := p.receive(in, time.Now()); err != nil {
			b.Fatal(err)
		}
		report()
		s := <-states
		document = pidf.Append(document[:0], s, "sip:4750@example.test", pidf.Options{})
	}
	if len(document) == 0 {
		b.Fatal("nothing to publish")
	}
}

// BenchmarkStartWindow starts with 10,000 extensions at a server that takes 50 ms for an
// answer, in virtual time. The ratio is between the time until everything is known and
// the time that so many requests take where 20 of them wait for their answer at any moment.
func BenchmarkStartWindow(b *testing.B) {
	const extensions, outstanding, latency = 10_000, 20, 50 * time.Millisecond
	for b.Loop() {
		cfg := aes.DefaultConfig()
		cfg.Switch, cfg.Rate, cfg.Outstanding, cfg.FeaturePoll = simulatedSwitch, 100_000, outstanding, 0
		stations := numbered(extensions)
		w := &world{now: time.Unix(1_800_000_000, 0), people: directory.Empty(), core: aggregator.NewCore(presence.DefaultPolicy()), log: quiet()}
		p := &phoneWorld{sw: simaes.New(simaes.Config{Switch: simulatedSwitch, Stations: stations}), link: aes.NewLink(cfg, phoneSource), retry: w.now}
		w.phone = p
		var subjects []presence.Subject
		for _, ext := range stations {
			subjects = append(subjects, presence.Subject{Scheme: "tel", Value: ext})
		}
		p.link.Cover(subjects, w.now)
		if err := p.sw.Do(w.now, []string{"delay", "50"}); err != nil {
			b.Fatal(err)
		}
		began := w.now
		for {
			if err := w.moment(b.Context()); err != nil {
				b.Fatal(err)
			}
			if _, complete := p.link.Working(); complete { // agents come after that
				break
			}
			w.now = w.next()
		}
		ideal := 5 * extensions * latency / outstanding
		b.ReportMetric(float64(w.now.Sub(began))/float64(ideal), "ratio")
	}
}

// BenchmarkDay is the replay of a working day of the demonstration's office.
func BenchmarkDay(b *testing.B) {
	s, err := fixtures.OfficeDay()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := replay(b.Context(), s, quiet()); err != nil {
			b.Fatal(err)
		}
	}
}
