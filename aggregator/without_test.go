package aggregator_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// A bridge is not told what its own peer said, and is told of what changed beneath.
func TestWithout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann"), time.Now())
		run(t, h.Run)
		var seen, all []string
		watch := func(hub presence.Hub, into *[]string, who ...presence.ID) {
			run(t, func(ctx context.Context) error {
				for s := range hub.Watch(ctx, who...) {
					if n := len(*into); n == 0 || (*into)[n-1] != s.Availability.String() {
						*into = append(*into, s.Availability.String())
					}
				}
				return nil
			})
		}
		watch(h.Without("hq/network"), &seen)
		watch(h, &all, "ann")
		synctest.Wait()
		say := func(source string, facts ...presence.Fact) {
			t.Helper()
			r := about(extension(0), facts...)
			r.Source, r.Grace = source, 0
			if err := h.Report(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute) // virtual
		}
		say("hq/network", presence.SessionDND)
		say("branch/network", presence.SessionBusy) // a dnd stands above it: only the one without sees it
		say("branch/network", presence.SessionAway)
		say("hq/network")
		say("hq/network", presence.SessionDND)
		h.Lost("branch/network", time.Now())
		synctest.Wait()
		if want := []string{"unknown", "busy", "away", "unavailable"}; !slices.Equal(seen, want) {
			t.Errorf("without: %v, want %v", seen, want)
		}
		if want := []string{"unknown", "dnd", "away", "dnd"}; !slices.Equal(all, want) {
			t.Errorf("with: %v, want %v", all, want)
		}
	})
}

// Whatever happens, who watches without a source ends at the state that the reports of
// the others come to.
func TestWithoutLaw(t *testing.T) {
	facts := []presence.Fact{presence.SessionDND, presence.SessionBusy, presence.SessionActive, presence.SessionAway, presence.PhoneConnected, presence.PhoneIdle}
	sources := []string{"hq/network", "aes", "branch/network"}
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			source string
			fact   presence.Fact
			life   int
			lost   bool
			pause  int
		}
		var steps []step
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			steps = append(steps, step{
				rapid.SampledFrom(sources).Draw(rt, "source"), rapid.SampledFrom(facts).Draw(rt, "fact"),
				rapid.IntRange(0, 90).Draw(rt, "life"), rapid.IntRange(0, 9).Draw(rt, "lost") == 0, rapid.IntRange(1, 40).Draw(rt, "pause"),
			})
		}
		synctest.Test(t, func(t *testing.T) {
			both, alone := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet), aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
			ctx, cancel := context.WithCancel(t.Context())
			var last presence.State
			for _, h := range []*aggregator.Hub{both, alone} {
				h.SetDirectory(office("ann"), time.Now())
				go func() { _ = h.Run(ctx) }()
			}
			go func() {
				for last = range both.Without("hq/network").Watch(ctx) {
				}
			}()
			for _, s := range steps {
				for _, h := range []*aggregator.Hub{both, alone} {
					if h == alone && s.source == "hq/network" {
						continue
					}
					r := about(extension(0), s.fact)
					if r.Source, r.Grace = s.source, 0; s.life > 0 {
						r.Expires = r.At.Add(time.Duration(s.life) * time.Second)
					}
					if s.lost {
						h.Lost(s.source, time.Now())
					} else if err := h.Report(ctx, r); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Duration(s.pause) * time.Second) // virtual
			}
			time.Sleep(10 * time.Minute) // virtual: nothing is held back any more
			synctest.Wait()
			want, _ := alone.State("ann")
			if last.Availability != want.Availability || last.Activity != want.Activity || last.Channels != want.Channels {
				rt.Errorf("%+v\nwant %+v", last, want)
			}
			cancel()
			synctest.Wait()
		})
	})
}
