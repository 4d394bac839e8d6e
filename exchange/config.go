package exchange

import (
	"net"
	"net/url"
	"strings"
	"time"

	"presenced/exchange/ews"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is one Exchange server, or one array of them behind one address.
type Config struct {
	Name          string        `yaml:"name" default:"exchange" doc:"Name of this server; its sources are called name/calendar and name/replies."`
	URL           string        `yaml:"url" doc:"Address of Exchange Web Services, such as https://mail.example.com/EWS/Exchange.asmx."`
	User          string        `yaml:"user" doc:"Service account, as DOMAIN\\user or user@example.com."`
	PasswordFile  secret.File   `yaml:"password_file" doc:"File that holds the password of the service account."`
	Auth          string        `yaml:"auth" default:"ntlm" doc:"How the account logs in: ntlm or basic."`
	Mailbox       string        `yaml:"mailbox" doc:"Mail address of the service account. Automatic replies are asked for in its name."`
	Lanes         int           `yaml:"lanes" default:"4" doc:"Connections to the server, and so requests at a time: 1 to 8."`
	Interval      time.Duration `yaml:"interval" default:"5m" doc:"How often calendars and automatic replies are read."`
	Horizon       time.Duration `yaml:"horizon" default:"48h" doc:"How far ahead calendars are read, from midnight UTC: 24h to 168h."`
	Timeout       time.Duration `yaml:"timeout" default:"90s" doc:"How long one request may take."`
	TLS           trust.Config  `yaml:"tls" doc:"Whom to believe on encrypted connections."`
	Replies       bool          `yaml:"replies" default:"true" doc:"Whether to read automatic replies."`
	BusyIsMeeting bool          `yaml:"busy_is_meeting" default:"false" doc:"Whether a busy entry counts as a meeting where the server does not tell."`
}

// DefaultConfig gives the defaults.
func DefaultConfig() Config {
	return Config{
		Name: "exchange", Auth: string(ews.NTLM), Lanes: 4, Interval: 5 * time.Minute, Horizon: 48 * time.Hour, Timeout: 90 * time.Second,
		TLS: trust.Config{MinVersion: "1.2"}, Replies: true,
	}
}

// Check tells everything that is wrong, without opening a file or a connection.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) { ps = append(ps, config.Wrong(path, format, args...)) }
	if c.Name == "" || len(c.Name) > 100 || strings.ContainsFunc(c.Name, func(r rune) bool { return r <= ' ' || r == '/' }) {
		wrong("name", "a name without blanks and slashes is needed, such as exchange-hq")
	}
	switch u, err := url.Parse(c.URL); {
	case c.URL == "":
		wrong("url", "the address of Exchange Web Services is needed, such as https://mail.example.com/EWS/Exchange.asmx")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		wrong("url", "no such address is possible; want one like https://mail.example.com/EWS/Exchange.asmx")
	case u.User != nil:
		wrong("url", "the address must not hold a user or password; use user and password_file")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		wrong("url", "calendars must not go over the network in clear; use https")
	}
	if c.User == "" {
		wrong("user", "the service account is needed, as DOMAIN\\user or user@example.com")
	}
	if c.PasswordFile == "" {
		wrong("password_file", "the file with the password of the service account is needed")
	}
	if c.Auth != string(ews.NTLM) && c.Auth != string(ews.Basic) {
		wrong("auth", "%q is none of ntlm, basic", c.Auth)
	}
	if c.Replies && !strings.Contains(c.Mailbox, "@") {
		wrong("mailbox", "the mail address of the service account is needed to read automatic replies; or set replies to false")
	}
	if c.Lanes < 1 || c.Lanes > ews.MaxLanes {
		wrong("lanes", "%d is not within 1 and %d", c.Lanes, ews.MaxLanes)
	}
	for _, d := range []struct {
		path             string
		value, low, high time.Duration
	}{
		{"interval", c.Interval, 30 * time.Second, 6 * time.Hour},
		{"horizon", c.Horizon, day, 7 * day},
		{"timeout", c.Timeout, 5 * time.Second, 10 * time.Minute},
	} {
		if d.value < d.low || d.value > d.high {
			wrong(d.path, "%s is not within %s and %s", d.value, d.low, d.high)
		}
	}
	return append(ps, config.Under("tls", c.TLS.Check())...)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
