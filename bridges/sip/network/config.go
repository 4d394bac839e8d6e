package network

import (
	"net/netip"
	"time"

	"presenced/bridges/sip/entity"
	"presenced/bridges/sip/lookup"
	"presenced/bridges/sip/wire"
	"presenced/internal/config"
	"presenced/internal/secret"
	"presenced/internal/trust"
)

// Config says where to subscribe, and to what. cmd makes it of a presence service, by
// whose keys it is documented.
type Config struct {
	Name         string // of the source, and of its reports
	Address      string // of the server: host:port, or host alone, whose NAPTR and SRV records say where it is
	Secondary    string // of the one that stands in; empty: none
	Transport    string // udp, tcp, tls, or auto, where the DNS says which
	TLS          trust.Config
	Entity       string // template of the address of a person
	ListURI      string // the list that the server keeps; empty: each person is subscribed to
	Notify       string // IP address and port where the server sends NOTIFY; empty: any port of the address that leads to it. With auto, TLS has the port above it
	User         string
	PasswordFile secret.File
	Expires      time.Duration // life of a subscription to ask for
	Rate         int           // SUBSCRIBEs per second at most; 0: 50, or twice what it takes to refresh all in time
	Outstanding  int           // that wait for an answer at most
}

// Check finds every problem, without I/O.
func (c *Config) Check() []config.Problem {
	var ps []config.Problem
	wrong := func(path, format string, args ...any) {
		ps = append(ps, config.Wrong(path, format, args...))
	}
	if err := entity.CheckTemplate(c.Entity); err != nil {
		wrong("entity", "%v", err)
	}
	if c.ListURI != "" && entity.Check(c.ListURI) != nil {
		wrong("list_uri", "%.100q is no SIP address: want something like sip:friends@example.com", c.ListURI)
	}
	if c.Notify != "" {
		if at, err := netip.ParseAddrPort(c.Notify); err != nil || at.Addr().IsUnspecified() || at.Addr().Zone() != "" {
			wrong("notify_address", "%.100q is not the IP address of this machine and a port, such as 192.0.2.1:5070", c.Notify)
		}
	}
	if c.Transport == "tls" && c.TLS.CertFile == "" {
		wrong("tls.cert_file", "is needed to subscribe by TLS: the server connects to this machine to send what is new")
	}
	return ps
}

// wire gives how to listen at an address, and how to ask.
func (c *Config) wire(at netip.AddrPort) wire.Config {
	listen := []string{c.Transport + ":" + at.String()}
	if c.Transport == lookup.Auto {
		listen = []string{"udp:" + at.String(), "tcp:" + at.String()}
		if c.TLS.CertFile != "" {
			above := at.Port()
			if above != 0 {
				above++
			}
			listen = append(listen, "tls:"+netip.AddrPortFrom(at.Addr(), above).String())
		}
	}
	return wire.Config{
		Listen: listen, TLS: c.TLS, ClientCertificates: "none", Queue: 4096, Transactions: 100000,
		Outstanding: c.Outstanding + 1, Timeout: answerTime, Rate: 1000, Connections: 64, ConnectionsEach: 32, Idle: 10 * time.Minute, WriteQueue: 1 << 20,
	}
}
