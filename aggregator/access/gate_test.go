package access_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
)

// run runs s until the test, or stop, ends it.
func (s *site) run(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

// TestRestart finds rules, privacy and requests again.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil, nil)
		s.set(t, "ann/watcher id:ben/status!", "/default/confirm", "ann/group sales/block")
		if err := s.SetCalendar(t.Context(), admin, "ann", presence.CalendarTimes); err != nil {
			t.Fatal(err)
		}
		stop := s.run(t)
		s.Admit(by("jid:eve@x.org"), "ann")
		since := s.Pending("ann")[0].Since
		time.Sleep(time.Minute)
		s.Admit(by("jid:eve@x.org/phone"), "ann") // again: the same request
		s.Dismiss(by("jid:eve@x.org"), "ann")     // the request stays
		if all := s.Watchers("ann"); len(all) != 1 || all[0].Watcher != "jid:eve@x.org/phone" {
			t.Errorf("%+v watch", all)
		}
		synctest.Wait()
		stop()

		again := open(t, s.memory, nil)
		before, _ := s.Settings()
		after, _ := again.Settings()
		if fmt.Sprint(before) != fmt.Sprint(after) || len(after) != 2 {
			t.Errorf("%v\n%v", before, after)
		}
		if got := again.level("jid:ben@example.com"); got != "status!" {
			t.Errorf("ben sees %s", got)
		}
		p := again.Pending("")
		if len(p) != 1 || p[0].Of != "ann" || p[0].Watcher.String() != "jid:eve@x.org" || !p[0].Since.Equal(since) || p[0].Via != "xmpp" {
			t.Errorf("%+v", p)
		}
		if len(again.Watchers("ann")) != 0 {
			t.Errorf("%+v", again.Watchers("ann"))
		}
	})
}

// TestRefused changes nothing while the store or the trail takes nothing.
func TestRefused(t *testing.T) {
	s := open(t, nil, nil)
	s.set(t, "ann/watcher id:ben/status")
	s.told()
	s.memory.set(func(m *memory) { m.full = true })
	for name, change := range map[string]func() error{
		"set":     func() error { return s.Set(t.Context(), admin, rule(t, "ann/watcher id:ben/block")) },
		"clear":   func() error { return s.Clear(t.Context(), admin, "ann", audience(t, "watcher id:ben")) },
		"allow":   func() error { return s.Allow(t.Context(), admin, "ann", subject(t, "ben"), presence.LevelFull) },
		"deny":    func() error { return s.Deny(t.Context(), admin, "ann", subject(t, "ben")) },
		"revoke":  func() error { return s.Revoke(t.Context(), admin, "ann", subject(t, "ben")) },
		"privacy": func() error { return s.SetCalendar(t.Context(), admin, "ann", presence.CalendarHidden) },
		"opt-in":  func() error { return s.OptIn(t.Context(), admin, "ann", true) },
		"forget":  func() error { return s.Forget(t.Context(), admin, "ann") },
	} {
		if err := change(); !errors.Is(err, access.ErrNotKept) || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%s: %v", name, err)
		}
		if lines := s.lines.last(2); strings.Count(lines, `"what":"access `+name+`"`) != 2 || !strings.Contains(lines, "failed: ") {
			t.Errorf("%s: %s", name, lines)
		}
	}
	s.memory.set(func(m *memory) { m.full = false })
	s.lines.full = true
	if err := s.Set(t.Context(), admin, rule(t, "ann/watcher id:ben/block")); !errors.Is(err, audit.ErrUnwritten) {
		t.Errorf("without a trail: %v", err)
	}
	if got := s.level("id:ben"); got != "status" || s.told() != "" {
		t.Errorf("refused, and yet %s", got)
	}
	if again := open(t, s.memory, nil); again.level("id:ben") != "status" {
		t.Error("refused, and yet kept")
	}
}

// TestNoAnswer repairs the store after a write that was refused and arrived.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil, nil)
		s.set(t, "ann/watcher id:ben/block")
		s.memory.set(func(m *memory) { m.deaf = true })
		if err := s.Set(t.Context(), admin, rule(t, "ann/watcher id:ben/full")); !errors.Is(err, access.ErrNotKept) {
			t.Error(err)
		}
		if st := s.Status(); st.Phase != presence.PhaseDegraded || !strings.Contains(st.LastError, "no answer") {
			t.Errorf("%+v", st)
		}
		if wrong := open(t, s.memory, nil); wrong.level("id:ben") != "full" {
			t.Fatal("the write did not arrive: this test shows nothing")
		}
		s.run(t) // tries, and is not answered either
		synctest.Wait()
		s.memory.set(func(m *memory) { m.deaf = false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if again := open(t, s.memory, nil); again.level("id:ben") != "block" {
			t.Error("what was refused is kept")
		}
		if st := s.Status(); st.Phase != presence.PhaseLive || st.Detail != "1 rules, 0 requests wait" {
			t.Errorf("%+v", st)
		}
	})
}

// TestUnread shows nobody to anybody but themselves until the rules are read.
func TestUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := open(t, nil, nil)
		first.set(t, "ann/watcher id:cat/block")
		s := newSite(t, first.memory, nil)
		s.memory.set(func(m *memory) { m.dark = true })
		if err := s.Restore(t.Context()); err == nil {
			t.Error("restored from a store that cannot be read")
		}
		s.run(t)
		hidden := presence.Access{Unknown: true}
		for _, w := range []string{"id:ben", "id:cat", "service:hq"} {
			if got := s.Admit(by(w), "ann"); got != hidden {
				t.Errorf("%s sees %+v", w, got)
			}
		}
		if got := s.Access(by("jid:ann@example.com"), "ann"); got != presence.Everyone() {
			t.Errorf("ann sees %+v of herself", got)
		}
		if err := s.Set(t.Context(), admin, rule(t, "ann/default/full")); !errors.Is(err, access.ErrUnread) || !errors.Is(err, access.ErrNotKept) {
			t.Error(err)
		}
		if _, err := s.Settings(); !errors.Is(err, access.ErrUnread) {
			t.Error(err)
		}
		if st := s.Status(); st.Phase != presence.PhaseDegraded || !strings.Contains(st.Detail, "nobody is shown") || st.LastError == "" {
			t.Errorf("%+v", st)
		}
		if e := s.Explain(subject(t, "ben"), "ann"); !strings.Contains(e.Decides, "cannot be read yet") {
			t.Error(e.Decides)
		}
		s.Follow()
		if s.told() != "" {
			t.Error("told of nothing new")
		}
		s.memory.set(func(m *memory) { m.dark = false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s.level("id:ben") != "full" || s.level("id:cat") != "block" || s.told() != "*" {
			t.Errorf("ben sees %s, cat %s", s.level("id:ben"), s.level("id:cat"))
		}
	})
}

// TestBroken shows nobody whose record cannot be read, until it is forgotten; the
// others are not touched.
func TestBroken(t *testing.T) {
	const ofAnn, annAsked = "of.616e6e", "asked.616e6e"
	good := open(t, nil, nil)
	good.set(t, "ann/watcher id:ben/block", "/default/status")
	for name, damage := range map[string]string{
		"no JSON": "{", "twice the same": `{"of":"ann"}{"of":"ann"}`, "a later version": `{"of":"ann","until":"2027"}`, "of somebody else": `{"of":"ben"}`, "no such level": `{"of":"ann","rules":[{"of":"ann","for":{"kind":"default"},"level":"all","by":"x","at":"2026-11-20T10:00:00Z"}]}`,
		"no audience": `{"of":"ann","rules":[{"of":"ann","for":{},"level":"full"}]}`, "a rule of nobody": `{"of":"ann","rules":[null]}`,
		"twice": `{"of":"ann","rules":[{"of":"ann","for":{"kind":"default"},"level":"full"},{"of":"ann","for":{"kind":"default"},"level":"block"}]}`,
	} {
		kept := &memory{held: map[string][]byte{ofAnn: []byte(damage), annAsked: []byte("nonsense"), "strange": nil, "everybody": good.memory.held["everybody"]}}
		s := open(t, kept, nil)
		for _, w := range []string{"id:ben", "id:cat"} {
			if got := s.Access(by(w), "ann"); got != (presence.Access{Unknown: true}) {
				t.Errorf("%s: %s sees %+v", name, w, got)
			}
		}
		if got := s.Access(by("id:ann"), "ben"); got.Level != presence.LevelStatus {
			t.Errorf("%s: of ben %+v", name, got)
		}
		if st := s.Status(); st.Phase != presence.PhaseDegraded || st.Problems["rules that cannot be read"] != 1 {
			t.Errorf("%s: %+v", name, st)
		}
		if err := s.Set(t.Context(), admin, rule(t, "ann/default/full")); !errors.Is(err, access.ErrUnfit) || !strings.Contains(err.Error(), "access forget") {
			t.Errorf("%s: %v", name, err)
		}
		if string(kept.held[ofAnn]) != damage {
			t.Errorf("%s: what cannot be read was changed", name)
		}
		if err := s.Forget(t.Context(), admin, "ann"); err != nil || s.level("id:ben") != "status" || kept.held[ofAnn] != nil {
			t.Errorf("%s: forgotten, %v: %s", name, err, s.level("id:ben"))
		}
	}
	synctest.Test(t, func(t *testing.T) { // a refused Forget is not made good by a repair
		kept := &memory{held: map[string][]byte{ofAnn: []byte("{")}}
		s := open(t, kept, nil)
		s.run(t)
		kept.set(func(m *memory) { m.full = true })
		if err := s.Forget(t.Context(), admin, "ann"); !errors.Is(err, access.ErrNotKept) {
			t.Error(err)
		}
		kept.set(func(m *memory) { m.full = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		if s.level("id:ben") != "block" || string(kept.held[ofAnn]) != "{" {
			t.Errorf("ben sees %s; kept is %q", s.level("id:ben"), kept.held[ofAnn])
		}
	})
	s := open(t, &memory{held: map[string][]byte{"everybody": []byte("[]")}}, nil)
	if s.level("id:ben") != "block" || s.Status().Phase != presence.PhaseDegraded {
		t.Errorf("without the rules for everybody ben sees %s", s.level("id:ben"))
	}
	if err := s.Forget(t.Context(), admin, ""); err != nil || s.level("id:ben") != "full" {
		t.Errorf("%v, ben sees %s", err, s.level("id:ben"))
	}
}

// TestRequests follows watchers who ask to be let in.
func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil, nil)
		s.run(t)
		pending := func() string {
			var all []string
			for _, p := range s.Pending("") {
				all = append(all, string(p.Of)+"<"+p.Watcher.String())
			}
			return strings.Join(all, " ")
		}
		want := func(when, list string) {
			t.Helper()
			if got := pending(); got != list {
				t.Errorf("%s: %s, want %s", when, got, list)
			}
			time.Sleep(time.Second) // who comes later has waited less
		}
		s.Admit(by("jid:ben@example.com"), "ann")
		s.Access(by("jid:x@x.org"), "ann") // a look is no request
		want("nobody has to ask", "")
		s.set(t, "ann/default/confirm")
		want("who watches already", "ann<jid:ben@example.com")
		if got := s.Admit(by("jid:cat@example.com"), "ann"); got.Level != presence.LevelConfirm {
			t.Errorf("cat sees %+v", got)
		}
		s.Admit(by("jid:eve@x.org"), "ann")
		want("who comes", "ann<jid:ben@example.com ann<jid:cat@example.com ann<jid:eve@x.org")
		s.told()
		if err := s.Allow(t.Context(), admin, "ann", subject(t, "jid:ben@example.com"), presence.LevelStatus); err != nil {
			t.Fatal(err)
		}
		if err := s.Deny(t.Context(), admin, "ann", subject(t, "jid:eve@x.org")); err != nil {
			t.Fatal(err)
		}
		want("decided", "ann<jid:cat@example.com")
		if s.level("jid:ben@example.com") != "status" || s.level("jid:eve@x.org") != "block" || s.told() != "ann ann" {
			t.Errorf("ben sees %s, eve %s", s.level("jid:ben@example.com"), s.level("jid:eve@x.org"))
		}
		if err := s.Revoke(t.Context(), admin, "ann", subject(t, "jid:ben@example.com")); err != nil {
			t.Fatal(err)
		}
		want("revoked: asks again", "ann<jid:cat@example.com ann<jid:ben@example.com")
		var list []string
		for _, w := range s.Watchers("ann") {
			list = append(list, w.Watcher+"="+w.Level.String())
		}
		if got := strings.Join(list, " "); got != "jid:ben@example.com=confirm jid:cat@example.com=confirm jid:eve@x.org=block" {
			t.Error(got)
		}
		s.set(t, "ann/group sales/full") // ben and cat
		want("a group was let in", "")
		if err := s.Revoke(t.Context(), admin, "ann", subject(t, "jid:ben@example.com")); err != nil || s.level("jid:ben@example.com") != "block" {
			t.Errorf("revoked from a group, %v: %s", err, s.level("jid:ben@example.com"))
		}
		if err := s.Clear(t.Context(), admin, "ann", audience(t, "watcher jid:ben@example.com")); err != nil || s.level("jid:ben@example.com") != "full" {
			t.Errorf("cleared, %v: %s", err, s.level("jid:ben@example.com"))
		}
	})
}

// TestTooManyRequests bounds what strangers can have kept.
func TestTooManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil, nil)
		s.run(t)
		s.set(t, "/default/confirm")
		for i := range access.MaxRequests + 7 {
			w := by(fmt.Sprintf("jid:%s%d@x.org", strings.Repeat("<", access.MaxName-20), i)) // the longest that JSON can make of it
			if got := s.Admit(w, "ann"); got.Level != presence.LevelConfirm {
				t.Fatalf("%d: %+v", i, got)
			}
		}
		s.Admit(by("jid:"+strings.Repeat("x", 5000)), "ben")
		s.Admit(by("jid:eve\u0000@x.org"), "ben")
		s.Admit(by("jid:eve@x.org"), "nobody")
		if w := s.Watchers("ben"); len(w) != 2 || w[0].Watcher != `"jid:eve\x00@x.org"` {
			t.Errorf("%.100v", w)
		}
		synctest.Wait()
		if got := len(s.Pending("")); got != access.MaxRequests || s.Status().Problems["requests without room"] != 10 {
			t.Errorf("%d requests, %+v", got, s.Status())
		}
		if again := open(t, s.memory, nil); len(again.Pending("ann")) != access.MaxRequests {
			t.Errorf("%d are kept", len(again.Pending("ann")))
		}
		if err := s.Forget(t.Context(), admin, "ann"); err != nil {
			t.Fatal(err)
		}
		if got := len(s.Pending("ann")); got != access.MaxRequests { // of those who still watch
			t.Errorf("%d ask again", got)
		}
	})
}

// TestTooManyRequestsOfAll bounds what strangers can have kept of everybody together.
func TestTooManyRequestsOfAll(t *testing.T) {
	s := open(t, nil, nil)
	s.set(t, "/default/confirm")
	var people []presence.Person
	for i := range access.MaxAllRequests/access.MaxRequests + 1 {
		people = append(people, presence.Person{ID: presence.ID(fmt.Sprint(i))})
	}
	s.people.set(t, people...)
	for _, p := range people {
		for i := range access.MaxRequests {
			s.Admit(by(fmt.Sprintf("jid:%d@x.org", i)), p.ID)
		}
	}
	if n := len(s.Pending("")); n != access.MaxAllRequests || s.Status().Problems["requests without room"] != access.MaxRequests {
		t.Errorf("%d requests, %+v", n, s.Status())
	}
}

// TestFollow tells of whom watchers see something else by another directory, and of
// nobody else.
func TestFollow(t *testing.T) {
	s := open(t, nil, nil)
	s.set(t, "ann/group sales/block", "ben/group sales/block", "ann/group new/confirm")
	s.Admit(by("jid:eve@x.org"), "ann")
	s.Admit(by("jid:eve@x.org"), "cat")
	s.told()
	s.Follow()
	if got := s.told(); got != "" {
		t.Errorf("nothing changed, and %s is told", got)
	}
	people := append(staff(), presence.Person{ID: "eve", Groups: []string{"new"}, Subjects: []presence.Subject{{Scheme: "jid", Value: "eve@x.org"}}})
	s.people.set(t, people...)
	s.Follow()
	if got := s.told(); got != "ann" || len(s.Pending("ann")) != 1 {
		t.Errorf("%s is told, %v", got, s.Pending("ann"))
	}
	s.people.set(t) // it failed: nothing opens but what groups closed, and what was set stays
	s.Follow()
	if all, _ := s.Settings(); len(all) != 3 || !all[1].Left {
		t.Errorf("%+v", all)
	}
	if err := s.Clear(t.Context(), admin, "ann", audience(t, "group sales")); err != nil {
		t.Errorf("of somebody who left: %v", err)
	}
}

// TestRoom refuses more rules than the store takes in a value.
func TestRoom(t *testing.T) {
	group := func(i int) access.Audience {
		return access.Audience{Kind: access.ForGroup, Name: fmt.Sprintf("%s%04d", strings.Repeat("x", 500), i)}
	}
	var rules []string
	for i := range 850 {
		rules = append(rules, fmt.Sprintf(`{"of":"ann","for":{"kind":"group","name":%q},"level":"full","by":"x","at":"2026-11-20T10:00:00Z"}`, group(i).Name))
	}
	s := open(t, &memory{held: map[string][]byte{"of.616e6e": []byte(`{"of":"ann","rules":[` + strings.Join(rules, ",") + `]}`)}}, nil)
	for i := 850; i < 900; i++ {
		switch err := s.Set(t.Context(), admin, access.Rule{Of: "ann", For: group(i), Level: presence.LevelFull}); {
		case errors.Is(err, access.ErrUnfit) && i > 850:
			return
		case err != nil:
			t.Fatalf("rule %d: %v", i, err)
		}
	}
	t.Errorf("%d bytes are kept", len(s.memory.held["of.616e6e"]))
}

// TestMeanwhile asks while rules change; it is for the race detector.
func TestMeanwhile(t *testing.T) {
	s := open(t, nil, nil)
	s.run(t)
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for i := range 4 {
		asking.Go(func() {
			w := by(fmt.Sprintf("jid:w%d@example.com", i))
			for ctx.Err() == nil {
				switch a := s.Access(w, "ann"); a.Level {
				case presence.LevelFull, presence.LevelBlock, presence.LevelConfirm:
				default:
					t.Errorf("%+v", a)
				}
				s.Admit(w, "ann")
				s.Pending("")
				s.Watchers("ann")
				s.Dismiss(w, "ann")
				s.Follow()
				_ = s.Status()
			}
		})
	}
	var changing sync.WaitGroup
	for i := range 2 {
		changing.Go(func() {
			for n := range 100 {
				level := []string{"block", "confirm", "full"}[n%3]
				s.set(t, fmt.Sprintf("ann/watcher jid:w%d@example.com/%s", i, level), "/domain example.com/"+level)
			}
		})
	}
	changing.Wait()
	cancel()
	asking.Wait()
	if s.level("jid:w0@example.com") != "block" {
		t.Error(s.level("jid:w0@example.com"))
	}
}
