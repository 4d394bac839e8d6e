package lps

import (
	"net/netip"
	"testing"

	"presenced/bridges/sip/wire"
)

// TestHostOf wants a new connection to go to nobody but the host of the old one.
func TestHostOf(t *testing.T) {
	tcp := wire.Flow{Network: wire.TCP, Remote: netip.MustParseAddrPort("192.0.2.1:34567")}
	six := wire.Flow{Network: wire.TCP, Remote: netip.MustParseAddrPort("[2001:db8::1]:34567")}
	for _, c := range []struct {
		contact string
		flow    wire.Flow
		want    string
	}{
		{"sip:bob@192.0.2.1:5062;transport=tcp", tcp, "192.0.2.1:5062"},
		{"sip:bob@192.0.2.1", tcp, "192.0.2.1:5060"},
		{"sip:bob@[2001:db8::1]:5062", six, "[2001:db8::1]:5062"},
		{"sip:bob@[2001:db8::1]", six, "[2001:db8::1]:5060"},
		{"sip:bob@192.0.2.2:5062", tcp, ""},
		{"sip:bob@192.0.2.1:0", tcp, ""},
		{"sip:bob@phone.example.test:5062", tcp, ""},
		{"sip:192.0.2.1:5062", tcp, ""},
		{"sip:bob@192.0.2.1:5062", wire.Flow{Network: wire.UDP, Remote: tcp.Remote}, ""},
		{"sip:bob@192.0.2.1:5062", wire.Flow{Network: wire.TLS, Remote: tcp.Remote}, ""},
	} {
		got := hostOf([]byte(c.contact), c.flow)
		if c.want == "" && got.IsValid() || c.want != "" && got.String() != c.want {
			t.Errorf("%s on %s: %v, want %q", c.contact, c.flow, got, c.want)
		}
	}
}
