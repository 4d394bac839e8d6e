package signin_test

import (
	"slices"
	"testing"

	"presenced/bridges/web/signin"
	"presenced/internal/config"
)

// section is web.signin as a whole file.
type section struct {
	signin.Config `yaml:",inline"`
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"required: maybe", []string{"required"}},
		{"required: true\nlocal: false", []string{"required"}},
		{"url: http://presence.example.com", []string{"url"}},
		{"url: https://presence.example.com/page", []string{"url"}},
		{"proxies: [10.0.0.1, 10.0.0.0/8, x]", []string{"proxies[2]"}},
		{"idle: 2s", []string{"idle"}},
		{"idle: 25h", []string{"idle"}},
		{"absolute: 1000h", []string{"absolute"}},
		{"ldap: {url: 'ldap://ldap.example.com', base: x}", []string{"ldap.url"}},
		{"ldap: {url: 'ldaps://ldap.example.com', start_tls: true, base: x}", []string{"ldap.start_tls"}},
		{"ldap: {url: 'ldaps://ldap.example.com'}", []string{"ldap.base"}},
		{"ldap: {url: 'ldaps://ldap.example.com', base: x, filter: (uid=anna), bind_dn: y, timeout: 5m}", []string{"ldap.filter", "ldap.password_file", "ldap.timeout"}},
		{"ldap: {url: 'ldaps://ldap.example.com', dn: 'uid=x', bind_dn: y, password_file: z, group_base: g, group_filter: '(member={dn}'}", []string{"ldap.dn", "ldap.bind_dn", "ldap.group_filter"}},
		{"url: https://p.example.com\noidc: {issuer: 'https://login.example.com/x', client_id: p}", nil},
		{"oidc: {issuer: 'http://login.example.com', label: '', scheme: tel, claim: '', scopes: [email]}", []string{"oidc.issuer", "oidc.client_id", "oidc.scopes", "oidc.claim", "oidc.label", "oidc.scheme", "url"}},
	} {
		var s section
		err := config.Parse("test", []byte(c.text), &s)
		var got []string
		if e, ok := err.(*config.Error); ok { //nolint:errorlint // Parse gives it as it is
			for _, w := range e.Wrong {
				got = append(got, w.Path)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%v, want %v", c.text, err, c.want)
		}
	}
	for required, want := range map[string][2]bool{"auto": {false, true}, "true": {true, true}, "false": {false, false}} {
		c := signin.Config{Required: required}
		if c.Demanded(true) != want[0] || c.Demanded(false) != want[1] {
			t.Error(required)
		}
	}
}
