package sip

import (
	"time"

	"presenced/bridges/pidf"
	"presenced/bridges/sip/entity"
	"presenced/bridges/sip/lookup"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is one entry of the sip: section: one presence server to publish to.
type Config struct {
	Name         string        `yaml:"name" default:"sip" doc:"Name of this bridge, unique among the bridges. Publications are kept under it across a restart."`
	Address      string        `yaml:"address" doc:"Presence server: host and port, such as presence.example.com:5060, or a name alone, such as example.com, whose NAPTR and SRV records say where it is (RFC 3263). It must answer OPTIONS."`
	Secondary    string        `yaml:"secondary" doc:"The server to publish to while the first one does not work, in the same form. Empty: none."`
	Transport    string        `yaml:"transport" default:"udp" doc:"How to reach the servers: udp, tcp, tls, or auto, where the DNS says which; an address with a port is then reached by udp. With udp, a large request goes by TCP where the server takes it."`
	TLS          trust.Config  `yaml:"tls" doc:"Certificates, where transport is tls or auto. The server must show one for the name in address."`
	Entity       string        `yaml:"entity" doc:"SIP address of a person, such as sip:{tel}@example.com. A scheme in braces stands for the person's first subject of that scheme; people without one are not published."`
	User         string        `yaml:"user" doc:"User name for digest authentication. Empty: the server does not ask."`
	PasswordFile secret.File   `yaml:"password_file" doc:"File with the password of user."`
	Expires      time.Duration `yaml:"expires" default:"600s" doc:"Life of a publication to ask for. It is refreshed after about 80 percent of what the server grants."`
	Rate         int           `yaml:"rate" default:"0" doc:"Requests per second to each server at most. 0: 50, or twice what it takes to refresh everybody in time, whichever is more."`
	Outstanding  int           `yaml:"outstanding" default:"20" doc:"Requests to each server that wait for an answer at the same time at most."`
	Body         string        `yaml:"body" default:"rich" doc:"What documents hold: rich is all of PIDF, RPID and CIPID, plain the basic status and a note alone (RFC 3863), for servers that take no more."`
	BusyBasic    string        `yaml:"busy_basic" default:"open" doc:"Basic status of a person who is busy: open, or closed as Cisco has it."`
	OutOfOffice  string        `yaml:"out_of_office_basic" default:"open" doc:"Basic status of a person who is out of office: open or closed."`
	DisplayName  bool          `yaml:"display_name" default:"true" doc:"Whether documents have the name of the person."`
	Microsoft    bool          `yaml:"microsoft" default:"false" doc:"Whether documents have the activity also in the form that Microsoft's servers and clients read."`
	Cisco        bool          `yaml:"cisco" default:"false" doc:"Whether documents have the activity also in the form that phones of Cisco read."`
}

// DefaultConfig gives a Config with the defaults filled in.
func DefaultConfig() Config {
	return Config{
		Name: "sip", Transport: "udp", TLS: trust.Config{MinVersion: "1.2"},
		Expires: 10 * time.Minute, Outstanding: 20, Body: "rich", BusyBasic: "open", OutOfOffice: "open", DisplayName: true,
	}
}

// Check finds every problem, without I/O.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) {
		ps = append(ps, config.Wrong(path, format, args...))
	}
	if c.Name == "" {
		wrong("name", "a name is needed")
	}
	if _, _, err := lookup.SplitAddress(c.Address); err != nil {
		wrong("address", "%q is neither host:port nor a name: %v", c.Address, err)
	}
	if c.Secondary != "" {
		if _, _, err := lookup.SplitAddress(c.Secondary); err != nil {
			wrong("secondary", "%q is neither host:port nor a name: %v", c.Secondary, err)
		}
		if c.Secondary == c.Address {
			wrong("secondary", "it is the same server as address")
		}
	}
	switch c.Transport {
	case "udp", "tcp":
	case "tls", lookup.Auto:
		ps = append(ps, config.Under("tls", c.TLS.Check())...)
	default:
		wrong("transport", "%q is none of udp, tcp, tls, auto", c.Transport)
	}
	if err := entity.CheckTemplate(c.Entity); err != nil {
		wrong("entity", "%v", err)
	}
	if (c.User == "") != (c.PasswordFile == "") {
		wrong("user", "user and password_file go together")
	}
	if c.Expires < time.Second || c.Expires > longestLife {
		wrong("expires", "%v is not between 1s and %v", c.Expires, longestLife)
	}
	if c.Rate < 0 || c.Rate > maxRate {
		wrong("rate", "%d is not between 0 and %d", c.Rate, maxRate)
	}
	if c.Outstanding < 1 || c.Outstanding > 1000 {
		wrong("outstanding", "%d is not between 1 and 1000", c.Outstanding)
	}
	if c.Body != "rich" && c.Body != "plain" {
		wrong("body", "%q is neither rich nor plain", c.Body)
	}
	basic := func(path, value string) {
		if b := pidf.Basic(value); b != pidf.Open && b != pidf.Closed {
			wrong(path, "%q is neither open nor closed", value)
		}
	}
	basic("busy_basic", c.BusyBasic)
	basic("out_of_office_basic", c.OutOfOffice)
	return ps
}

// document gives what the server wants different in documents of a person.
func (c *Config) document(name string) pidf.Options {
	o := pidf.Options{
		Busy: pidf.Basic(c.BusyBasic), OutOfOffice: pidf.Basic(c.OutOfOffice),
		OldActivities: c.Microsoft, Cisco: c.Cisco, Plain: c.Body == "plain",
	}
	if c.DisplayName {
		o.Name = name
	}
	return o
}
