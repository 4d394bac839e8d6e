package web

import (
	"net"
	"net/netip"
	"strconv"

	"presenced/internal/config"
)

// Config is the section web of the configuration.
type Config struct {
	Listen string `yaml:"listen" default:"127.0.0.1:8080" doc:"Address to serve the pages on, as host:port. Nobody signs in here, so keep it on loopback and put a proxy before it that lets in whom you trust; the proxy has to pass on this address as the Host."`
	Title  string `yaml:"title" default:"presenced" doc:"Name of the site, shown at the head of every page and in the browser's tab."`
}

// DefaultConfig gives the section of an installation that nobody configured.
func DefaultConfig() Config {
	return Config{Listen: "127.0.0.1:8080", Title: "presenced"}
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
	if c.Title == "" || len(c.Title) > maxTitle {
		ps = append(ps, config.Wrong("title", "the title has %d bytes; 1 to %d are right", len(c.Title), maxTitle))
	}
	return ps
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
