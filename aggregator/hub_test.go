package aggregator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler) //nolint:gochecknoglobals // says nothing, changes never

// office makes a directory of people who have the extension 1 + their place.
func office(ids ...presence.ID) *directory.Directory {
	var people []presence.Person
	for i, id := range ids {
		people = append(people, presence.Person{ID: id, Name: string(id), Subjects: []presence.Subject{extension(i)}})
	}
	d, _ := directory.New(people)
	return d
}

func extension(i int) presence.Subject {
	return presence.Subject{Scheme: "tel", Value: fmt.Sprint(i + 1)}
}

func about(s presence.Subject, facts ...presence.Fact) presence.Report {
	r := presence.Report{Source: "aes", Subject: s, At: time.Now(), Grace: 30 * time.Second}
	for _, f := range facts {
		r.Spans = append(r.Spans, presence.Span{Fact: f, From: r.At})
	}
	return r
}

// run starts what runs beside a test, and stops it at the end of the test.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func TestWatchGivesStatesThenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		run(t, h.Run)
		ctx, cancel := context.WithCancel(t.Context())
		var seen []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for s := range h.Watch(ctx, "ann") {
				seen = append(seen, s.Availability.String())
			}
		}()
		synctest.Wait()
		report := func(i int, facts ...presence.Fact) {
			t.Helper()
			if err := h.Report(ctx, about(extension(i), facts...)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		report(0, presence.PhoneIdle)
		report(1, presence.PhoneConnected) // ben: not watched
		report(0, presence.PhoneConnected)
		time.Sleep(time.Minute) // virtual: a call shorter than a second would be held on to
		meeting := about(extension(0), presence.PhoneIdle)
		meeting.Spans = append(meeting.Spans, presence.Span{Fact: presence.CalendarMeeting, From: time.Now().Add(time.Hour), Until: time.Now().Add(2 * time.Hour)})
		if err := h.Report(ctx, meeting); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour) // virtual: the meeting comes and goes without a report
		cancel()
		<-done
		if want := []string{"unknown", "available", "busy", "available", "busy", "available"}; !slices.Equal(seen, want) {
			t.Errorf("%v, want %v", seen, want)
		}
	})
}

// A reader that sleeps skips states, never the newest of each person, and the
// sender never waits for it.
func TestSlowReaderSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		newest := map[presence.ID]presence.State{}
		taken := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		wake := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for s := range h.Watch(ctx) {
				taken++
				newest[s.Person] = s
				<-wake
			}
		}()
		synctest.Wait()
		for i := range 1000 {
			fact := presence.PhoneIdle
			if i%2 == 0 {
				fact = presence.PhoneConnected
			}
			if err := h.Report(ctx, about(extension(i%2), fact)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		close(wake)
		synctest.Wait()
		cancel()
		<-done
		if taken > 5 {
			t.Errorf("%d states were kept for a reader that slept", taken)
		}
		for id, got := range newest {
			if want, _ := h.State(id); got.Revision != want.Revision {
				t.Errorf("%s: the newest state is %d, the reader has %d", id, want.Revision, got.Revision)
			}
		}
		if len(newest) != 2 {
			t.Errorf("%v", newest)
		}
	})
}

func TestDirectoryChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann"), time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		var rosters [][]presence.Subject
		var gone []presence.ID
		var wg sync.WaitGroup
		wg.Go(func() {
			for subjects := range h.Subjects(ctx, "tel") {
				rosters = append(rosters, subjects)
			}
		})
		wg.Go(func() {
			for s := range h.Watch(ctx) {
				if s.Why.Rule == presence.RuleRemoved {
					gone = append(gone, s.Person)
				}
			}
		})
		synctest.Wait()
		if err := h.Report(ctx, about(extension(0), presence.PhoneConnected)); err != nil {
			t.Fatal(err)
		}
		h.SetDirectory(office("ann", "ben"), time.Now())
		synctest.Wait()
		h.SetDirectory(office("ann", "ben"), time.Now()) // the same again: no new roster
		synctest.Wait()
		h.SetDirectory(office("ben"), time.Now()) // ann left, and ben has her extension
		synctest.Wait()
		if s, _ := h.State("ben"); s.Availability != presence.Unknown {
			t.Errorf("ben got the call of ann: %s", s.Availability)
		}
		if err := h.Report(ctx, about(extension(1), presence.PhoneIdle)); err == nil {
			t.Error("a report about nobody was taken")
		}
		cancel()
		wg.Wait()
		if len(rosters) != 3 || len(rosters[1]) != 2 || len(rosters[2]) != 1 {
			t.Errorf("rosters %v", rosters)
		}
		if !slices.Equal(gone, []presence.ID{"ann"}) {
			t.Errorf("gone: %v", gone)
		}
	})
}

// Where an extension is given to somebody else, both stay: what its phone said counts
// for nobody, until the phone speaks again.
func TestExtensionChangesHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann", "ben", "cat"), time.Now())
		if err := h.Report(t.Context(), about(extension(0), presence.PhoneConnected)); err != nil {
			t.Fatal(err)
		}
		h.SetDirectory(office("ben", "ann", "cat"), time.Now())
		for _, id := range []presence.ID{"ann", "ben"} {
			if s, _ := h.State(id); s.Availability != presence.Unknown {
				t.Errorf("%s is %s by the call of an extension that changed hands", id, s.Availability)
			}
		}
		if err := h.Report(t.Context(), about(extension(0), presence.PhoneIdle)); err != nil {
			t.Fatal(err)
		}
		if s, _ := h.State("ben"); s.Availability != presence.Available {
			t.Errorf("ben is %s at the phone that is now theirs", s.Availability)
		}
	})
}

// memory is a Memory and an Archive in memory that can be told to fail.
type memory struct {
	mu    sync.Mutex
	held  map[string][]byte
	fails bool
	puts  int
}

func (m *memory) Load(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.held), nil
}

func (m *memory) Each(ctx context.Context, f func(string, []byte) error) error {
	all, err := m.Load(ctx)
	if err != nil {
		return err
	}
	return each(all, f)
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails {
		return errors.New("disk full")
	}
	if m.held == nil {
		m.held = map[string][]byte{}
	}
	m.held[key] = value
	m.puts++
	return nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.held, key)
	return nil
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, states := &memory{}, &memory{}
		first := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		_ = first
		recorder := aggregator.NewRecorder(reports, states, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), recorder, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		stop := run(t, recorder.Run)
		began := time.Now()
		if err := h.Report(t.Context(), about(extension(0), presence.PhoneConnected)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		stop()
		states.held["nonsense"] = []byte("{") // one bad record does not keep the others from coming back

		again := aggregator.NewRecorder(reports, states, quiet)
		h = aggregator.NewHub(presence.DefaultPolicy(), again, quiet)
		h.SetDirectory(office("ann", "ben"), time.Now())
		people, err := h.Restore(t.Context(), time.Now())
		if err != nil || people != 2 {
			t.Fatalf("%d people, %v", people, err)
		}
		s, _ := h.State("ann")
		if s.Availability != presence.Busy || !s.Since.Equal(began) || !s.Overlays.Has(presence.OverlayStale) {
			t.Errorf("%+v", s)
		}
		run(t, h.Run)
		time.Sleep(31 * time.Second)
		if s, _ := h.State("ann"); s.Availability != presence.Unavailable {
			t.Errorf("a call that nobody confirms lasts beyond the grace: %s", s.Availability)
		}
	})
}

// While the store is down presence goes on; when it is back, it has the newest.
func TestStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, states := &memory{fails: true}, &memory{fails: true}
		recorder := aggregator.NewRecorder(reports, states, quiet)
		h := aggregator.NewHub(presence.DefaultPolicy(), recorder, quiet)
		h.SetDirectory(office("ann"), time.Now())
		run(t, recorder.Run)
		for range 100 {
			for _, f := range []presence.Fact{presence.PhoneIdle, presence.PhoneConnected} {
				if err := h.Report(t.Context(), about(extension(0), f)); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		if s := recorder.Status(); s.Phase != presence.PhaseDegraded || s.LastError == "" {
			t.Errorf("%+v", s)
		}
		for _, m := range []*memory{reports, states} {
			m.mu.Lock()
			m.fails = false
			m.mu.Unlock()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := recorder.Status(); s.Phase != presence.PhaseLive {
			t.Errorf("%+v", s)
		}
		if reports.puts != 1 || states.puts != 1 {
			t.Errorf("%d and %d writes of what changed 200 times while the store was down", reports.puts, states.puts)
		}
		var kept presence.State
		for _, data := range states.held {
			if err := json.Unmarshal(data, &kept); err != nil {
				t.Fatal(err)
			}
		}
		if kept.Availability != presence.Busy {
			t.Errorf("kept %s", kept.Availability)
		}
	})
}

// source is a Source whose runs are scripted.
type source struct {
	runs  []func(ctx context.Context, emit func(presence.Report) error) error
	begun atomic.Int32
}

func (s *source) Name() string { return "aes" }

func (s *source) Run(ctx context.Context, _ presence.Roster, emit func(presence.Report) error) error {
	return s.runs[min(int(s.begun.Add(1)), len(s.runs))-1](ctx, emit)
}

func TestSupervisor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := aggregator.NewHub(presence.DefaultPolicy(), nil, quiet)
		h.SetDirectory(office("ann"), began)
		refused := errors.New("refused")
		src := &source{runs: []func(context.Context, func(presence.Report) error) error{
			func(context.Context, func(presence.Report) error) error { return refused },
			func(_ context.Context, emit func(presence.Report) error) error {
				if err := emit(about(presence.Subject{Scheme: "tel", Value: "nobody"})); err != nil {
					return fmt.Errorf("a stranger ended the source: %w", err)
				}
				if err := emit(about(extension(0), presence.PhoneConnected)); err != nil {
					return err
				}
				panic("oops")
			},
			func(context.Context, func(presence.Report) error) error {
				return presence.Permanent(errors.New("wrong password"))
			},
			func(ctx context.Context, _ func(presence.Report) error) error { <-ctx.Done(); return ctx.Err() },
		}}
		v := aggregator.NewSupervisor(h, quiet)
		v.AddSource(src)
		run(t, h.Run)
		run(t, v.Run)
		health := func() aggregator.Health { return v.Health()[0] }
		synctest.Wait()
		if s := health(); s.Phase != presence.PhaseConnecting || s.LastError != "refused" || s.NextTry.IsZero() {
			t.Errorf("after a refusal: %+v", s)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s, _ := h.State("ann"); s.Availability != presence.Busy || !s.Overlays.Has(presence.OverlayStale) {
			t.Errorf("after the source was lost: %+v", s)
		}
		if s := health(); s.Phase != presence.PhaseDegraded || s.Reports != 2 {
			t.Errorf("after a panic: %+v", s)
		}
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if s := health(); s.Phase != presence.PhaseStale || s.LastError != "wrong password" {
			t.Errorf("after the grace: %+v", s)
		}
		if s, _ := h.State("ann"); s.Availability != presence.Unavailable {
			t.Errorf("after the grace: %s", s.Availability)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if n := src.begun.Load(); n != 3 {
			t.Errorf("a wrong password was tried %d times in five minutes", n-2)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s := health(); src.begun.Load() != 4 || s.Phase != presence.PhaseLive {
			t.Errorf("%d runs, %+v", src.begun.Load(), s)
		}
	})
}
