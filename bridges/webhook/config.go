package webhook

import (
	"net"
	"net/netip"
	"net/url"
	"time"

	"presenced/bridges/outbox"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is one entry of the webhooks: section.
type Config struct {
	Name       string       `yaml:"name" default:"webhook" doc:"Name of the bridge in status, logs and metrics. Access rules know the receiver as webhook:NAME."`
	URL        string       `yaml:"url" doc:"Where each change is posted to, such as https://crm.example.com/presence. http is for loopback, or with allow_plain. Redirects are not followed."`
	SecretFile secret.File  `yaml:"secret_file" doc:"File with the key of the signature: base64 of 24 to 64 bytes, with or without whsec_ before it. A second one after a space signs besides, while a key is exchanged."`
	People     []string     `yaml:"people" doc:"Who is told of: identifiers of people, and group:NAME. Empty: everybody. The access rules count besides."`
	TLS        trust.Config `yaml:"tls" doc:"Whom to believe, and what to show."`
	AllowPlain bool         `yaml:"allow_plain" default:"false" doc:"Whether http may leave the machine: everybody on the way can read it then."`
	Allow      []string     `yaml:"allow_addresses" doc:"Networks such as 169.254.10.0/24 that are posted to although they are link-local, multicast, or known for the metadata of a cloud, which is refused otherwise."`

	InFlight int           `yaml:"in_flight" default:"4" doc:"Most requests at the same time, one a person; 1 to 64."`
	Rate     int           `yaml:"rate" default:"50" doc:"Most requests per second; 1 to 1000."`
	Timeout  time.Duration `yaml:"timeout" default:"15s" doc:"For one request; 1s to 1m."`
	GiveUp   time.Duration `yaml:"give_up" default:"24h" doc:"How long is tried before a dead letter is left; 1m to 168h."`
}

// The bounds of what can be configured.
const (
	maxInFlight = 64
	maxRate     = 1000
	maxTimeout  = time.Minute
	maxGiveUp   = 7 * 24 * time.Hour
)

// DefaultConfig lacks url and secret_file.
func DefaultConfig() Config {
	return Config{Name: "webhook", TLS: trust.Config{MinVersion: "1.2"}, InFlight: 4, Rate: 50, Timeout: 15 * time.Second, GiveUp: 24 * time.Hour}
}

// Check tells what is wrong with c.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(key, format string, args ...any) { ps = append(ps, config.Wrong(key, format, args...)) }
	if c.Name == "" {
		wrong("name", "a name is needed")
	}
	switch u, err := url.Parse(c.URL); { // the text may hold a secret: it is not quoted
	case c.URL == "":
		wrong("url", "name where changes are posted to, such as https://crm.example.com/presence")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		wrong("url", "is no address such as https://crm.example.com/presence")
	case u.User != nil:
		wrong("url", "holds a user or a password, which do not belong into the configuration; the signature says who sends")
	case u.Scheme == "http" && !c.AllowPlain && !local(u.Hostname()):
		wrong("url", "is http, which everybody on the way can read: use https, or set allow_plain")
	}
	if c.SecretFile == "" {
		wrong("secret_file", "name the file that holds the key of the signature, such as whsec_ and the output of openssl rand -base64 32")
	}
	ps = append(ps, outbox.CheckPeople("people", c.People)...)
	ps = append(ps, config.Under("tls", c.TLS.Check())...)
	if _, err := networks(c.Allow); err != nil {
		wrong("allow_addresses", "%v", err)
	}
	if c.InFlight < 1 || c.InFlight > maxInFlight {
		wrong("in_flight", "%d is not between 1 and %d", c.InFlight, maxInFlight)
	}
	if c.Rate < 1 || c.Rate > maxRate {
		wrong("rate", "%d is not between 1 and %d", c.Rate, maxRate)
	}
	if c.Timeout < time.Second || c.Timeout > maxTimeout {
		wrong("timeout", "%s is not between 1s and %s", c.Timeout, maxTimeout)
	}
	if c.GiveUp < time.Minute || c.GiveUp > maxGiveUp {
		wrong("give_up", "%s is not between 1m and %s", c.GiveUp, maxGiveUp)
	}
	return ps
}

// local tells whether a host is this machine by its name.
func local(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// host gives the host of the URL, with its port if it has one, which is all of it
// that is shown: the rest may hold a secret.
func (c *Config) host() (hostport, host string) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", ""
	}
	if port := u.Port(); port != "" {
		return net.JoinHostPort(u.Hostname(), port), u.Hostname()
	}
	return u.Hostname(), u.Hostname()
}
