package access_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	quiet = slog.New(slog.DiscardHandler)
	admin = audit.Actor{Who: "uid 1000", From: "control socket"}
)

// A site is a gate and what stands around it.
type site struct {
	*access.Gate
	people *office
	memory *memory
	lines  *book

	mu      sync.Mutex
	changed []string // calls of changed; * is everybody
}

func (s *site) told() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.changed, " ")
	s.changed = nil
	return all
}

// newSite makes a gate over these stores, which may be those of an earlier one; edit
// may be nil.
func newSite(t testing.TB, kept *memory, edit func(*access.Config)) *site {
	t.Helper()
	c := access.Config{Default: "full", Calendar: "open", BlockView: "offline", Unread: "hide", AuditKeep: 24 * time.Hour, AuditMaxBytes: 1 << 20}
	if edit != nil {
		edit(&c)
	}
	if ps := c.Check(); len(ps) > 0 {
		t.Fatal(ps)
	}
	if kept == nil {
		kept = &memory{}
	}
	s := &site{people: &office{}, memory: kept, lines: &book{}}
	s.people.set(t, staff()...)
	s.Gate = access.New(c, s.people, kept, audit.New(s.lines, quiet), func(ids ...presence.ID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(ids) == 0 {
			s.changed = append(s.changed, "*")
		}
		for _, id := range ids {
			s.changed = append(s.changed, string(id))
		}
	}, quiet)
	return s
}

// open makes a gate that has read its store.
func open(t testing.TB, kept *memory, edit func(*access.Config)) *site {
	t.Helper()
	s := newSite(t, kept, edit)
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.told()
	return s
}

func staff() []presence.Person {
	return []presence.Person{
		{ID: "ann", Subjects: []presence.Subject{{Scheme: "jid", Value: "ann@example.com"}}},
		{ID: "ben", Subjects: []presence.Subject{{Scheme: "jid", Value: "ben@example.com"}, {Scheme: "sip", Value: "ben@example.com"}}, Groups: []string{"Sales", "Managers"}},
		{ID: "cat", Subjects: []presence.Subject{{Scheme: "jid", Value: "cat@example.com"}}, Groups: []string{"sales"}},
	}
}

// An office is a directory that can be replaced.
type office struct {
	mu sync.Mutex
	d  *directory.Directory
}

func (o *office) set(t testing.TB, people ...presence.Person) {
	t.Helper()
	d, problems := directory.New(people)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.d = d
}

func (o *office) Person(s presence.Subject) (presence.Person, bool) {
	o.mu.Lock()
	d := o.d
	o.mu.Unlock()
	return d.Find(s)
}

// memory is a Memory in memory that can be told to fail.
type memory struct {
	mu   sync.Mutex
	held map[string][]byte
	full bool // takes nothing
	deaf bool // takes it, and says that it did not
	dark bool // cannot be read

	heard func(key string, value []byte) // nil: nobody hears of what is put and deleted
}

var errFull = errors.New("disk full")

func (m *memory) set(f func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

func (m *memory) Load(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dark {
		return nil, errors.New("no server")
	}
	return maps.Clone(m.held), nil
}

func (m *memory) Put(_ context.Context, key string, value []byte) error {
	return m.change(func() { m.held[key] = value; m.tell(key, value) })
}

func (m *memory) Delete(_ context.Context, key string) error {
	return m.change(func() { delete(m.held, key); m.tell(key, nil) })
}

func (m *memory) tell(key string, value []byte) {
	if m.heard != nil {
		m.heard(key, value)
	}
}

func (m *memory) change(f func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errFull
	}
	if m.held == nil {
		m.held = map[string][]byte{}
	}
	if f(); m.deaf {
		return errors.New("no answer")
	}
	return nil
}

// book is the log of an audit trail.
type book struct {
	mu    sync.Mutex
	lines [][]byte
	full  bool
}

func (b *book) Append(_ context.Context, _ string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return errFull
	}
	b.lines = append(b.lines, value)
	return nil
}

func (b *book) Read(context.Context, string) iter.Seq2[[]byte, error] { return nil }

// last gives the newest lines.
func (b *book) last(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out strings.Builder
	for _, l := range b.lines[max(0, len(b.lines)-n):] {
		out.Write(l)
	}
	return out.String()
}

func subject(t testing.TB, text string) presence.Subject {
	t.Helper()
	s, err := access.ParseWatcher(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func by(text string) presence.Watcher {
	scheme, value, _ := strings.Cut(text, ":")
	return presence.Watcher{Subject: presence.Subject{Scheme: scheme, Value: value}, Via: "xmpp"}
}

// audience reads "watcher jid:x", "group g", "domain d" or "default".
func audience(t testing.TB, text string) access.Audience {
	t.Helper()
	kind, name, _ := strings.Cut(text, " ")
	a := access.Audience{Name: name}
	if err := a.Kind.UnmarshalText([]byte(kind)); err != nil {
		t.Fatal(err)
	}
	return a
}

// rule reads "OF/AUDIENCE/LEVEL", OF empty for everybody, LEVEL followed by ! where urgent.
func rule(t testing.TB, text string) access.Rule {
	t.Helper()
	parts := strings.SplitN(text, "/", 3)
	level, urgent := strings.CutSuffix(parts[2], "!")
	r := access.Rule{Of: presence.ID(parts[0]), For: audience(t, parts[1]), Urgent: urgent}
	if err := r.Level.UnmarshalText([]byte(level)); err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *site) set(t testing.TB, rules ...string) {
	t.Helper()
	for _, text := range rules {
		if err := s.Set(t.Context(), admin, rule(t, text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// level gives what a watcher sees of ann: the level, with ! where urgent.
func (s *site) level(watcher string) string {
	a := s.Access(by(watcher), "ann")
	if a.Urgent {
		return a.Level.String() + "!"
	}
	return a.Level.String()
}

// TestPrecedence has rules that are for one watcher at once, and says which decides.
func TestPrecedence(t *testing.T) {
	const ben = "jid:ben@example.com"
	for _, c := range []struct {
		name    string
		rules   string // separated by blanks and ;
		watcher string
		want    string
	}{
		{"no rule", "", ben, "full"},
		{"a watcher over a group", "ann/watcher jid:ben@example.com/status;ann/group sales/block", ben, "status"},
		{"a group over a domain", "ann/group sales/status;ann/domain example.com/block", ben, "status"},
		{"a domain over the default", "ann/domain example.com/telephony;ann/default/block", ben, "telephony"},
		{"the default over the system", "ann/default/status", ben, "status"},
		{"everybody's group over the person's domain", "/group sales/block;ann/domain example.com/full", ben, "block"},
		{"everybody's watcher over the person's group", "/watcher jid:ben@example.com/block;ann/group sales/full", ben, "block"},
		{"the person over everybody, watcher", "ann/watcher jid:ben@example.com/full;/watcher jid:ben@example.com/block", ben, "full"},
		{"the person over everybody, group", "ann/group sales/telephony;/group sales/block", ben, "telephony"},
		{"the person over everybody, domain", "ann/domain example.com/block;/domain example.com/full", ben, "block"},
		{"the person over everybody, default", "ann/default/full;/default/block", ben, "full"},
		{"everybody's default", "/default/block", ben, "block"},
		{"of two groups the least", "ann/group sales/full;ann/group managers/telephony", ben, "telephony"},
		{"of two groups the least, urgent is more", "ann/group sales/full!;ann/group managers/full", ben, "full"},
		{"of an address and the person the least", "ann/watcher jid:ben@example.com/full;ann/watcher id:ben/block", ben, "block"},
		{"a person by any address", "ann/watcher id:ben/block", "sip:ben@example.com", "block"},
		{"another address of the same person", "ann/watcher jid:ben@example.com/block", "sip:ben@example.com", "full"},
		{"in any spelling", "ann/watcher jid:BEN@Example.com/status", "jid:Ben@EXAMPLE.com", "status"},
		{"from any client", "ann/watcher jid:ben@example.com/block", "jid:ben@example.com/home@x.org", "block"},
		{"a group in any spelling", "ann/group SALES/status", ben, "status"},
		{"a domain in any spelling", "ann/domain @Example.COM./status", ben, "status"},
		{"a domain, not a part of one", "ann/domain example.com/block", "jid:eve@notexample.com", "full"},
		{"a domain, not one below it", "ann/domain example.com/block", "jid:eve@chat.example.com", "full"},
		{"a domain with a port", "ann/domain example.com/block", "sip:eve@example.com:5061", "block"},
		{"a domain with parameters", "ann/domain example.com/block", "sip:eve@example.com;transport=tls", "block"},
		{"an address of numbers", "ann/domain [2001:db8::1]/block", "sip:eve@[2001:db8::1]:5060", "block"},
		{"a server by its domain", "ann/domain example.com/block", "jid:example.com", "block"},
		{"a resource is no domain", "ann/domain evil.org/block", "jid:eve@example.com/a@evil.org", "full"},
		{"a service", "ann/watcher service:hq/status", "service:hq", "status"},
		{"a service has no domain", "ann/domain hq/block", "service:hq", "full"},
		{"a stranger is in no group", "ann/group sales/block", "jid:eve@example.com", "full"},
		{"of somebody else", "ben/default/block", "jid:cat@example.com", "full"},
		{"the person sees all", "ann/watcher id:ann/block;/default/block", "jid:ann@example.com", "full"},
		{"confirm", "ann/default/confirm", ben, "confirm"},
		{"urgent", "ann/watcher id:ben/full!", ben, "full!"},
		{"urgent shows nothing of a phone", "ann/watcher id:ben/telephony!", ben, "telephony"},
	} {
		s := open(t, nil, nil)
		if c.rules != "" {
			s.set(t, strings.Split(c.rules, ";")...)
		}
		if got := s.level(c.watcher); got != c.want {
			t.Errorf("%s: %s sees %s, want %s\n%s", c.name, c.watcher, got, c.want, text(s, c.watcher))
		}
		if e := s.Explain(by(c.watcher).Subject, "ann"); e.Level != s.Access(by(c.watcher), "ann").Level {
			t.Errorf("%s: the explanation says %s", c.name, e.Level)
		}
	}
}

func text(s *site, watcher string) string {
	e := s.Explain(by(watcher).Subject, "ann")
	return e.Text()
}

// TestExplain names the rule that decides and those that it beats.
func TestExplain(t *testing.T) {
	s := open(t, nil, nil)
	s.set(t, "ann/watcher id:ben/status!", "/watcher jid:ben@example.com/full", "ann/group sales/block", "/default/confirm")
	got := text(s, "jid:ben@example.com")
	for i, want := range []string{
		"jid:ben@example.com (ben) sees of ann: status, urgent", "because watcher id:ben sees of ann: status, urgent (set by uid 1000 on ",
		"not by watcher jid:ben@example.com sees of everybody: full", "not by group sales sees of ann: block", "not by default sees of everybody: confirm", "",
	} {
		if lines := strings.Split(got, "\n"); len(lines) != 6 || !strings.HasPrefix(strings.TrimSpace(lines[i]), want) {
			t.Errorf("line %d is not as %q:\n%s", i, want, got)
		}
	}
	for watcher, want := range map[string]string{
		"jid:ann@example.com": "because a person sees all of themselves", "jid:eve@x.org": "because default sees of everybody: confirm",
	} {
		if got := text(s, watcher); !strings.Contains(got, want) {
			t.Errorf("missing %q in\n%s", want, got)
		}
	}
	if got := text(open(t, nil, nil), "jid:eve@x.org"); got != "jid:eve@x.org sees of ann: full, calendar open\n  because no rule is for this watcher (access.default)\n" {
		t.Error(got)
	}
}

// TestCalendar has the choice of a person count at level full, and at no other.
func TestCalendar(t *testing.T) {
	s := open(t, nil, func(c *access.Config) { c.Calendar = "times" })
	s.set(t, "ann/watcher id:cat/status")
	see := func(watcher string) presence.Access { return s.Access(by(watcher), "ann") }
	if got := see("id:ben"); got != (presence.Access{Level: presence.LevelFull, Calendar: presence.CalendarTimes}) {
		t.Errorf("by default: %+v", got)
	}
	if err := s.SetCalendar(t.Context(), admin, "ann", presence.CalendarHidden); err != nil {
		t.Fatal(err)
	}
	if got := see("id:ben"); got.Calendar != presence.CalendarHidden {
		t.Errorf("after the choice: %+v", got)
	}
	if got := see("id:cat"); got != (presence.Access{Level: presence.LevelStatus}) {
		t.Errorf("at level status: %+v", got)
	}
	if got := see("id:ann"); got != presence.Everyone() {
		t.Errorf("the person: %+v", got)
	}
	if !strings.Contains(s.lines.last(1), `"calendar: times (default) -\u003e hidden"`) {
		t.Error(s.lines.last(1))
	}
}

// TestOptIn shows nobody who has not opted in, whatever the rules say.
func TestOptIn(t *testing.T) {
	s := open(t, nil, func(c *access.Config) { c.OptIn, c.BlockView = true, "unknown" })
	s.set(t, "ann/watcher id:ben/full", "/default/full")
	hidden := presence.Access{Unknown: true}
	check := func(when string, want presence.Access) {
		t.Helper()
		if got := s.Access(by("id:ben"), "ann"); got != want {
			t.Errorf("%s: %+v", when, got)
		}
		if got := s.Access(by("id:ann"), "ann"); got != presence.Everyone() {
			t.Errorf("%s: the person sees %+v", when, got)
		}
	}
	check("before", hidden)
	if err := s.OptIn(t.Context(), admin, "ann", true); err != nil {
		t.Fatal(err)
	}
	check("opted in", presence.Everyone())
	s = open(t, s.memory, func(c *access.Config) { c.OptIn, c.BlockView = true, "unknown" })
	check("after a restart", presence.Everyone())
	if err := s.OptIn(t.Context(), admin, "ann", false); err != nil {
		t.Fatal(err)
	}
	check("opted out", hidden)
	if got := s.Access(by("id:ann"), "ben"); got != hidden {
		t.Errorf("somebody else: %+v", got)
	}
}

// TestBlockView shows who is blocked, and who waits, what the deployment chose.
func TestBlockView(t *testing.T) {
	for view, unknown := range map[string]bool{"offline": false, "unknown": true} {
		s := open(t, nil, func(c *access.Config) { c.BlockView = view })
		s.set(t, "ann/watcher id:ben/block", "ann/watcher id:cat/confirm")
		for watcher, level := range map[string]presence.Level{"id:ben": presence.LevelBlock, "id:cat": presence.LevelConfirm} {
			if got := s.Access(by(watcher), "ann"); got != (presence.Access{Level: level, Unknown: unknown}) {
				t.Errorf("%s, %s: %+v", view, watcher, got)
			}
		}
	}
}

// TestUnfit refuses what no rule can say, and writes nothing.
func TestUnfit(t *testing.T) {
	s := open(t, nil, nil)
	long := strings.Repeat("x", access.MaxName)
	for _, c := range []struct {
		a    access.Audience
		of   presence.ID
		l    presence.Level
		want error
	}{
		{access.Audience{Kind: access.ForWatcher}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: access.ForWatcher, Name: "jid:"}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: access.ForWatcher, Name: "jid:" + long}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: access.ForWatcher, Name: "jid:a\u202eb@x"}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: access.ForGroup, Name: " "}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: access.ForDomain, Name: "ben@example.com"}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: access.ForDefault, Name: "x"}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: 17, Name: "x"}, "ann", presence.LevelFull, access.ErrUnfit},
		{access.Audience{Kind: access.ForGroup, Name: "x"}, "ann", 200, access.ErrUnfit},
		{access.Audience{Kind: access.ForGroup, Name: "x"}, "eve", presence.LevelFull, access.ErrNobody},
	} {
		if err := s.Set(t.Context(), admin, access.Rule{Of: c.of, For: c.a, Level: c.l}); !errors.Is(err, c.want) {
			t.Errorf("%.60v at %d of %s: %v", c.a.Name, c.l, c.of, err)
		}
	}
	if err := s.Allow(t.Context(), admin, "ann", subject(t, "ben"), presence.LevelConfirm); !errors.Is(err, access.ErrUnfit) {
		t.Errorf("to allow nothing: %v", err)
	}
	if err := s.Deny(t.Context(), admin, "", subject(t, "ben")); !errors.Is(err, access.ErrNobody) {
		t.Errorf("to deny of everybody: %v", err)
	}
	if len(s.lines.lines) != 0 || len(s.memory.held) != 0 {
		t.Errorf("%d lines, %d values", len(s.lines.lines), len(s.memory.held))
	}
}

// TestConfig names every key that is wrong.
func TestConfig(t *testing.T) {
	bad := access.Config{Default: "all", Calendar: "shut", BlockView: "away"}
	var keys []string
	for _, p := range bad.Check() {
		keys = append(keys, p.Path)
	}
	if got := strings.Join(keys, " "); got != "default calendar block_view unread audit_keep audit_max_bytes" {
		t.Error(got)
	}
}
