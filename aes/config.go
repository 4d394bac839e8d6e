package aes

import (
	"net"
	"strconv"
	"strings"
	"time"

	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config is one AES server and one switch behind it; each is a source of its own.
type Config struct {
	Name            string        `yaml:"name" doc:"Name of this source, unique and stable, such as aes-cm1."`
	Address         string        `yaml:"address" doc:"Host and port of the AES server; the port is 4722 if it is left out, or 4721 if plain is set."`
	Secondary       string        `yaml:"secondary" doc:"Host and port of a second AES server for the same switch, tried when the first cannot be reached."`
	Plain           bool          `yaml:"plain" default:"false" doc:"Connects without TLS, so that the password and every call can be read on the way. For laboratories only."`
	TLS             trust.Config  `yaml:"tls" doc:"How the server is recognized, and a client certificate if the server demands one."`
	User            string        `yaml:"user" doc:"CTI user of AES. It needs unrestricted access, or device monitoring of the extensions in the security database."`
	PasswordFile    secret.File   `yaml:"password_file" doc:"File that holds the password of the user."`
	Switch          string        `yaml:"switch" doc:"Name of the switch connection as AES knows it, such as CM1."`
	Extensions      []string      `yaml:"extensions" doc:"Extensions of this switch: 21042, a range such as 21000-21999, or a group such as 21xxx, where each x stands for a digit. Empty: all. Several sources of one switch share the extensions that they have in common; while one is lost, the others cover for it."`
	Capacity        int           `yaml:"capacity" default:"0" doc:"How many extensions this source monitors at most, such as the licences of its server. Zero: no limit."`
	Priority        []string      `yaml:"priority" doc:"Groups of people whose extensions are monitored before all others, the most important group first. The same for all sources of one switch."`
	Versions        []string      `yaml:"versions" default:"privE,privA,priv9,priv8,priv7,priv6" doc:"Protocol versions to offer, the preferred one first. A name that begins with priv stands for that version of the third edition; anything else is offered as it is."`
	SessionDuration time.Duration `yaml:"session_duration" default:"180s" doc:"How long the server keeps a session without a sign of life. The server may grant less; a sign of life goes out at half of what it grants."`
	CleanupDelay    time.Duration `yaml:"cleanup_delay" default:"60s" doc:"How long the server keeps the monitors after a lost connection, so that the session can be taken up again."`
	Outstanding     int           `yaml:"outstanding" default:"20" doc:"How many requests may wait for an answer at a time."`
	Rate            int           `yaml:"rate" default:"50" doc:"How many requests are sent in a second at most. Zero: as many as outstanding lets through, for a server that does nothing else."`
	Grace           time.Duration `yaml:"grace" default:"30s" doc:"How long what is known counts after the server, or its link to the switch, was lost."`
	Agents          bool          `yaml:"agents" default:"true" doc:"Also asks who is logged on as a contact-centre agent at each extension, and what the agent does. Off: a sixth of the requests at the start less."`
	FeatureRound    time.Duration `yaml:"feature_round" default:"1m" doc:"Shortest time between two such questions about one extension, which counts where there are few."`
	FeaturePoll     time.Duration `yaml:"feature_poll" default:"100ms" doc:"Time between two extensions whose do not disturb, forwarding and agents are asked again, round and round. Zero: they are asked once only."`
}

// DefaultConfig gives a Config with the defaults.
func DefaultConfig() Config {
	return Config{
		TLS:             trust.Config{MinVersion: "1.2"},
		Versions:        []string{"privE", "privA", "priv9", "priv8", "priv7", "priv6"},
		SessionDuration: 180 * time.Second,
		CleanupDelay:    60 * time.Second,
		Agents:          true,
		Outstanding:     20,
		Rate:            50,
		Grace:           30 * time.Second,
		FeatureRound:    time.Minute,
		FeaturePoll:     100 * time.Millisecond,
	}
}

// Check finds everything that is wrong, without I/O.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) { ps = append(ps, config.Wrong(path, format, args...)) }
	if c.Name == "" {
		wrong("name", "a source needs a name, such as aes-cm1")
	}
	if _, _, err := c.server(c.Address); err != nil {
		wrong("address", "%v", err)
	}
	if c.Secondary != "" {
		if _, _, err := c.server(c.Secondary); err != nil {
			wrong("secondary", "%v", err)
		}
	}
	if c.User == "" {
		wrong("user", "the name of a CTI user is needed")
	}
	if c.PasswordFile == "" {
		wrong("password_file", "a file with the password of the user is needed")
	}
	if c.Switch == "" {
		wrong("switch", "the name of the switch connection is needed")
	}
	for i, text := range c.Extensions {
		if _, err := parseNumbers(text); err != nil {
			wrong("extensions["+strconv.Itoa(i)+"]", "%v", err)
		}
	}
	if c.Capacity < 0 {
		wrong("capacity", "%d is no number of extensions; zero means no limit", c.Capacity)
	}
	if len(c.Versions) == 0 {
		wrong("versions", "at least one version must be offered")
	}
	for i, v := range c.Versions {
		if v == "" || len(v) > 200 {
			wrong("versions["+strconv.Itoa(i)+"]", "%q is no version", v)
		}
	}
	between := func(path string, d, low, high time.Duration) {
		if d < low || d > high {
			wrong(path, "%s is not between %s and %s", d, low, high)
		}
	}
	between("session_duration", c.SessionDuration, 10*time.Second, 2*time.Hour)
	between("cleanup_delay", c.CleanupDelay, time.Second, 2*time.Hour)
	between("grace", c.Grace, 0, time.Hour)
	between("feature_round", c.FeatureRound, 0, time.Hour)
	if c.FeaturePoll != 0 {
		between("feature_poll", c.FeaturePoll, 10*time.Millisecond, time.Hour)
	}
	if c.Outstanding < 1 || c.Outstanding > 1000 {
		wrong("outstanding", "%d is not between 1 and 1000", c.Outstanding)
	}
	if c.Rate < 0 || c.Rate > 1000 {
		wrong("rate", "%d is not between 0 and 1000", c.Rate)
	}
	if !c.Plain {
		ps = append(ps, config.Under("tls", c.TLS.Check())...)
	}
	return ps
}

// server splits an address, and puts in the usual port if there is none.
func (c *Config) server(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		port = "4722"
		if c.Plain {
			port = "4721"
		}
		if host, port, err = net.SplitHostPort(net.JoinHostPort(strings.Trim(address, "[]"), port)); err != nil {
			return "", "", err
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 || strings.ContainsAny(host, " /") {
		return "", "", &net.AddrError{Err: "want host:port, such as aes.example.com:4722", Addr: address}
	}
	return host, port, nil
}

// protocols gives the versions as they are sent.
func (c *Config) protocols() []string {
	out := make([]string, len(c.Versions))
	for i, v := range c.Versions {
		if strings.HasPrefix(v, "priv") {
			v = "http://www.ecma-international.org/standards/ecma-323/csta/ed3/" + v
		}
		out[i] = v
	}
	return out
}
