package wire_test

import (
	"strings"
	"testing"

	"presenced/bridges/sip/wire"
	"presenced/internal/config"
)

// section is a file with this configuration in it.
type section struct {
	SIP wire.Config `yaml:"sip" doc:"The section."`
}

func (s *section) Check() []config.Problem { return config.Under("sip", s.SIP.Check()) }

func TestConfig(t *testing.T) {
	if err := config.Parse("x.yaml", nil, new(section)); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for text, want := range map[string]string{
		"listen: []":                                           "sip.listen: want at least one address",
		"listen: [sctp:127.0.0.1:5060]":                        `sip.listen: "sctp:127.0.0.1:5060" is not udp:, tcp: or tls:`,
		"listen: [udp:example.com:5060]":                       "is not udp:, tcp: or tls: with an address and a port",
		"listen: [udp:0.0.0.0:5060]":                           "sip.host: is needed",
		"{listen: [\"udp:[::]:5060\"], host: \"2001:db8::1\"}": "want an IPv6 address in brackets",
		"{listen: [\"udp:[::]:5060\"], host: a b}":             "is no host name",
		"listen: [tls:127.0.0.1:5061]":                         "sip.tls.cert_file: is needed to listen on tls",
		"client_certificates: maybe":                           `"maybe" is none of none, optional, required`,
		"client_certificates: required":                        "sip.tls.ca_file: is needed",
		"queue: 0":                                             "sip.queue: 0 is less than 1",
		"write_queue: 100":                                     "sip.write_queue: 100 is less than 65535",
		"timeout: 1ms":                                         "sip.timeout: 1ms is less than 500ms",
		"idle: 0s":                                             "sip.idle: 0s is less than 1s",
	} {
		if err := config.Parse("x.yaml", []byte("sip:\n  "+text), new(section)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
