package aggregator_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// sendAllCalls is the default policy with another meaning of Send All Calls.
func sendAllCalls(means string) *presence.Policy {
	k := presence.DefaultSetting()
	k.PhoneDND = means
	return k.Policy()
}

// Another policy changes those whom it decides otherwise, and nobody else; who
// watches goes on watching, and what the new policy says of times holds.
func TestSetPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann", "ben", "cat"), time.Now())
		run(t, h.Run)
		for i, facts := range [][]presence.Fact{{presence.PhoneDND, presence.PhoneIdle}, {presence.PhoneConnected}, {presence.PhoneDND, presence.PhoneIdle}} {
			if err := h.Report(t.Context(), about(extension(i), facts...)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all, one []string
		var wg sync.WaitGroup
		watch := func(seen *[]string, who ...presence.ID) {
			wg.Go(func() {
				for s := range h.Watch(ctx, who...) {
					*seen = append(*seen, fmt.Sprintf("%s %s %s", s.Person, s.Availability, s.Why.Rule))
				}
			})
		}
		watch(&all)
		watch(&one, "cat")
		synctest.Wait()
		slices.Sort(all)
		if d := cmp.Diff([]string{"ann dnd phone-dnd", "ben busy on-the-phone", "cat dnd phone-dnd"}, all); d != "" {
			t.Fatal(d)
		}

		all, one = nil, nil
		h.SetPolicy(sendAllCalls("channel"), time.Now())
		synctest.Wait()
		slices.Sort(all)
		if d := cmp.Diff([]string{"ann available phone-idle", "cat available phone-idle"}, all); d != "" {
			t.Errorf("who watches everybody: %s", d)
		}
		if d := cmp.Diff([]string{"cat available phone-idle"}, one); d != "" {
			t.Errorf("who watches one: %s", d)
		}
		if e, _ := h.Explain("ann", time.Time{}); e.State.Why.Rule != "phone-idle" {
			t.Errorf("explained by rule %s", e.State.Why.Rule)
		}

		all, one = nil, nil
		h.SetPolicy(sendAllCalls("channel"), time.Now()) // the same again
		synctest.Wait()
		if len(all)+len(one) > 0 {
			t.Errorf("the same policy changed %v, %v", all, one)
		}

		// The watchers are still there, and new people are decided by the new policy.
		h.SetDirectory(office("ann", "ben", "cat", "dan"), time.Now())
		synctest.Wait()
		if err := h.Report(ctx, about(extension(3), presence.PhoneDND, presence.PhoneIdle)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d := cmp.Diff([]string{"dan unknown unknown", "dan available phone-idle"}, all); d != "" {
			t.Error(d)
		}
		cancel()
		wg.Wait()
	})
}

// A time that only the new policy has is kept, though no report comes.
func TestSetPolicyMovesTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann"), time.Now())
		run(t, h.Run)
		began := time.Now()
		if err := h.Report(t.Context(), about(extension(0), presence.PhoneConnected)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		slow := presence.DefaultPolicy()
		slow.Delay[presence.PhoneConnected], slow.Meanwhile[presence.PhoneConnected] = 5*time.Minute, presence.Facts(presence.PhoneIdle)
		h.SetPolicy(slow, time.Now())
		if s, _ := h.State("ann"); s.Availability != presence.Available || !s.Since.Equal(began.Add(time.Minute)) {
			t.Errorf("after the change: %+v", s)
		}
		time.Sleep(4*time.Minute + time.Second)
		if s, _ := h.State("ann"); s.Availability != presence.Busy || !s.Since.Equal(began.Add(5*time.Minute)) {
			t.Errorf("five minutes into the call: %+v", s)
		}
	})
}

// A moment that comes earlier by the new policy is not missed, though at the time
// of the change nobody sees a difference.
func TestSetPolicyBringsMomentForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann"), time.Now())
		run(t, h.Run)
		began := time.Now()
		r := about(extension(0), presence.PhoneIdle, presence.AutoReply)
		r.Spans = append(r.Spans, presence.Span{Fact: presence.PhoneConnected, From: began.Add(-time.Minute), Until: began})
		if err := h.Report(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(65 * time.Second)
		before, _ := h.State("ann")
		k := presence.DefaultSetting()
		k.Recent = 70 * time.Second
		h.SetPolicy(k.Policy(), time.Now())
		if after, _ := h.State("ann"); after.Revision != before.Revision || after.Availability != presence.Available {
			t.Fatalf("the change itself is seen: %+v", after)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if s, _ := h.State("ann"); s.Availability != presence.OutOfOffice || !s.Since.Equal(began.Add(70*time.Second)) {
			t.Errorf("%+v", s)
		}
	})
}

// After a change the states are those of a core that had the policy all along.
func TestSetPolicyForgetsTheOld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := []string{"dnd", "busy", "channel"}
		before, after := sendAllCalls(rapid.SampledFrom(words).Draw(t, "before")), sendAllCalls(rapid.SampledFrom(words).Draw(t, "after"))
		changed, fresh := aggregator.NewCore(before), aggregator.NewCore(after)
		seen := map[presence.ID]presence.State{}
		for i := range 5 {
			id := presence.ID(fmt.Sprint("p", i))
			r := phone(eight)
			for range rapid.IntRange(0, 3).Draw(t, "spans") {
				from := eight.Add(time.Duration(rapid.IntRange(-600, 600).Draw(t, "from")) * time.Second)
				r.Spans = append(r.Spans, presence.Span{Fact: presence.Fact(rapid.IntRange(0, int(presence.Fault)).Draw(t, "fact")), From: from, Until: from.Add(5 * time.Minute)}) //nolint:gosec // small
			}
			for _, c := range []*aggregator.Core{changed, fresh} {
				c.Enter(id, eight)
				c.Accept(id, r, eight)
			}
			seen[id], _ = changed.State(id)
		}
		for _, s := range changed.SetPolicy(after, eight) {
			last := seen[s.Person]
			if s.Same(&last) || s.Revision != last.Revision+1 {
				t.Fatalf("no change, or one too many:\n%+v\n%+v", last, s)
			}
			seen[s.Person] = s
		}
		fresh.Each(func(want presence.State) {
			if got := seen[want.Person]; !got.Same(&want) {
				t.Fatalf("got %+v\nwant %+v", got, want)
			}
		})
		if !changed.Next().Equal(fresh.Next()) {
			t.Fatalf("next %s, want %s", changed.Next(), fresh.Next())
		}
	})
}

// Health shows what the supervisor does not run.
func TestAddStatus(t *testing.T) {
	h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
	v := aggregator.NewSupervisor(h, quiet)
	status := presence.Status{Phase: presence.PhaseLive}
	v.AddStatus("policy", aggregator.KindPolicy, func() presence.Status { return status })
	if all := v.Health(); len(all) != 1 || all[0].Name != "policy" || all[0].Kind != aggregator.KindPolicy || all[0].Phase != presence.PhaseLive {
		t.Errorf("%+v", all)
	}
	status = presence.Status{Phase: presence.PhaseDegraded, LastError: "bad table"}
	if all := v.Health(); all[0].Phase != presence.PhaseDegraded || all[0].LastError != "bad table" {
		t.Errorf("%+v", all)
	}
}
