package access_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"presenced/aggregator/access"
	"presenced/aggregator/presence"
)

var (
	allWatchers = []string{"jid:ann@example.com", "jid:ben@example.com", "sip:ben@example.com", "jid:cat@example.com", "jid:eve@x.org", "jid:eve@example.com", "service:hq"}
	allPeople   = []presence.ID{"ann", "ben", "cat"}
)

func drawAudience(t *rapid.T) access.Audience {
	a := access.Audience{Kind: access.Kind(rapid.IntRange(0, int(access.ForDefault)).Draw(t, "kind"))}
	switch a.Kind {
	case access.ForWatcher:
		a.Name = rapid.SampledFrom(append([]string{"id:ben", "id:cat"}, allWatchers...)).Draw(t, "watcher")
	case access.ForGroup:
		a.Name = rapid.SampledFrom([]string{"sales", "managers"}).Draw(t, "group")
	case access.ForDomain:
		a.Name = rapid.SampledFrom([]string{"example.com", "x.org"}).Draw(t, "domain")
	default:
	}
	return a
}

func drawRule(t *rapid.T) access.Rule {
	return access.Rule{
		Of: rapid.SampledFrom(append([]presence.ID{""}, allPeople...)).Draw(t, "of"), For: drawAudience(t),
		Level: presence.Level(rapid.IntRange(0, int(presence.LevelFull)).Draw(t, "level")), Urgent: rapid.Bool().Draw(t, "urgent"),
	}
}

// drawSite makes a gate with some rules.
func drawSite(t *rapid.T, tb testing.TB) *site {
	s := open(tb, nil, func(c *access.Config) {
		c.Default = rapid.SampledFrom([]string{"block", "confirm", "telephony", "status", "full"}).Draw(t, "default")
		c.OptIn = rapid.Bool().Draw(t, "opt_in")
	})
	for _, r := range rapid.SliceOfN(rapid.Custom(drawRule), 0, 12).Draw(t, "rules") {
		if err := s.Set(tb.Context(), admin, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range allPeople {
		if rapid.Bool().Draw(t, "opted in") {
			if err := s.OptIn(tb.Context(), admin, id, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

type pair struct {
	watcher string
	of      presence.ID
}

func (s *site) all() map[pair]presence.Access {
	all := map[pair]presence.Access{}
	for _, w := range allWatchers {
		for _, of := range allPeople {
			all[pair{w, of}] = s.Access(by(w), of)
		}
	}
	return all
}

// concerns tells whether a rule is for a watcher, independently of the code.
func concerns(r access.Rule, w string) bool {
	person := map[string]string{"jid:ann@example.com": "ann", "jid:ben@example.com": "ben", "sip:ben@example.com": "ben", "jid:cat@example.com": "cat"}[w]
	switch r.For.Kind {
	case access.ForWatcher:
		return r.For.Name == w || r.For.Name == "id:"+person
	case access.ForGroup:
		return person == "ben" || person == "cat" && r.For.Name == "sales"
	case access.ForDomain:
		return strings.HasSuffix(w, "@"+r.For.Name)
	default:
		return true
	}
}

// A change of a rule changes nothing but for the watchers and of the people that it
// is about, and Follow finds nothing left to tell.
func TestRulesAreApart(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSite(rt, t)
		for _, w := range allWatchers {
			s.Admit(by(w), "ann")
		}
		before := s.all()
		r := drawRule(rt)
		var err error
		if rapid.Bool().Draw(rt, "clear") {
			err = s.Clear(t.Context(), admin, r.Of, r.For)
		} else {
			err = s.Set(t.Context(), admin, r)
		}
		if err != nil {
			rt.Fatal(err)
		}
		for p, after := range s.all() {
			if after != before[p] && (!concerns(r, p.watcher) || r.Of != "" && r.Of != p.of) {
				rt.Fatalf("%+v changes what %s sees of %s: %+v -> %+v", r, p.watcher, p.of, before[p], after)
			}
		}
		s.told()
		if s.Follow(); s.told() != "" {
			rt.Fatal("a change of a rule was not seen by those who watch")
		}
	})
}

// A rule that blocks never shows anybody more.
func TestBlockShowsNoMore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSite(rt, t)
		r := drawRule(rt)
		r.Level, r.Urgent = presence.LevelBlock, false
		for _, rule := range mustSettings(t, s) {
			if rule.Of == r.Of && rule.For == r.For {
				return // it takes the place of another one
			}
		}
		before := s.all()
		if err := s.Set(t.Context(), admin, r); err != nil {
			rt.Fatal(err)
		}
		for p, after := range s.all() {
			was := before[p]
			if after.Level > was.Level || after.Calendar > was.Calendar || after.Urgent && !was.Urgent {
				rt.Fatalf("%+v shows %s more of %s: %+v -> %+v", r, p.watcher, p.of, was, after)
			}
		}
	})
}

func mustSettings(t *testing.T, s *site) (rules []access.Rule) {
	t.Helper()
	all, err := s.Settings()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		rules = append(rules, one.Rules...)
	}
	return rules
}

// After Revoke a watcher sees nothing; only that watcher, of that person, sees less.
func TestRevoke(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSite(rt, t)
		w := rapid.SampledFrom(allWatchers[1:]).Draw(rt, "watcher")
		before := s.all()
		if err := s.Revoke(t.Context(), admin, "ann", subject(t, w)); err != nil {
			rt.Fatal(err)
		}
		for p, after := range s.all() {
			if p == (pair{w, "ann"}) {
				if after.Shows() {
					rt.Fatalf("%s still sees %+v", w, after)
				}
			} else if after != before[p] {
				rt.Fatalf("%s sees %+v of %s now", p.watcher, after, p.of)
			}
		}
	})
}

// BenchmarkAccess is what a bridge asks for each watcher and state.
func BenchmarkAccess(b *testing.B) {
	for name, rules := range map[string][]string{
		"without rules": nil,
		"with rules":    {"ann/watcher id:cat/block", "ann/group staff/status", "/group managers/full", "/domain example.com/status", "/default/confirm"},
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b, nil, nil)
			s.set(b, rules...)
			w := by("jid:ben@example.com")
			b.ReportAllocs()
			for b.Loop() {
				s.Access(w, "ann")
			}
		})
	}
}

// FuzzRestore reads any record of a person: what cannot be read shows nothing, and
// what can be is read again as it was written.
func FuzzRestore(f *testing.F) {
	for _, seed := range []string{
		`{"of":"ann","rules":[{"of":"ann","for":{"kind":"watcher","name":"id:ben"},"level":"status","urgent":true,"by":"uid 1","at":"2026-11-20T10:00:00Z"}],"calendar":"times","opted_in":true}`,
		`{"of":"ann","rules":[{"of":"ann","for":{"kind":"default"},"level":"full"}]}`, `{"of":"ann","calendar":null}`, `{"of":"ann","rules":[null]}`, `{`, ``, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := open(t, &memory{held: map[string][]byte{"of.616e6e": data, "asked.616e6e": data}}, nil)
		all, err := s.Settings()
		if err != nil || len(all) != 2 {
			t.Fatalf("%v %v", all, err)
		}
		s.Pending("")
		if all[1].Broken {
			if a := s.Access(by("id:ben"), "ann"); a.Shows() {
				t.Fatalf("%q shows %+v", data, a)
			}
			return
		}
		before := s.Access(by("id:ben"), "ann")
		if err := s.Set(t.Context(), admin, access.Rule{Of: "ann", For: access.Audience{Kind: access.ForGroup, Name: "nobody is in it"}, Level: presence.LevelBlock}); err != nil {
			t.Fatal(err)
		}
		if again := open(t, s.memory, nil); again.Access(by("id:ben"), "ann") != before || s.Access(by("id:ben"), "ann") != before {
			t.Fatalf("%q: %+v before, %+v after it was written", data, before, again.Access(by("id:ben"), "ann"))
		}
	})
}
