package xmpp

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"presenced/aggregator/presence"
)

func TestSplitJID(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][3]string{
		"bob@XMPP.Test/r2":    {"bob", "xmpp.test", "r2"},
		"xmpp.test":           {"", "xmpp.test", ""},
		"xmpp.test/a@b/c":     {"", "xmpp.test", "a@b/c"},
		"Bob@x@y/z":           {"Bob", "x@y", "z"},
		"":                    {"", "", ""},
		"a\\20b_c@xmpp.test":  {"a\\20b_c", "xmpp.test", ""},
		"ü☃@xmpp.test/\u2028": {"ü☃", "xmpp.test", "\u2028"},
	} {
		l, d, r := splitJID(in)
		if got := [3]string{l, d, r}; got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestMint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		template string
		person   presence.Person
		want     string // empty: an error
	}{
		{"{id}", person("Carol", ""), "carol"},
		{"{id}", person("o'hara x", ""), `o\27hara\20x`},
		{"{id}", person("a/b@c", ""), `a\2fb\40c`},
		{"{mail-local}", person("1", "", "mail:Carol.Jones@example.com"), "carol.jones"},
		{"{mail}", person("1", "", "mail:carol@example.com"), `carol\40example.com`},
		{"{tel}", person("1", "", "tel:+1 303"), `+1\20303`},
		{"p-{tel}-x", person("1", "", "tel:4711"), "p-4711-x"},
		{"{tel}", person("1", ""), ""},
		{"{id}", person(" ", ""), ""},
		{"{id}", person("a\x01b", ""), ""},
		{"{id}", person("\xff", ""), ""},
	} {
		tmpl, err := parseTemplate(c.template)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tmpl.mint(&c.person, "presence.xmpp.test")
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s of %q: %q, %v", c.template, c.person.ID, got, err)
		}
	}
	for _, bad := range []string{"", "all", "{", "{id", "{name}", "x{}"} {
		if _, err := parseTemplate(bad); err == nil {
			t.Errorf("template %q is taken", bad)
		}
	}
}

// Two people who come to one address: the smaller ID has it, whatever the order.
func TestPeopleShareAnAddress(t *testing.T) {
	t.Parallel()
	tmpl, err := parseTemplate("{tel}")
	if err != nil {
		t.Fatal(err)
	}
	p := newPeople("presence.xmpp.test", tmpl)
	a, b := person("a", "A", "tel:1"), person("b", "B", "tel:1")
	stateOf := func(id presence.ID, av presence.Availability) presence.State {
		return presence.State{Person: id, Availability: av}
	}
	shows := func(got []showing) string {
		text := ""
		for _, s := range got {
			if s.who == nil {
				text += s.local + " gone;"
				continue
			}
			text += s.local + " " + s.who.state.Availability.String() + ";"
		}
		return text
	}
	removed := stateOf("a", presence.Unknown)
	removed.Why.Rule = presence.RuleRemoved
	moved := person("b", "B", "tel:2")
	for i, step := range []struct {
		state presence.State
		who   presence.Person
		known bool
		want  string
	}{
		{stateOf("b", presence.Away), b, true, "1 away;"},
		{stateOf("a", presence.Busy), a, true, "1 busy;"},
		{stateOf("b", presence.OffWork), b, true, ""},
		{removed, a, false, "1 off-work;"},
		{stateOf("b", presence.Away), moved, true, "1 gone;2 away;"},
		{stateOf("b", presence.Away), person("b", "B"), true, "2 gone;"},
	} {
		if diff := cmp.Diff(step.want, shows(p.accept(step.state, step.who, step.known))); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
		if i == 2 && p.without["b"] == "" {
			t.Error("b is not said to be without an address")
		}
	}
	if p.without["b"] != "has no tel" || len(p.without) != 1 {
		t.Errorf("without an address: %v", p.without)
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	good := DefaultConfig()
	good.Host, good.SecretFile = "presence.example.com", "/etc/secret"
	if ps := good.Check(); len(ps) > 0 {
		t.Errorf("good: %v", ps)
	}
	if d := good.domains(); len(d) != 1 || d[0] != "example.com" || good.pingDomain() != "example.com" {
		t.Errorf("domains %v, ping %s", d, good.pingDomain())
	}
	bad := Config{Address: "x", Host: "a b", Domains: []string{"x@y"}, Local: "x", BusyShow: "busy", Rate: 5000, PingDomain: "/"}
	var paths []string
	for _, p := range bad.Check() {
		paths = append(paths, p.Path)
	}
	if diff := cmp.Diff([]string{"name", "address", "host", "secret_file", "domains", "local", "busy_show", "rate", "ping_domain"}, paths); diff != "" {
		t.Errorf("bad (-want +got):\n%s", diff)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Host = "" },
		func(c *Config) { c.Host = "single" },
		func(c *Config) { c.Domains = []string{"Presence.Example.com"} },
	} {
		c := good
		change(&c)
		if ps := c.Check(); len(ps) != 1 {
			t.Errorf("%+v: %v", c, ps)
		}
	}
}
