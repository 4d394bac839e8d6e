package sip

import (
	"net"
	"regexp"
	"strconv"
	"time"

	"presenced/bridges/pidf"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is one entry of the sip: section: one presence server to publish to.
type Config struct {
	Name         string        `yaml:"name" default:"sip" doc:"Name of this bridge, unique among the bridges. Publications are kept under it across a restart."`
	Address      string        `yaml:"address" doc:"Host and port of the presence server, such as presence.example.com:5060. It must answer OPTIONS."`
	Secondary    string        `yaml:"secondary" doc:"Host and port of the server to publish to while the first one does not work. Empty: none."`
	Transport    string        `yaml:"transport" default:"udp" doc:"How to reach the servers: udp, tcp or tls. With udp, a large request goes by TCP where the server takes it."`
	TLS          trust.Config  `yaml:"tls" doc:"Certificates, where transport is tls."`
	Entity       string        `yaml:"entity" doc:"SIP address of a person, such as sip:{tel}@example.com. A scheme in braces stands for the person's first subject of that scheme; people without one are not published."`
	User         string        `yaml:"user" doc:"User name for digest authentication. Empty: the server does not ask."`
	PasswordFile secret.File   `yaml:"password_file" doc:"File with the password of user."`
	Expires      time.Duration `yaml:"expires" default:"600s" doc:"Life of a publication to ask for. It is refreshed after about 80 percent of what the server grants."`
	Rate         int           `yaml:"rate" default:"50" doc:"Requests per second to the server at most."`
	Outstanding  int           `yaml:"outstanding" default:"20" doc:"Requests that wait for an answer at the same time at most."`
	BusyBasic    string        `yaml:"busy_basic" default:"open" doc:"Basic status of a person who is busy: open, or closed as Cisco has it."`
}

// DefaultConfig gives a Config with the defaults filled in.
func DefaultConfig() Config {
	return Config{
		Name: "sip", Transport: "udp", TLS: trust.Config{MinVersion: "1.2"},
		Expires: 10 * time.Minute, Rate: 50, Outstanding: 20, BusyBasic: "open",
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
	if err := checkAddress(c.Address); err != nil {
		wrong("address", "%q is not host:port: %v", c.Address, err)
	}
	if c.Secondary != "" {
		if err := checkAddress(c.Secondary); err != nil {
			wrong("secondary", "%q is not host:port: %v", c.Secondary, err)
		}
		if c.Secondary == c.Address {
			wrong("secondary", "it is the same server as address")
		}
	}
	switch c.Transport {
	case "udp", "tcp":
	case "tls":
		ps = append(ps, config.Under("tls", c.TLS.Check())...)
	default:
		wrong("transport", "%q is none of udp, tcp, tls", c.Transport)
	}
	if !placeholder.MatchString(c.Entity) {
		wrong("entity", "%q names no subject of a person: want something like sip:{tel}@example.com", c.Entity)
	} else if _, err := parseEntity(placeholder.ReplaceAllString(c.Entity, "a")); err != nil {
		if _, err := parseEntity(placeholder.ReplaceAllString(c.Entity, "sip:a@example.com")); err != nil {
			if _, err := parseEntity(placeholder.ReplaceAllString(c.Entity, "a@example.com")); err != nil {
				wrong("entity", "%q does not make a SIP address: want something like sip:{tel}@example.com", c.Entity)
			}
		}
	}
	if (c.User == "") != (c.PasswordFile == "") {
		wrong("user", "user and password_file go together")
	}
	if c.Expires < time.Second || c.Expires > longestLife {
		wrong("expires", "%v is not between 1s and %v", c.Expires, longestLife)
	}
	if c.Rate < 1 || c.Rate > 10000 {
		wrong("rate", "%d is not between 1 and 10000", c.Rate)
	}
	if c.Outstanding < 1 || c.Outstanding > 1000 {
		wrong("outstanding", "%d is not between 1 and 1000", c.Outstanding)
	}
	if b := pidf.Basic(c.BusyBasic); b != pidf.Open && b != pidf.Closed {
		wrong("busy_basic", "%q is neither open nor closed", c.BusyBasic)
	}
	return ps
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" {
		return &net.AddrError{Err: "no host", Addr: address}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return &net.AddrError{Err: "no port", Addr: address}
	}
	return nil
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`) //nolint:gochecknoglobals // compiled once, never changed
