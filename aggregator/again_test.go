package aggregator_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/presence"
)

// Again gives the same state once more to whoever watches, and writes nothing down.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := &memory{}
		recorder := aggregator.NewRecorder(&memory{}, states, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), recorder, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		run(t, recorder.Run)
		ctx, cancel := context.WithCancel(t.Context())
		seen := map[string][]uint64{} // revisions by watcher and person
		var watching sync.WaitGroup
		var mu sync.Mutex
		watch := func(name string, who ...presence.ID) {
			watching.Go(func() {
				for s := range h.Watch(ctx, who...) {
					mu.Lock()
					seen[name+" of "+string(s.Person)] = append(seen[name+" of "+string(s.Person)], s.Revision)
					mu.Unlock()
				}
			})
		}
		watch("all")
		watch("one", "ann")
		synctest.Wait()
		written := states.puts
		h.Again("ann", "nobody")
		synctest.Wait()
		h.Again()
		synctest.Wait()
		cancel()
		watching.Wait()
		for who, want := range map[string]int{"all of ann": 3, "all of ben": 2, "one of ann": 3, "one of ben": 0} {
			if got := seen[who]; len(got) != want || len(slices.Compact(got)) > 1 {
				t.Errorf("%s came with the revisions %v, want one revision %d times", who, got, want)
			}
		}
		if states.puts != written {
			t.Error("a state that did not change was written")
		}
	})
}
