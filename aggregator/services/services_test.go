package services_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/internal/trust"
)

const hq = `services:
- id: hq
  primary: {name: Headquarters, host: p1.example.com}
  secondary: {host: 192.0.2.7, port: 5070}
  entity: sip:{tel}@example.com
  user: presenced
  password_file: /run/credentials/presenced.service/hq
  users: [ann, "group:sales", "0123", "null"]
`

func parsed(t *testing.T, text string) services.Service {
	t.Helper()
	all, err := services.Read("services.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// What is written is read again as it was.
func TestFileRoundTrip(t *testing.T) {
	s := parsed(t, hq)
	if s.Primary.Address() != "p1.example.com:5060" || s.PublishInterval != 10*time.Minute || s.MaxRemoved != 20 {
		t.Errorf("%+v", s)
	}
	again, err := services.Read("again", services.Write([]services.Service{s}))
	if d := cmp.Diff([]services.Service{s}, again); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	alone, err := services.Parse("alone", services.Format(s))
	if d := cmp.Diff(s, alone); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
}

// A service asks for nothing unless it says so, and a list needs its address.
func TestSubscribe(t *testing.T) {
	usual := parsed(t, hq)
	if usual.Subscribe != services.SubscribeOff {
		t.Errorf("%q", usual.Subscribe)
	}
	for change, wrong := range map[string]string{
		"subscribe=off": "", "subscribe=single": "", "subscribe=list": "list_uri", "subscribe=yes": "subscribe", "list_uri=sip:a@b": "list_uri",
	} {
		s, err := services.Set(&usual, []string{change})
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong+": ")) {
			t.Errorf("%s: %+v %v", change, s.Subscribe, err)
		}
	}
}

// Whatever may stand in a user list comes through the store.
func TestFormatLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, _ := services.Set(nil, []string{"id=a", "primary.host=a", "entity={sip}"})
		s.Users = rapid.SliceOfDistinct(rapid.StringN(1, 20, 60), rapid.ID[string]).Draw(t, "users")
		s.MaxRemoved = rapid.IntRange(0, 100).Draw(t, "max")
		if len(s.Check()) > 0 {
			return
		}
		again, err := services.Parse("again", services.Format(s))
		if d := cmp.Diff(s, again); err != nil || d != "" && len(s.Users) > 0 {
			t.Errorf("%v\n%s\n%s", err, d, services.Format(s))
		}
	})
}

// Every mistake of a file is named, each with its line.
func TestEveryProblem(t *testing.T) {
	_, err := services.Read("s.yaml", []byte(`services:
- id: HQ
  primary: {host: "p1..example.com", port: -1}
  secondary: {name: spare}
  transport: sctp
  subscribe_interval: 5s
  publish_interval: 25h
  entity: sip:4750@example.com
  user: presenced
  password_file: secret
  users: [ann, ann, everyone, "group:", "a\nb"]
  max_removed: 101
  busy_basic: half
  rate: -1
  colour: red
- {id: lab, primary: {host: 1.2.3}, secondary: {host: "[::1]"}, entity: "{sip}"}
- {id: lab, primary: {host: a.example.com}, secondary: {host: a.example.com}, entity: "{sip}", transport: tls, tls: {cert_file: /x, ca_file: ca.pem}}
- {id: spare, primary: {host: a.example.com}, entity: "{sip}", user: presenced, publish_interval: 90500ms, subscribe: list, body: thin, out_of_office_basic: half}
- {id: other, primary: {host: a.example.com}, entity: "{sip}", list_uri: "sip:all@example.com", password_file: /run/secret, subscribe_interval: 29s}
`))
	want := []string{
		"2: services[0].id:", "3: services[0].primary.host:", "3: services[0].primary.port:", "4: services[0].secondary.host:", "5: services[0].transport:",
		"6: services[0].subscribe_interval:", "7: services[0].publish_interval:", "8: services[0].entity:", "10: services[0].password_file:",
		"11: services[0].users[1]:", "11: services[0].users[2]:", "11: services[0].users[3]:", "11: services[0].users[4]:",
		"12: services[0].max_removed:", "13: services[0].busy_basic:", "14: services[0].rate:", "15: services[0].colour:",
		"16: services[1].primary.host:", "16: services[1].secondary.host:", "17: services[2].id:", "17: services[2].secondary:", "17: services[2].tls.cert_file:", "17: services[2].tls.ca_file:",
		"18: services[3].user:", "18: services[3].publish_interval:", "18: services[3].list_uri:", "18: services[3].body:", "18: services[3].out_of_office_basic:",
		"19: services[4].user:", "19: services[4].list_uri:", "19: services[4].subscribe_interval:",
	}
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	for i := range got {
		got[i] = strings.Join(strings.SplitN(strings.TrimPrefix(got[i], "s.yaml:"), ":", 3)[:2], ":") + ":"
	}
	slices.SortStableFunc(got, lineThenKey)
	slices.SortStableFunc(want, lineThenKey)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s\n%v", d, err)
	}
}

func lineThenKey(a, b string) int {
	var m, n int
	_, _ = fmt.Sscanf(a, "%d", &m)
	_, _ = fmt.Sscanf(b, "%d", &n)
	if m != n {
		return m - n
	}
	return strings.Compare(a, b)
}

func TestSet(t *testing.T) {
	s := parsed(t, hq)
	changed, err := services.Set(&s, []string{"users=ann,bob", "secondary.host=", "secondary.port=5060", "publish_interval=90s", "tls.server_name=x"})
	if err != nil || !slices.Equal(changed.Users, []string{"ann", "bob"}) || changed.Secondary.Address() != "" || changed.PublishInterval != 90*time.Second || changed.TLS.ServerName != "x" {
		t.Errorf("%+v, %v", changed, err)
	}
	for change, want := range map[string]string{
		"users":       `"users" is not as key=value`,
		"colour=red":  "--set: colour: unknown key; known here: id, primary,",
		"rate=fast":   `--set: rate: "fast" is no whole number`,
		"primary=x":   "--set: primary: want keys and values",
		"rate=-1":     "--set: rate: -1 is not between",
		"rate.more=1": "--set: rate: want a whole number",
	} {
		if _, err := services.Set(&s, []string{change}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// A form that is filled with the fields of a service gives that service.
func TestFillLaw(t *testing.T) {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("ab9 :#'\"{}[]&*!|>%@`~-,")), 0, 12, 30)
	rapid.Check(t, func(t *rapid.T) {
		s := services.Service{
			ID: "hq", Primary: services.Server{Host: "p1.example.com", Port: 5060}, TLS: trust.Config{MinVersion: "1.2"}, SubscribeInterval: time.Minute,
			Entity: "sip:{tel}@example.com", PasswordFile: "/run/secret", MaxRemoved: 20, Body: "rich", BusyBasic: "open", OutOfOffice: "closed",
		}
		s.Primary.Name, s.User = strings.TrimSpace(text.Draw(t, "name")), strings.TrimSpace(text.Draw(t, "user"))
		s.Users = rapid.SliceOfDistinct(rapid.StringN(1, 20, 60), rapid.ID[string]).Draw(t, "users")
		s.PublishInterval = time.Duration(rapid.IntRange(30, 3600).Draw(t, "interval")) * time.Second
		s.Transport = rapid.SampledFrom([]string{"udp", "tcp", "tls", "auto"}).Draw(t, "transport")
		s.Microsoft = rapid.Bool().Draw(t, "microsoft")
		if len(s.Check()) > 0 {
			return
		}
		form := map[string][]string{}
		for _, f := range services.Fields(&s) {
			form[f.Key] = []string{f.Value}
		}
		again, ps := services.Fill(nil, form)
		if d := cmp.Diff(s, again); len(ps) > 0 || d != "" && len(s.Users) > 0 {
			t.Errorf("%v\n%s", ps, d)
		}
	})
}

func TestFill(t *testing.T) {
	s := parsed(t, hq)
	filled, ps := services.Fill(&s, map[string][]string{
		"secondary.host": {" b.example.com "}, "publish_interval": {"90"}, "subscribe_interval": {"2m"}, "users": {"ann\r\n\r\n bob \r\n"}, "do": {"preview"}, "rate": nil,
	})
	want := s
	want.Secondary.Host, want.PublishInterval, want.SubscribeInterval, want.Users = "b.example.com", 90*time.Second, 2*time.Minute, []string{"ann", "bob"}
	if d := cmp.Diff(want, filled); d != "" || len(ps) > 0 {
		t.Errorf("%v\n%s", ps, d)
	}
	for _, c := range []struct{ key, value, want string }{
		{"primary.port", "many", `"many" is no whole number`},
		{"primary.port", "", `"" is no whole number`},
		{"primary.name", "a\nb", "has control characters, or more than"},
		{"primary.name", "\xff", "has control characters, or more than"},
		{"entity", strings.Repeat("x", 600<<10), "has control characters, or more than"},
		{"publish_interval", "99999999999999999999", "is no duration"},
		{"display_name", "perhaps", "neither true nor false"},
		{"primary.host", "[x", "neither a fully qualified name nor"},
	} {
		_, ps := services.Fill(&s, map[string][]string{c.key: {c.value}})
		if len(ps) != 1 || ps[0].Path != c.key || !strings.Contains(ps[0].Text, c.want) {
			t.Errorf("%s=%.20q: %.200v", c.key, c.value, ps)
		}
	}
	if _, ps := services.Fill(&s, map[string][]string{"users": {"ann\nann\neveryone"}}); len(ps) != 2 || ps[0].Path != "users[1]" {
		t.Errorf("%v", ps)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(hq))
	f.Add([]byte("services: [{id: a, users: [x]}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := services.Read("fuzz", data)
		if err != nil {
			return
		}
		if again, err := services.Read("again", services.Write(all)); err != nil || len(again) != len(all) {
			t.Errorf("%v\n%s", err, services.Write(all))
		}
	})
}

// town is people with and without a number, in groups.
func town(n int) []presence.Person {
	var all []presence.Person
	for i := range n {
		p := presence.Person{ID: presence.ID(fmt.Sprintf("p%d", i)), Groups: []string{fmt.Sprintf("g%d", i%3)}}
		p.Subjects = []presence.Subject{{Scheme: "mail", Value: string(p.ID) + "@example.com"}}
		if i%5 > 0 {
			p.Subjects = append(p.Subjects, presence.Subject{Scheme: "tel", Value: fmt.Sprint(4000 + i)})
		}
		all = append(all, p)
	}
	return all
}

func anyService(t *rapid.T, label string) *services.Service {
	if rapid.IntRange(0, 9).Draw(t, label+" none") == 0 {
		return nil
	}
	words := []string{"everyone", "group:g0", "group:g1", "group:g2", "group:none", "stranger"}
	for i := range 12 {
		words = append(words, fmt.Sprintf("p%d", i))
	}
	return &services.Service{
		ID: "hq", Primary: services.Server{Host: rapid.SampledFrom([]string{"a", "b"}).Draw(t, label+" host"), Port: 5060},
		Entity: rapid.SampledFrom([]string{"sip:{tel}@x", "sip:{mail}"}).Draw(t, label+" entity"),
		Users:  rapid.SliceOfNDistinct(rapid.SampledFrom(words), 0, 6, rapid.ID[string]).Draw(t, label+" users"),
	}
}

// A plan, applied to those who are published, gives those who are to be; nobody
// stands in it twice; there is nothing to do between equals; and its inverse undoes it.
func TestPlanLaws(t *testing.T) {
	people := town(12)
	published := func(s *services.Service) map[presence.ID]bool {
		out := map[presence.ID]bool{}
		for i := range people {
			if s != nil && s.Covers()(&people[i]) && (strings.Contains(s.Entity, "mail") || people[i].Address("tel") != "") {
				out[people[i].ID] = true
			}
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		before, after := anyService(t, "before"), anyService(t, "after")
		c := services.Plan(before, after, people)
		got := published(before)
		if len(got) != c.Before {
			t.Fatalf("%d before, published are %d", c.Before, len(got))
		}
		if after != nil && after.Count(people) != c.After {
			t.Fatalf("%d are published after, counted are %d", c.After, after.Count(people))
		}
		seen := map[presence.ID]bool{}
		for _, id := range slices.Concat(c.Added, c.Removed, c.Changed) {
			if seen[id] {
				t.Fatalf("%s stands there twice: %+v", id, c)
			}
			seen[id] = true
		}
		for _, id := range c.Removed {
			if !got[id] {
				t.Fatalf("%s is removed and was not there", id)
			}
			delete(got, id)
		}
		for _, id := range c.Changed {
			if !got[id] {
				t.Fatalf("%s is changed and was not there", id)
			}
		}
		for _, id := range c.Added {
			got[id] = true
		}
		if d := cmp.Diff(published(after), got); d != "" || c.After != len(got) {
			t.Fatalf("%d after\n%s", c.After, d)
		}
		if same := services.Plan(after, after, people); len(same.Added)+len(same.Removed)+len(same.Changed) != 0 {
			t.Fatalf("between equals: %+v", same)
		}
		back := services.Plan(after, before, people)
		if !slices.Equal(back.Added, c.Removed) || !slices.Equal(back.Removed, c.Added) || !slices.Equal(back.Changed, c.Changed) {
			t.Fatalf("there %+v, back %+v", c, back)
		}
	})
}

func TestPlanNames(t *testing.T) {
	before, after := parsed(t, hq), parsed(t, hq)
	before.Users = []string{"group:g1"}
	after.Users = []string{"p1", "p2", "p5", "stranger", "group:nobody"}
	c := services.Plan(&before, &after, town(9))
	want := services.Change{Before: 3, After: 2, Added: []presence.ID{"p2"}, Removed: []presence.ID{"p4", "p7"}, Unknown: []string{"stranger", "group:nobody"}}
	if d := cmp.Diff(want, c); d != "" { // p5 has no number
		t.Error(d)
	}
	for share, forced := range map[int]bool{0: true, 66: true, 67: false, 100: false} {
		if got := c.Excess(share) != ""; got != forced {
			t.Errorf("at %d percent: %v", share, got)
		}
	}
	after = before
	after.Entity = "sip:{tel}@elsewhere.example.com"
	if c := services.Plan(&before, &after, town(9)); len(c.Changed) != 3 {
		t.Errorf("under other addresses: %+v", c)
	}
	after = before
	after.User = "another"
	if c := services.Plan(&before, &after, town(9)); len(c.Changed) != 3 || c.Excess(0) != "" {
		t.Errorf("%+v", c)
	}
}
