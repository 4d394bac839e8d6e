package aggregator_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// A watcher who stops reading gets, of each of many people who then change more than
// once, the newest state, and gets it once.
func TestSlowWatcherOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const people = 1500
		ids := make([]presence.ID, people)
		for i := range ids {
			ids[i] = presence.ID(fmt.Sprint("p", i))
		}
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office(ids...), time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resume := make(chan struct{})
		got := map[presence.ID]int{}
		seen := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for s := range h.Watch(ctx) {
				if seen++; seen == people {
					<-resume
				}
				if seen <= people {
					continue
				}
				got[s.Person]++
				if s.Activity != presence.ActivityPhone {
					t.Errorf("%s comes as %q", s.Person, s.Activity)
				}
			}
		}()
		synctest.Wait()
		for _, fact := range []presence.Fact{presence.PhoneIdle, presence.PhoneHeld, presence.PhoneConnected} {
			for i := range ids {
				if err := h.Report(ctx, about(extension(i), fact)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		close(resume)
		synctest.Wait()
		cancel()
		<-done
		if len(got) != people {
			t.Errorf("%d of %d came", len(got), people)
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
	})
}
