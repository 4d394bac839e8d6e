package signin_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
	"presenced/fixtures/peers"
	"presenced/internal/secret"
)

// slapd starts a private OpenLDAP server that takes an empty password for an
// anonymous bind, as some do, and gives its URL.
func slapd(t *testing.T) string {
	t.Helper()
	binary := peers.Find(t, "slapd")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
allow bind_anon_cred bind_anon_dn
pidfile %[1]s/pid
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=example,dc=com
rootdn cn=admin,dc=example,dc=com
rootpw secret
directory %[1]s/db
access to attrs=userPassword by anonymous auth by * none
access to * by * read
`, dir)
	file := filepath.Join(dir, "slapd.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	add := exec.Command("slapadd", "-q", "-f", file)
	add.Path = filepath.Join(filepath.Dir(binary), "slapadd")
	add.Err = nil
	add.Stdin = strings.NewReader(`dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: uid=anna,dc=example,dc=com
objectClass: inetOrgPerson
uid: anna
cn: Anna Berg
sn: Berg
mail: anna@example.com
userPassword: correct horse battery

dn: uid=bob,dc=example,dc=com
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: Bob
userPassword: correct horse battery

dn: cn=admins,dc=example,dc=com
objectClass: groupOfNames
cn: admins
member: uid=anna,dc=example,dc=com

`)
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

func ldapSettings(t *testing.T, address string) signin.Config {
	t.Helper()
	cfg := settings()
	cfg.LDAP = signin.LDAPConfig{
		URL: address, Base: "dc=example,dc=com", Filter: "(uid={name})", Name: "cn", Mail: "mail", Group: "memberOf", GroupBase: "dc=example,dc=com", GroupFilter: "(member={dn})",
		Timeout: 5 * time.Second, Groups: signin.Groups{Administrators: []string{"CN=admins,DC=example,DC=com"}},
	}
	return cfg
}

func TestRealLDAP(t *testing.T) {
	address := slapd(t)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	anonymous, service, template := ldapSettings(t, address), ldapSettings(t, address), ldapSettings(t, address)
	service.LDAP.BindDN, service.LDAP.PasswordFile = "cn=admin,dc=example,dc=com", secret.File(file)
	template.LDAP.DN = "uid={name},dc=example,dc=com"
	for name, cfg := range map[string]signin.Config{"anonymous": anonymous, "service": service, "template": template} {
		cfg.Local = false
		if ps := cfg.Check(); len(ps) > 0 {
			t.Fatal(ps)
		}
		w := newWorld(t, cfg)
		w.people = map[presence.Subject]presence.ID{{Scheme: "mail", Value: "anna@example.com"}: "7"}
		w.desk.Hurry()
		b := w.browse()
		b.signIn("Anna")
		if a := b.get("/services"); a.body != "hello ldap:uid=anna,dc=example,dc=com 7" {
			t.Errorf("%s: %s %s", name, a.Status, a.body)
		}
		b = w.browse()
		b.signIn("bob")
		if a, s := b.get("/own"), b.get("/services"); a.StatusCode != 200 || s.StatusCode != 403 {
			t.Errorf("%s: bob: %s, %s", name, a.Status, s.Status)
		}
		for _, try := range [][2]string{
			{"anna", ""},
			{"anna", "wrong password"},
			{"nobody", password},
			{"*", password},
			{"ann*", password},
			{"anna)(uid=*", password},
			{"anna,dc=example,dc=com", password},
			{"", password},
			{"anna)(|(uid=*))\x00", password},
			{"admin", "secret"},
		} {
			fresh := w.browse()
			w.desk.Amnesty()
			if a := fresh.post("/signin", url.Values{"user": {try[0]}, "password": {try[1]}}); a.StatusCode != http.StatusForbidden || fresh.session() != "" {
				t.Errorf("%s: %q: %s", name, try, a.Status)
			}
		}
		if strings.Contains(w.logged.String(), password) || strings.Contains(w.logged.String(), "malformed") {
			t.Error(w.logged.String())
		}
	}
}

// A name that is put into a DN stays one value of it.
func TestNameInDN(t *testing.T) {
	cfg := ldapSettings(t, slapd(t))
	cfg.Local, cfg.LDAP.DN = false, "uid={name}"
	w := newWorld(t, cfg)
	w.desk.Hurry()
	if a := w.browse().post("/signin", url.Values{"user": {"anna,dc=example,dc=com"}, "password": {password}}); a.StatusCode != http.StatusForbidden {
		t.Errorf("the name brought its own DN: %s", a.Status)
	}
}

// The password of a local account is not shown to the server; while that is not there,
// local accounts sign in, and others are told the same as ever.
func TestLDAPIsDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "ldap://" + l.Addr().String()
	_ = l.Close()
	w := newWorld(t, ldapSettings(t, address))
	w.desk.Hurry()
	b := w.browse()
	b.signIn("ada")
	wrong := w.browse().post("/signin", url.Values{"user": {"ada"}, "password": {"wrong password"}})
	if strings.Contains(w.logged.String(), "ldap://") {
		t.Error("the password of a local account went to LDAP")
	}
	other := w.browse().post("/signin", url.Values{"user": {"bob"}, "password": {"wrong password"}})
	if wrong.StatusCode != other.StatusCode || strings.ReplaceAll(wrong.body, `"ada"`, `"bob"`) != other.body || !strings.Contains(w.logged.String(), "cannot connect") {
		t.Errorf("%s, %s\n%s", wrong.Status, other.Status, w.logged.String())
	}
}
