package web

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"presenced/bridges/web/certificate"
	"presenced/bridges/web/signin"
	"presenced/internal/config"
)

// Config is the section web of the configuration.
type Config struct {
	Listen string             `yaml:"listen" default:"127.0.0.1:8080" doc:"Address to serve the pages on, as host:port. Beyond loopback it takes tls, or a proxy that speaks TLS and signin.url."`
	Title  string             `yaml:"title" default:"presenced" doc:"Name of the site, shown at the head of every page and in the browser's tab."`
	TLS    certificate.Config `yaml:"tls" doc:"TLS of the page."`
	SignIn signin.Config      `yaml:"signin" doc:"Who may use the page and its API."`
}

// DefaultConfig gives the section of an installation that nobody configured.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:8080", Title: "presenced", TLS: certificate.DefaultConfig(), SignIn: signin.DefaultConfig()}
}

const maxTitle = 60 // bytes; a longer one does not fit a narrow screen

// Check finds everything wrong with c, without I/O.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		ps = append(ps, config.Wrong("listen", "%q is not of the form host:port, such as 127.0.0.1:8080", c.Listen))
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		ps = append(ps, config.Wrong("listen", "port %q is not a number from 0 to 65535", port))
	}
	ps = append(ps, config.Under("tls", c.TLS.Check())...)
	ps = append(ps, config.Under("signin", c.SignIn.Check())...)
	switch {
	case len(ps) > 0, c.Local(): // what is wrong already may be the cause
	case !c.SignIn.Offers() && c.SignIn.Demanded(false):
		ps = append(ps, config.Wrong("signin.required", "other machines reach the page and nobody could sign in: turn on local, ldap or oidc, or say required: false to show it to everybody"))
	case c.SignIn.Offers() && !c.TLS.Enabled() && !strings.HasPrefix(c.SignIn.URL, "https:"):
		ps = append(ps, config.Wrong("listen", "other machines reach %s, and passwords would cross the network in clear: turn on web.tls, or put a proxy that speaks TLS before it and say its address in signin.url", c.Listen))
	}
	if c.TLS.Enabled() && strings.HasPrefix(c.SignIn.URL, "http:") {
		ps = append(ps, config.Wrong("signin.url", "says http, and web.tls serves https"))
	}
	if c.Title == "" || len(c.Title) > maxTitle {
		ps = append(ps, config.Wrong("title", "the title has %d bytes; 1 to %d are right", len(c.Title), maxTitle))
	}
	return ps
}

// Local tells whether the page can be reached from this machine only.
func (c *Config) Local() bool {
	return loopback(c.Listen) && (c.SignIn.URL == "" || loopback(c.host()))
}

// Origin gives the address at which browsers reach the page, as far as c knows:
// name is what it is called where it listens on every address.
func (c *Config) Origin(name string) string {
	if c.SignIn.URL != "" {
		return c.SignIn.URL
	}
	host, port, _ := net.SplitHostPort(c.Listen) //nolint:errcheck // checked by Check
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = name
	}
	return c.scheme() + "://" + net.JoinHostPort(host, port)
}

func (c *Config) scheme() string {
	if c.TLS.Enabled() {
		return "https"
	}
	return "http"
}

// host gives the Host that browsers send if they reach the page at signin.url; empty:
// that is not said.
func (c *Config) host() string {
	u, err := url.Parse(c.SignIn.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// loopback tells whether hostport names this machine and nothing else.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil { // a Host header may have no port
		host = hostport
		if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
			host = host[1 : n-1]
		}
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
