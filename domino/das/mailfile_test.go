package das

import (
	"net/url"
	"strings"
	"testing"
)

func TestCleanPath(t *testing.T) {
	for in, want := range map[string]string{
		`mail\jdoe`:                        "mail/jdoe.nsf",
		`mail/jdoe.nsf`:                    "mail/jdoe.nsf",
		`MAIL\J Doe.NSF`:                   "MAIL/J%20Doe.NSF",
		`  mail\jdoe  `:                    "mail/jdoe.nsf",
		`mail\\jdoe`:                       "mail/jdoe.nsf",
		`mail//eu///jdoe.nsf`:              "mail/eu/jdoe.nsf",
		`jdoe`:                             "jdoe.nsf",
		`mail/jörg`:                        "mail/j%C3%B6rg.nsf",
		`mail/a+b&c@d`:                     "mail/a+b&c@d.nsf",
		`mail/names`:                       "mail/names.nsf",
		`..\names.nsf`:                     "",
		`/names.nsf`:                       "",
		`\names.nsf`:                       "",
		`\\server\share\x`:                 "",
		`mail/../names.nsf`:                "",
		`mail\..\names.nsf`:                "",
		`mail/..`:                          "",
		`mail/.`:                           "",
		`mail/.. /names.nsf`:               "",
		`mail/.../x`:                       "",
		`mail/`:                            "",
		`http://x/y.nsf`:                   "",
		`//evil/y.nsf`:                     "",
		`c:\mail\jdoe.nsf`:                 "",
		`mail/j%2e%2e/x`:                   "",
		`mail/a?x.nsf`:                     "",
		`mail/a#x.nsf`:                     "",
		`mail/a;x.nsf`:                     "",
		"names.nsf/x\x00":                  "",
		"mail/x\r\nHost: evil":             "",
		"mail/\xff":                        "",
		`names.nsf/x`:                      "",
		`mail/names.nsf/x.nsf`:             "",
		`mail/x.ntf`:                       "",
		`mail.box`:                         "",
		`mail/.nsf`:                        "",
		`names.nsf`:                        "",
		`Names`:                            "",
		`admin4`:                           "",
		`LOG.NSF`:                          "",
		``:                                 "",
		`   `:                              "",
		`a/b/c/d/e/f/g/h`:                  "a/b/c/d/e/f/g/h.nsf",
		`a/b/c/d/e/f/g/h/i`:                "",
		"mail/" + strings.Repeat("x", 300): "",
	} {
		got, err := cleanPath(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("cleanPath(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestServerKey(t *testing.T) {
	for _, in := range []string{"CN=Mail1/O=Acme", "cn=mail1/o=acme", "Mail1/Acme", " MAIL1 / ACME ", "CN = Mail1/O=Acme"} {
		if got := ServerKey(in); got != "mail1/acme" {
			t.Errorf("ServerKey(%q) = %q", in, got)
		}
	}
	if got := ServerKey("CN=Mail1/OU=West/O=Acme/C=US"); got != "mail1/west/acme/us" {
		t.Errorf("got %q", got)
	}
}

func TestLocate(t *testing.T) {
	c, err := NewClient(Options{Servers: []Server{{"CN=Mail1/O=Acme", "https://mail1.example.com/"}, {"Mail2/Acme", "http://proxy:8080/domino"}}})
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		`Mail1/Acme!!mail/jdoe.nsf`:        "https://mail1.example.com/mail/jdoe.nsf",
		`CN=MAIL1/O=ACME!!mail\jdoe`:       "https://mail1.example.com/mail/jdoe.nsf",
		`Mail2/Acme!!mail\jdoe`:            "http://proxy:8080/domino/mail/jdoe.nsf",
		`Mail3/Acme!!mail\jdoe`:            "",
		`evil.example.com!!mail\jdoe`:      "",
		`Mail1/Acme!!../names.nsf`:         "",
		`Mail1/Acme!!@evil.com/mail/x`:     "https://mail1.example.com/@evil.com/mail/x.nsf",
		`Mail1/Acme`:                       "",
		`!!mail/jdoe.nsf`:                  "",
		`Mail1/Acme!!`:                     "",
		`Mail1/Acme!!mail!!names`:          "https://mail1.example.com/mail%21%21names.nsf",
		`Mail1/Acme!!//evil.com/jdoe`:      "",
		`Mail1/Acme!!\\evil.com\jdoe`:      "",
		`Mail1/Acme!!http:\\evil\jdoe`:     "",
		`Mail1/Acme!!mail/jdoe.nsf?x=.nsf`: "",
	} {
		got, err := c.Locate(in)
		if got.URL != want || (err == nil) != (want != "") {
			t.Errorf("Locate(%q) = %q, %v; want %q", in, got.URL, err, want)
		}
	}
	for _, o := range []Options{
		{Servers: []Server{{"", "https://x"}}},
		{Servers: []Server{{"a/b", "ftp://x"}}},
		{Servers: []Server{{"a/b", "https://u:p@x"}}},
		{Servers: []Server{{"a/b", "https://x"}, {"CN=A/O=B", "https://y"}}},
	} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("NewClient(%v) takes it", o.Servers)
		}
	}
}

func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{`mail\jdoe`, `MAIL\J Doe.NSF`, `..\names.nsf`, `mail/a?x.nsf`, "names.nsf/x\x00", `//evil/x`, `@evil/x`, `mail/%2e%2e/x`, `a/./b`} {
		f.Add(s)
	}
	base, err := url.Parse("https://mail1.example.com/base")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in string) {
		path, err := cleanPath(in)
		if err != nil {
			return
		}
		full, err := under(base, path)
		if err != nil {
			t.Fatalf("%q: %q is refused late: %v", in, path, err)
		}
		u, err := url.Parse(full + "/api/calendar/events?since=x")
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || u.User != nil || u.RawQuery != "since=x" || u.Fragment != "" {
			t.Fatalf("%q leads to %q", in, full)
		}
		if joined := u.JoinPath(); joined.Path != u.Path || !strings.HasPrefix(u.Path, "/base/") {
			t.Fatalf("%q has a path that moves: %q", in, u.Path)
		}
		for s := range strings.SplitSeq(u.Path, "/") {
			if s == ".." || s == "." {
				t.Fatalf("%q holds %q", full, s)
			}
		}
		if !strings.HasSuffix(strings.ToLower(path), ".nsf") {
			t.Fatalf("%q is no database", path)
		}
	})
}
