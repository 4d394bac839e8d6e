package mqtt

import (
	"net"
	"net/netip"
	"net/url"
	"strings"

	"presenced/bridges/outbox"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is one entry of the mqtt: section.
type Config struct {
	Name         string       `yaml:"name" default:"mqtt" doc:"Name of the bridge in status, logs and metrics. Access rules know the broker as mqtt:NAME."`
	URL          string       `yaml:"url" default:"mqtt://127.0.0.1:1883" doc:"The broker: mqtts://host (port 8883), or mqtt://host (port 1883), which is for loopback, or with allow_plain. It must speak MQTT 5."`
	User         string       `yaml:"user" doc:"User name at the broker. Empty: none."`
	PasswordFile secret.File  `yaml:"password_file" doc:"File with the password of user."`
	TLS          trust.Config `yaml:"tls" doc:"Whom to believe, and what to show."`
	AllowPlain   bool         `yaml:"allow_plain" default:"false" doc:"Whether mqtt without TLS may leave the machine: everybody on the way can read it then, the password too."`
	ClientID     string       `yaml:"client_id" doc:"Identifier at the broker, where no two may have the same. Empty: presenced-NAME."`
	Prefix       string       `yaml:"prefix" default:"presence" doc:"What stands before topics: prefix/PERSON, and prefix/$availability."`
	People       []string     `yaml:"people" doc:"Who is published: identifiers of people, and group:NAME. Empty: everybody. The access rules count besides."`
	Rate         int          `yaml:"rate" default:"500" doc:"Most messages per second; 1 to 10000."`

	HomeAssistant   bool   `yaml:"home_assistant" default:"false" doc:"Whether Home Assistant is told of a sensor for each person (MQTT discovery)."`
	DiscoveryPrefix string `yaml:"discovery_prefix" default:"homeassistant" doc:"Discovery prefix of Home Assistant."`
}

const (
	maxRate   = 10_000
	maxPrefix = 200
	maxName   = 128 // of a client: more than any broker must take (23)
)

// DefaultConfig is for a broker on this machine.
func DefaultConfig() Config {
	return Config{Name: "mqtt", URL: "mqtt://127.0.0.1:1883", TLS: trust.Config{MinVersion: "1.2"}, Prefix: "presence", Rate: 500, DiscoveryPrefix: "homeassistant"}
}

// Check tells what is wrong with c.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(key, format string, args ...any) { ps = append(ps, config.Wrong(key, format, args...)) }
	if c.Name == "" {
		wrong("name", "a name is needed")
	}
	switch u, err := url.Parse(c.URL); {
	case err != nil || u.Hostname() == "" || u.Scheme != "mqtt" && u.Scheme != "mqtts" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		wrong("url", "is no address such as mqtts://broker.example.com:8883")
	case u.User != nil:
		wrong("url", "holds a user or a password; they go into user and password_file")
	case u.Scheme == "mqtt" && !c.AllowPlain && !local(u.Hostname()):
		wrong("url", "is without TLS, so that everybody on the way can read it: use mqtts, or set allow_plain")
	}
	if c.User == "" && c.PasswordFile != "" {
		wrong("user", "name the user to whom the password of password_file belongs")
	}
	if len(c.ClientID) > maxName || !sound(c.ClientID) {
		wrong("client_id", "is longer than %d bytes, or not printable", maxName)
	}
	ps = append(ps, config.Under("tls", c.TLS.Check())...)
	ps = append(ps, outbox.CheckPeople("people", c.People)...)
	for key, prefix := range map[string]string{"prefix": c.Prefix, "discovery_prefix": c.DiscoveryPrefix} {
		if prefix == "" || len(prefix) > maxPrefix || strings.ContainsAny(prefix, "+#") || strings.HasPrefix(prefix, "$") || strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") || !sound(prefix) {
			wrong(key, "%.60q is no beginning of a topic, such as office/presence: without + and #, and no / at its ends", prefix)
		}
	}
	if c.Rate < 1 || c.Rate > maxRate {
		wrong("rate", "%d is not between 1 and %d", c.Rate, maxRate)
	}
	return ps
}

// sound tells whether text can stand in a topic as it is.
func sound(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f || r == '\uFFFD' }) < 0
}

// local tells whether a host is this machine by its name.
func local(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// broker gives the address, the host alone, and whether TLS is spoken.
func (c *Config) broker() (address, host string, secure bool) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", "", false // was checked
	}
	secure = u.Scheme == "mqtts"
	port := u.Port()
	switch {
	case port != "":
	case secure:
		port = "8883"
	default:
		port = "1883"
	}
	return net.JoinHostPort(u.Hostname(), port), u.Hostname(), secure
}

func (c *Config) clientID() string {
	if c.ClientID != "" {
		return c.ClientID
	}
	return "presenced-" + c.Name
}
