package directory_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
	"presenced/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slapd starts a private OpenLDAP server with so many people, and gives its URL.
// limits is a line of its configuration.
func slapd(t *testing.T, people int, limits string) string {
	t.Helper()
	binary := peers.Find(t, "slapd")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.3.6.1.4.1.99999.1.1 NAME 'mailserver' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.99999.1.2 NAME 'mailfile' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.99999.2.1 NAME 'dominoPerson' SUP inetOrgPerson STRUCTURAL MAY ( mailserver $ mailfile ) )
pidfile %[1]s/pid
modulepath /usr/lib/ldap
moduleload back_mdb
%[2]s
database mdb
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
rootpw secret
directory %[1]s/db
`, dir, limits)
	file := filepath.Join(dir, "slapd.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var ldif bytes.Buffer
	ldif.WriteString("dn: dc=example,dc=com\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n")
	for i := range people {
		fmt.Fprintf(&ldif, `dn: uid=p%[1]d,dc=example,dc=com
objectClass: dominoPerson
uid: p%[1]d
cn: Person %[1]d
sn: %[1]d
ou: Sales
telephoneNumber: %[2]d
mail: P%[1]d@example.com
mailserver: CN=Mail1/O=Acme
mailfile: mail\p%[1]d
description: p%[1]d:example.com:%032[1]x
description: no account

`, i, 20000+i)
	}
	ldif.WriteString("dn: uid=nomail,dc=example,dc=com\nobjectClass: inetOrgPerson\nuid: nomail\ncn: No Mail\nsn: Mail\nmail: No_Mail/Acme@example.com\n\n")
	add := exec.Command("slapadd", "-q", "-f", file)
	add.Path = filepath.Join(filepath.Dir(binary), "slapadd")
	add.Err = nil
	add.Stdin = &ldif
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(binary, "-d", "0", "-f", file, "-h", "ldap://"+address)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	peers.AwaitTCP(t, address)
	return "ldap://" + address
}

func config(t *testing.T, url string) directory.LDAPConfig {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return directory.LDAPConfig{
		URL: url, BindDN: "cn=admin,dc=example,dc=com", PasswordFile: secret.File(file), Base: "dc=example,dc=com", Filter: "(objectClass=inetOrgPerson)",
		ID: "uid", Name: "cn", Group: "ou", Tel: "telephoneNumber", Mail: "mail", MailServer: "mailServer", MailFile: "MAILFILE", PageSize: 50, Timeout: 10 * time.Second,
	}
}

func TestRealServer(t *testing.T) {
	url := slapd(t, 120, "sizelimit unlimited")
	l := &directory.LDAP{Config: config(t, url)}
	got, err := l.Read(t.Context())
	if err != nil || !got.Complete || len(got.People) != 121 {
		t.Fatalf("%d people, complete %v, %v", len(got.People), got.Complete, err)
	}
	d, problems := directory.New(got.People)
	if len(problems) > 0 {
		t.Error(problems)
	}
	p, ok := d.Find(presence.Subject{Scheme: "mail", Value: "p7@EXAMPLE.com"})
	want := presence.Person{ID: "p7", Name: "Person 7", Groups: []string{"Sales"}, Subjects: []presence.Subject{
		{Scheme: "tel", Value: "20007"}, {Scheme: "mail", Value: "p7@example.com"}, {Scheme: "notes", Value: `CN=Mail1/O=Acme!!mail\p7`},
	}}
	if d := cmp.Diff(want, p); !ok || d != "" {
		t.Error(d)
	}
	if p, _ := d.Person("nomail"); len(p.Subjects) != 0 {
		t.Errorf("an address that is none was taken: %v", p.Subjects)
	}
}

// The accounts of a complete reading count; one that breaks off removes nobody, and locks
// nobody out, however few there may be.
func TestAccounts(t *testing.T) {
	c := config(t, slapd(t, 30, "sizelimit 10"))
	c.SIPAccounts, c.ID = "Description", "uid"
	w := directory.NewWatch(directory.Config{LDAP: []directory.LDAPConfig{c}, Interval: time.Minute, Keep: 0}, slog.New(slog.DiscardHandler))
	if _, known := w.HA1("p7", "example.com", "MD5"); known {
		t.Error("known before anything was read")
	}
	for _, paged := range []int{50, 0} {
		directory.SetPaging(w, paged)
		if d, err := w.Read(t.Context()); err != nil || d.Len() != 31 {
			t.Fatalf("%d people, %v", d.Len(), err)
		}
		if got, known := w.HA1("p29", "example.com", "MD5"); !known || got != fmt.Sprintf("%032x", 29) {
			t.Errorf("%q, known %v", got, known)
		}
	}
	if _, known := w.HA1("p7", "example.com", "SHA-256"); known {
		t.Error("known by another algorithm")
	}
}

func TestWrongPasswordIsPermanent(t *testing.T) {
	c := config(t, slapd(t, 1, ""))
	c.BindDN = "cn=nobody,dc=example,dc=com"
	_, err := (&directory.LDAP{Config: c}).Read(t.Context())
	if !presence.IsPermanent(err) || !strings.Contains(err.Error(), "cannot sign in") || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// A server that stops early gives what it has; nobody is removed for that.
func TestSizeLimit(t *testing.T) {
	c := config(t, slapd(t, 30, "sizelimit 10"))
	c.BindDN, c.PasswordFile, c.PageSize = "", "", 0
	got, err := (&directory.LDAP{Config: c}).Read(t.Context())
	if err != nil || got.Complete || len(got.People) != 10 {
		t.Errorf("%d people, complete %v, %v", len(got.People), got.Complete, err)
	}
}

func TestCancelledReadingIsNoReading(t *testing.T) {
	c := config(t, slapd(t, 500, "sizelimit unlimited"))
	c.PageSize = 1
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if got, err := (&directory.LDAP{Config: c}).Read(ctx); err == nil {
		t.Errorf("%d people, complete %v", len(got.People), got.Complete)
	}
}

func TestServerAway(t *testing.T) {
	c := config(t, "ldap://127.0.0.1:1")
	if _, err := (&directory.LDAP{Config: c}).Read(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot connect") {
		t.Errorf("%v", err)
	}
}

// TestWatch checks when people are removed: only by a complete reading that is
// not suspiciously small; and that a broken file changes nobody.
func TestWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "people.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := func(ids ...string) string {
		var b strings.Builder
		b.WriteString("people:\n")
		for _, id := range ids {
			fmt.Fprintf(&b, "- {id: %[1]s, name: %[1]s, mail: [%[1]s@example.com]}\n", id)
		}
		return b.String()
	}
	w := directory.NewWatch(directory.Config{Files: []string{file}, Interval: time.Minute, Keep: 0.8}, slog.New(slog.DiscardHandler))
	count := func() int {
		t.Helper()
		d, _ := w.Read(t.Context())
		return d.Len()
	}
	write(list("a", "b", "c", "d", "e"))
	if n := count(); n != 5 {
		t.Fatalf("%d people", n)
	}
	write(list("a", "b", "c", "d", "f"))
	if n := count(); n != 5 {
		t.Errorf("one came, one went: %d", n)
	}
	write(list("a", "b"))
	if n := count(); n != 5 {
		t.Errorf("a suspicious loss removed people: %d", n)
	}
	write("people: [")
	if d, err := w.Read(t.Context()); err == nil || d.Len() != 5 {
		t.Errorf("a broken file: %d people, %v", d.Len(), err)
	}
}

func TestDoubles(t *testing.T) {
	d, problems := directory.New([]presence.Person{
		{ID: "b", Name: "Ben", Subjects: []presence.Subject{{Scheme: "tel", Value: "1"}}},
		{ID: "a", Name: "Ann", Subjects: []presence.Subject{{Scheme: "tel", Value: "1"}, {Scheme: "tel", Value: "2"}}},
		{ID: "a", Name: "Ann again"},
		{Name: "Nobody"},
	})
	if len(problems) != 3 || d.Len() != 2 {
		t.Errorf("%v", problems)
	}
	if p, _ := d.Find(presence.Subject{Scheme: "tel", Value: "1"}); p.ID != "a" {
		t.Errorf("the first by name keeps it, got %s", p.ID)
	}
	if got := d.Subjects("tel"); len(got) != 2 || got[0].Value != "1" {
		t.Errorf("%v", got)
	}
}
