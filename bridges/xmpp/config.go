package xmpp

import (
	"net"
	"slices"
	"strings"

	"mellium.im/xmpp/jid"

	"presenced/internal/config"
	"presenced/internal/secret"
)

// Config is one entry of the xmpp: section.
type Config struct {
	Name       string      `yaml:"name" default:"xmpp" doc:"Name of the bridge in status, logs and metrics."`
	Address    string      `yaml:"address" default:"127.0.0.1:5347" doc:"Host and port of the server's component listener. The protocol has no encryption: use loopback or a tunnel."`
	Host       string      `yaml:"host" doc:"Host name of the component, such as presence.example.com."`
	SecretFile secret.File `yaml:"secret_file" doc:"File with the secret that the server has for the component."`
	Domains    []string    `yaml:"domains" doc:"Domains whose users may watch. Empty means the parent domain of host."`
	Local      string      `yaml:"local" default:"{id}" doc:"How the part before the @ of a person's address is made, of {id}, {tel}, {mail} and {mail-local}."`
	Channels   bool        `yaml:"channels" doc:"Show phone and calendar as resources of their own, besides the one that sums up."`
	BusyShow   string      `yaml:"busy_show" default:"dnd" doc:"How busy is shown, as XMPP has no such state: dnd or away."`
	Rate       int         `yaml:"rate" default:"500" doc:"Most stanzas per second while everybody is brought up to date after a connection, at most 2000."`
	PingDomain string      `yaml:"ping_domain" doc:"Domain that is pinged to see whether the server lives. Empty means the first of domains."`
}

// maxRate is what a single-threaded server takes without a queue that grows.
const maxRate = 2000

// DefaultConfig lacks host and secret_file.
func DefaultConfig() Config {
	return Config{Name: "xmpp", Address: "127.0.0.1:5347", Local: "{id}", BusyShow: "dnd", Rate: 500}
}

// Check tells what is wrong with c.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	if c.Name == "" {
		ps = append(ps, config.Wrong("name", "a name is needed"))
	}
	if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" {
		ps = append(ps, config.Wrong("address", "%q is not host:port", c.Address))
	}
	switch {
	case c.Host == "":
		ps = append(ps, config.Wrong("host", "the host name of the component is needed, such as presence.example.com"))
	case !isDomain(c.Host):
		ps = append(ps, config.Wrong("host", "%q is no host name", c.Host))
	case len(c.Domains) == 0 && len(c.domains()) == 0:
		ps = append(ps, config.Wrong("domains", "host %q has no parent domain: name the domains of the watchers", c.Host))
	}
	if c.SecretFile == "" {
		ps = append(ps, config.Wrong("secret_file", "name the file that holds the component's secret"))
	}
	for _, d := range c.Domains {
		if !isDomain(d) {
			ps = append(ps, config.Wrong("domains", "%q is no domain", d))
		} else if fold(d) == fold(c.Host) {
			ps = append(ps, config.Wrong("domains", "%q is the component itself", d))
		}
	}
	if _, err := parseTemplate(c.Local); err != nil {
		ps = append(ps, config.Wrong("local", "%v", err))
	}
	if c.BusyShow != "dnd" && c.BusyShow != "away" {
		ps = append(ps, config.Wrong("busy_show", "%q is neither dnd nor away", c.BusyShow))
	}
	if c.Rate < 1 || c.Rate > maxRate {
		ps = append(ps, config.Wrong("rate", "%d is not between 1 and %d", c.Rate, maxRate))
	}
	if c.PingDomain != "" && !isDomain(c.PingDomain) {
		ps = append(ps, config.Wrong("ping_domain", "%q is no domain", c.PingDomain))
	}
	return ps
}

// domains gives the folded domains whose users may watch.
func (c *Config) domains() []string {
	var out []string
	for _, d := range c.Domains {
		out = append(out, fold(d))
	}
	if _, parent, ok := strings.Cut(fold(c.Host), "."); ok && len(out) == 0 && parent != "" {
		out = append(out, parent)
	}
	return out
}

// pingDomain gives the domain whose answer proves that the server lives.
func (c *Config) pingDomain() string {
	if c.PingDomain != "" {
		return fold(c.PingDomain)
	}
	if ds := c.domains(); len(ds) > 0 {
		return ds[0]
	}
	return fold(c.Host)
}

func isDomain(text string) bool {
	_, err := jid.New("", text, "")
	return err == nil && !slices.ContainsFunc([]rune(text), func(r rune) bool { return r <= ' ' || r == '/' || r == '@' })
}

// fold gives a domain as it is compared.
func fold(domain string) string { return strings.ToLower(domain) }
