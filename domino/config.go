package domino

import (
	"fmt"
	"strings"
	"time"

	"presenced/domino/das"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is one entry of the domino: section.
type Config struct {
	Name         string            `yaml:"name" default:"domino" doc:"Name of the source; it shows as NAME/calendar and NAME/ooo."`
	Servers      []Server          `yaml:"servers" doc:"The Domino servers that hold mail files. Mail files on other servers are not covered."`
	User         string            `yaml:"user" doc:"Name to log in with, by HTTP Basic. It needs Reader in every mail file; with less, private entries are invisible and their owners look free."`
	PasswordFile secret.File       `yaml:"password_file" doc:"File with the password of the user. It is read again at each poll."`
	Format       string            `yaml:"format" default:"json" doc:"What to ask Domino Access Services for: json or icalendar."`
	Interval     time.Duration     `yaml:"interval" default:"10m" doc:"Time between two polls. It bounds only how late a new entry is found, not how late a known one begins."`
	Lookback     time.Duration     `yaml:"lookback" default:"24h" doc:"How far back an entry may begin and still be found; at most 744h. Domino lists entries by their start alone."`
	Horizon      time.Duration     `yaml:"horizon" default:"48h" doc:"How far ahead entries are read; at most 168h."`
	Timezone     string            `yaml:"timezone" default:"UTC" doc:"IANA name of the time zone of the mailboxes. It is used for all-day entries and for times without a zone."`
	Timeout      time.Duration     `yaml:"timeout" default:"30s" doc:"How long one request may take."`
	TLS          trust.Config      `yaml:"tls" doc:"TLS settings for all servers and for the out-of-office helper."`
	OutOfOffice  OutOfOfficeConfig `yaml:"out_of_office" doc:"Where out-of-office periods come from."`
}

// Server is one entry of the servers: list.
type Server struct {
	Name string `yaml:"name" doc:"Name of the Domino server as the directory writes it, such as Mail1/Acme or CN=Mail1/O=Acme."`
	URL  string `yaml:"url" doc:"Base URL of its web server, such as https://mail1.example.com."`
}

// OutOfOfficeConfig is the out_of_office: section.
type OutOfOfficeConfig struct {
	Driver string `yaml:"driver" default:"none" doc:"How to learn of out-of-office periods: none or helper."`
	URL    string `yaml:"url" doc:"URL of the helper, with {mail} in place of the mail address."`
}

// The words of format: and driver:.
const (
	FormatJSON      = "json"
	FormatICalendar = "icalendar"
	DriverNone      = "none"
	DriverHelper    = "helper"
)

// Limits of the configuration.
const (
	minInterval = time.Minute
	maxLookback = 31 * 24 * time.Hour
	maxHorizon  = 7 * 24 * time.Hour
)

// DefaultConfig gives what holds where a configuration says nothing.
func DefaultConfig() Config {
	return Config{
		Name: "domino", Format: FormatJSON, Interval: 10 * time.Minute, Lookback: 24 * time.Hour, Horizon: 48 * time.Hour,
		Timezone: "UTC", Timeout: 30 * time.Second, TLS: trust.Config{MinVersion: "1.2"}, OutOfOffice: OutOfOfficeConfig{Driver: DriverNone},
	}
}

// Check gives everything that is wrong with c. It opens no file but the system's
// time zones.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) { ps = append(ps, config.Wrong(path, format, args...)) }

	if strings.TrimSpace(c.Name) == "" {
		wrong("name", "is empty; it names the source")
	}
	if len(c.Servers) == 0 {
		wrong("servers", "is empty; name at least one Domino server and its URL")
	}
	seen := make(map[string]bool)
	for i, s := range c.Servers {
		place := fmt.Sprintf("servers[%d]", i)
		key := das.ServerKey(s.Name)
		switch {
		case key == "":
			wrong(place+".name", "is empty; write the name of the Domino server, such as Mail1/Acme")
		case seen[key]:
			wrong(place+".name", "%q is named before", s.Name)
		}
		seen[key] = true
		if _, err := das.CheckURL(s.URL); err != nil {
			wrong(place+".url", "%v; want something like https://mail1.example.com", err)
		}
	}
	if c.User == "" {
		wrong("user", "is empty; Domino shows calendars to a named user only")
	}
	if strings.Contains(c.User, ":") {
		wrong("user", "holds a colon, which HTTP Basic cannot carry")
	}
	if c.PasswordFile == "" {
		wrong("password_file", "is empty; name the file that holds the password")
	}
	if c.Format != FormatJSON && c.Format != FormatICalendar {
		wrong("format", "%q is neither json nor icalendar", c.Format)
	}
	if c.Interval < minInterval {
		wrong("interval", "%v is below %v", c.Interval, minInterval)
	}
	if c.Lookback < 0 || c.Lookback > maxLookback {
		wrong("lookback", "%v is not between 0s and %v", c.Lookback, maxLookback)
	}
	if c.Horizon < c.Interval || c.Horizon > maxHorizon {
		wrong("horizon", "%v is not between the interval and %v", c.Horizon, maxHorizon)
	}
	if _, err := time.LoadLocation(c.Timezone); err != nil || c.Timezone == "" || c.Timezone == "Local" {
		wrong("timezone", "%q is no IANA time zone, such as Europe/Berlin", c.Timezone)
	}
	if c.Timeout <= 0 {
		wrong("timeout", "%v is no time to wait", c.Timeout)
	}
	ps = append(ps, config.Under("tls", c.TLS.Check())...)
	switch c.OutOfOffice.Driver {
	case DriverNone:
	case DriverHelper:
		if _, err := das.CheckTemplate(c.OutOfOffice.URL); err != nil {
			wrong("out_of_office.url", "%v", err)
		}
	default:
		wrong("out_of_office.driver", "%q is neither none nor helper", c.OutOfOffice.Driver)
	}
	return ps
}
