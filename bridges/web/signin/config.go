package signin

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is the section web.signin of the configuration.
type Config struct {
	Required string        `yaml:"required" default:"auto" doc:"Whether one has to sign in to see anything: true, false, or auto, which asks it of everybody unless the page is on loopback only."`
	URL      string        `yaml:"url" doc:"Address at which browsers reach the page, such as https://presence.example.com; needed for OIDC, and behind a proxy."`
	Proxies  []string      `yaml:"proxies" doc:"Addresses or networks of the proxies before the page, such as 10.0.0.5 or 10.1.0.0/24. Only their X-Forwarded-For is believed, when log-ins are counted."`
	Local    bool          `yaml:"local" default:"true" doc:"Accounts of presenced's own. The first one is made with the link that the first start prints."`
	Idle     time.Duration `yaml:"idle" default:"8h" doc:"How long a session lasts without a request."`
	Absolute time.Duration `yaml:"absolute" default:"24h" doc:"How long a session lasts at most."`
	LDAP     LDAPConfig    `yaml:"ldap" doc:"Sign-in with the password of a directory."`
	OIDC     OIDCConfig    `yaml:"oidc" doc:"Sign-in at an OpenID provider."`
}

// Groups says which role the members of which groups have; the highest counts.
type Groups struct {
	Administrators []string `yaml:"administrators" doc:"Groups whose members administer, in the spelling of the server, such as cn=admins,ou=groups,dc=example,dc=com."`
	Operators      []string `yaml:"operators" doc:"Groups whose members see everybody and set anybody's presence."`
	People         []string `yaml:"people" doc:"Groups whose members may sign in; empty: whoever the server lets in."`
}

func (g *Groups) role(of []string) Role {
	in := func(groups []string) bool {
		return slices.ContainsFunc(of, func(one string) bool {
			return slices.ContainsFunc(groups, func(want string) bool { return strings.EqualFold(one, want) })
		})
	}
	switch {
	case in(g.Administrators):
		return Administrator
	case in(g.Operators):
		return Operator
	case len(g.People) == 0 || in(g.People):
		return Person
	default:
		return Nobody
	}
}

// LDAPConfig is the section web.signin.ldap.
type LDAPConfig struct {
	URL          string        `yaml:"url" doc:"Address of the server: ldaps://ldap.example.com, or ldap:// with start_tls. Empty: no sign-in by LDAP."`
	StartTLS     bool          `yaml:"start_tls" default:"false" doc:"Switch an ldap:// connection to TLS before anything else is sent."`
	TLS          trust.Config  `yaml:"tls" doc:"TLS towards the server."`
	DN           string        `yaml:"dn" doc:"The name to bind with, where it follows from the user name: uid={name},ou=people,dc=example,dc=com. Empty: it is searched for."`
	BindDN       string        `yaml:"bind_dn" doc:"Name to search with; empty: anonymous."`
	PasswordFile secret.File   `yaml:"password_file" doc:"File with the password of bind_dn."`
	Base         string        `yaml:"base" doc:"Where to search, such as ou=people,dc=example,dc=com."`
	Filter       string        `yaml:"filter" default:"(uid={name})" doc:"Whose entry it is; Active Directory: (sAMAccountName={name})."`
	Name         string        `yaml:"name" default:"cn" doc:"Attribute with the name to show."`
	ID           string        `yaml:"id" doc:"Attribute with the identifier that the person has in the directory of presenced; empty: mail decides."`
	Mail         string        `yaml:"mail" default:"mail" doc:"Attribute with the mail address by which the person is found. Take none that people can change themselves: who has the address has that person's rights."`
	Group        string        `yaml:"group" default:"memberOf" doc:"Attribute of the entry with its groups."`
	GroupBase    string        `yaml:"group_base" doc:"Where to search for groups, if entries do not say theirs."`
	GroupFilter  string        `yaml:"group_filter" default:"(member={dn})" doc:"Which groups below group_base an entry is in."`
	Timeout      time.Duration `yaml:"timeout" default:"10s" doc:"How long one sign-in may take."`
	Groups       `yaml:",inline"`
}

// OIDCConfig is the section web.signin.oidc.
type OIDCConfig struct {
	Issuer       string      `yaml:"issuer" doc:"Address of the provider, such as https://login.example.com/realms/main. Empty: no sign-in by OIDC."`
	ClientID     string      `yaml:"client_id" doc:"What the provider knows presenced as. Its redirect URI is the url of the page with /signin/oidc/callback."`
	ClientSecret secret.File `yaml:"client_secret_file" doc:"File with the secret of client_id; empty: a public client, which PKCE alone protects."`
	CAFile       string      `yaml:"ca_file" doc:"PEM file with the certificate authorities to believe instead of the system's."`
	Scopes       []string    `yaml:"scopes" default:"openid,profile,email" doc:"What to ask for."`
	Label        string      `yaml:"label" default:"Sign in with single sign-on" doc:"What the button says."`
	Claim        string      `yaml:"claim" default:"email" doc:"Claim by which the person is found. Take none that people can change themselves; an email that the provider says is not verified finds nobody."`
	Scheme       string      `yaml:"scheme" default:"mail" doc:"What the claim is in the directory: mail, id, sip or jid."`
	Group        string      `yaml:"group" default:"groups" doc:"Claim with the groups."`
	Groups       `yaml:",inline"`
}

// Required values.
const (
	requiredAuto  = "auto"
	requiredTrue  = "true"
	requiredFalse = "false"
)

// Demanded tells whether one has to sign in to a page that is served on loopback
// only, or not.
func (c *Config) Demanded(loopback bool) bool {
	return c.Required == requiredTrue || c.Required != requiredFalse && !loopback
}

// Offers tells whether there is any way to sign in.
func (c *Config) Offers() bool { return c.Local || c.LDAP.URL != "" || c.OIDC.Issuer != "" }

// DefaultConfig gives the section of an installation that nobody configured.
func DefaultConfig() Config {
	return Config{
		Required: requiredAuto, Local: true, Idle: 8 * time.Hour, Absolute: 24 * time.Hour,
		LDAP: LDAPConfig{Filter: "(uid={name})", Name: "cn", Mail: "mail", Group: "memberOf", GroupFilter: "(member={dn})", Timeout: 10 * time.Second, TLS: trust.Config{MinVersion: "1.2"}},
		OIDC: OIDCConfig{Scopes: []string{"openid", "profile", "email"}, Label: "Sign in with single sign-on", Claim: "email", Scheme: "mail", Group: "groups"},
	}
}

// Check finds everything wrong with c, without I/O.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if c.Required != requiredAuto && c.Required != requiredTrue && c.Required != requiredFalse {
		ps = append(ps, config.Wrong("required", "%q is none of true, false, auto", c.Required))
	}
	if c.URL != "" {
		if _, err := parseOrigin(c.URL); err != nil {
			ps = append(ps, config.Wrong("url", "%v", err))
		}
	}
	for i, p := range c.Proxies {
		if _, err := parseNetwork(p); err != nil {
			ps = append(ps, config.Wrong(fmt.Sprintf("proxies[%d]", i), "%q is neither an address nor a network such as 10.1.0.0/24", p))
		}
	}
	if c.Idle < time.Minute || c.Idle > c.Absolute {
		ps = append(ps, config.Wrong("idle", "%s is not between 1m and absolute (%s)", c.Idle, c.Absolute))
	}
	if c.Absolute > 30*24*time.Hour {
		ps = append(ps, config.Wrong("absolute", "%s is longer than 720h", c.Absolute))
	}
	if c.Required == requiredTrue && !c.Offers() {
		ps = append(ps, config.Wrong("required", "nobody could sign in: turn on local, ldap or oidc"))
	}
	if c.LDAP.URL != "" {
		ps = append(ps, config.Under("ldap", c.LDAP.Check())...)
	}
	if c.OIDC.Issuer != "" {
		ps = append(ps, config.Under("oidc", c.OIDC.Check())...)
		if c.URL == "" {
			ps = append(ps, config.Wrong("url", "oidc needs it: the provider sends browsers back there"))
		}
	}
	return ps
}

// Check finds what is wrong with c, which has a URL.
func (c *LDAPConfig) Check() []config.Problem {
	var ps []config.Problem
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "ldap" && u.Scheme != "ldaps":
		ps = append(ps, config.Wrong("url", "%q is no address such as ldaps://ldap.example.com", c.URL))
	case u.Scheme == "ldaps" && c.StartTLS:
		ps = append(ps, config.Wrong("start_tls", "goes with ldap://, an ldaps:// connection is TLS already"))
	case u.Scheme == "ldap" && !c.StartTLS && !loopback(u.Host):
		ps = append(ps, config.Wrong("url", "passwords would cross the network in clear: use ldaps://, or start_tls"))
	}
	if c.DN != "" {
		if _, err := ldap.ParseDN(strings.ReplaceAll(c.DN, "{name}", "x")); err != nil || !strings.Contains(c.DN, "{name}") {
			ps = append(ps, config.Wrong("dn", "%q is no name with {name} in it, such as uid={name},ou=people,dc=example,dc=com", c.DN))
		}
		if c.BindDN != "" {
			ps = append(ps, config.Wrong("bind_dn", "has no effect beside dn; leave out one of them"))
		}
	} else {
		if c.Base == "" {
			ps = append(ps, config.Wrong("base", "is missing; or say dn"))
		}
		ps = append(ps, checkFilter("filter", c.Filter, "{name}")...)
	}
	if c.BindDN != "" && c.PasswordFile == "" {
		ps = append(ps, config.Wrong("password_file", "bind_dn needs it"))
	}
	if c.GroupBase != "" {
		ps = append(ps, checkFilter("group_filter", c.GroupFilter, "{dn}")...)
	}
	if c.Timeout < time.Second || c.Timeout > time.Minute {
		ps = append(ps, config.Wrong("timeout", "%s is not between 1s and 1m", c.Timeout))
	}
	return append(ps, config.Under("tls", c.TLS.Check())...)
}

func checkFilter(key, filter, hole string) []config.Problem {
	if _, err := ldap.CompileFilter(strings.ReplaceAll(filter, hole, "x")); err != nil || !strings.Contains(filter, hole) {
		return []config.Problem{config.Wrong(key, "%q is no LDAP filter with %s in it, such as (uid=%s)", filter, hole, hole)}
	}
	return nil
}

// Check finds what is wrong with c, which has an issuer.
func (c *OIDCConfig) Check() []config.Problem {
	var ps []config.Problem
	if u, err := url.Parse(c.Issuer); err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Host)) || u.RawQuery != "" || u.Fragment != "" {
		ps = append(ps, config.Wrong("issuer", "%q is no address such as https://login.example.com/realms/main", c.Issuer))
	}
	if c.ClientID == "" {
		ps = append(ps, config.Wrong("client_id", "is missing"))
	}
	if !slices.Contains(c.Scopes, "openid") {
		ps = append(ps, config.Wrong("scopes", "openid has to be among them"))
	}
	if c.Claim == "" {
		ps = append(ps, config.Wrong("claim", "is missing: nobody would be found in the directory"))
	}
	if c.Label == "" || len(c.Label) > 60 {
		ps = append(ps, config.Wrong("label", "the label has %d bytes; 1 to 60 are right", len(c.Label)))
	}
	switch c.Scheme {
	case "mail", "id", "sip", "jid":
	default:
		ps = append(ps, config.Wrong("scheme", "%q is none of mail, id, sip, jid", c.Scheme))
	}
	return ps
}

// parseOrigin reads the address of the page: a scheme and a host, nothing more.
func parseOrigin(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no address such as https://presence.example.com", text)
	}
	if u.Scheme == "http" && !loopback(u.Host) {
		return nil, fmt.Errorf("%q: passwords and sessions would cross the network in clear; plain http is for loopback only", text)
	}
	u.Path = ""
	return u, nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	return netip.ParsePrefix(text)
}

// loopback tells whether the host of an address is this machine.
func loopback(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	a, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && a.IsLoopback()
}
