package wire

import (
	"net/netip"
	"runtime"
	"strings"
	"time"

	"presenced/internal/config"
	"presenced/internal/trust"
)

// Config says where to listen and how much to bear.
type Config struct {
	Listen             []string      `yaml:"listen" default:"udp:127.0.0.1:5060,tcp:127.0.0.1:5060" doc:"Where to listen: udp:, tcp: or tls:, an address and a port, such as udp:0.0.0.0:5060 or tls:[::]:5061."`
	Host               string        `yaml:"host" doc:"Host name or address by which peers reach this server; it stands in Via. Empty: the address of listen, where that is one."`
	TLS                trust.Config  `yaml:"tls" doc:"Certificate to show, as a server and as a client, and whom to believe. Needed to listen on tls."`
	ClientCertificates string        `yaml:"client_certificates" default:"none" doc:"Whether who connects by TLS has to show a certificate of ca_file: none, optional or required."`
	Workers            int           `yaml:"workers" default:"0" doc:"Requests to work on at the same time. 0: one for each processor."`
	Queue              int           `yaml:"queue" default:"4096" doc:"Requests that wait for one worker at most; more are answered 503."`
	Transactions       int           `yaml:"transactions" default:"100000" doc:"Answers by UDP to remember for 32 seconds, in case they are lost; about 0.5 KB each."`
	Outstanding        int           `yaml:"outstanding" default:"20000" doc:"Own requests that wait for an answer at the same time at most."`
	Timeout            time.Duration `yaml:"timeout" default:"32s" doc:"How long an answer is waited for."`
	Rate               int           `yaml:"rate" default:"1000" doc:"Requests per second from one address; more are dropped. 0: no limit, as for a proxy that everything comes through."`
	Connections        int           `yaml:"connections" default:"4096" doc:"TCP and TLS connections at most."`
	ConnectionsEach    int           `yaml:"connections_per_address" default:"100" doc:"The same from one address."`
	Idle               time.Duration `yaml:"idle" default:"10m" doc:"How long a connection may be silent before it is closed. A keep-alive is no silence."`
	WriteQueue         int           `yaml:"write_queue" default:"1048576" doc:"Bytes that may wait for a connection whose peer reads slowly; more close it."`
}

// Check finds every problem, without I/O.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) {
		ps = append(ps, config.Wrong(path, format, args...))
	}
	if len(c.Listen) == 0 {
		wrong("listen", "want at least one address, such as udp:0.0.0.0:5060")
	}
	secure := false
	for _, l := range c.Listen {
		network, address, ok := parseListen(l)
		if !ok {
			wrong("listen", "%q is not udp:, tcp: or tls: with an address and a port, such as udp:0.0.0.0:5060", l)
			continue
		}
		secure = secure || network == TLS
		if address.Addr().IsUnspecified() && c.Host == "" {
			wrong("host", "is needed, because %q listens on every address", l)
		}
	}
	if c.Host != "" && !isHost([]byte(c.Host)) {
		wrong("host", "%q is no host name or address (IPv6 in brackets)", c.Host)
	} else if c.Host != "" && c.Host[0] != '[' && strings.Contains(c.Host, ":") {
		wrong("host", "%q: want an IPv6 address in brackets, and no port", c.Host)
	}
	ps = append(ps, config.Under("tls", c.TLS.Check())...)
	if secure && c.TLS.CertFile == "" {
		wrong("tls.cert_file", "is needed to listen on tls")
	}
	switch c.ClientCertificates {
	case "none":
	case "optional", "required":
		if c.TLS.CAFile == "" {
			wrong("tls.ca_file", "is needed to check the certificates of clients")
		}
	default:
		wrong("client_certificates", "%q is none of none, optional, required", c.ClientCertificates)
	}
	least := func(path string, n, low int) {
		if n < low {
			wrong(path, "%d is less than %d", n, low)
		}
	}
	least("workers", c.Workers, 0)
	least("queue", c.Queue, 1)
	least("transactions", c.Transactions, 1)
	least("outstanding", c.Outstanding, 1)
	least("rate", c.Rate, 0)
	least("connections", c.Connections, 1)
	least("connections_per_address", c.ConnectionsEach, 1)
	least("write_queue", c.WriteQueue, maxMessage)
	if c.Timeout < t1 {
		wrong("timeout", "%v is less than %v", c.Timeout, t1)
	}
	if c.Idle < time.Second {
		wrong("idle", "%v is less than 1s", c.Idle)
	}
	return ps
}

// parseListen reads "udp:192.0.2.1:5060".
func parseListen(s string) (Network, netip.AddrPort, bool) {
	name, address, _ := strings.Cut(s, ":")
	for _, n := range [...]Network{UDP, TCP, TLS} {
		if n.String() == name {
			at, err := netip.ParseAddrPort(address)
			return n, plain(at), err == nil
		}
	}
	return 0, netip.AddrPort{}, false
}

func (c *Config) workers() int {
	if c.Workers > 0 {
		return c.Workers
	}
	return runtime.GOMAXPROCS(0)
}
