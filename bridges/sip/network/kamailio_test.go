package network

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
	"presenced/internal/secret"
)

// A phone publishes at a real server, and what it says is known; nothing is, when it is
// gone.
func TestKamailio(t *testing.T) {
	for name, transport := range map[string]string{"UDP": "udp", "TCP": "tcp"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := peers.Kamailio(t, peers.WithDatabase())
			cfg := testConfig(server.Address)
			cfg.Transport = transport
			r := start(t, cfg, crowd("4750", "4751"))
			r.await("4750", "nothing") // the first NOTIFY has no body
			phone := peers.SIPPhone(t, server, "sip:4750@example.test")
			phone.Publish(600, "open", "on-the-phone")
			r.await("4750", "phone-connected session-active")
			phone.Publish(600, "open")
			r.await("4750", "session-active")
			phone.Publish(0, "")
			r.await("4750", "session-offline") // Kamailio says closed
			r.await("4751", "nothing")
			r.fares("live", func(s presence.Status) bool {
				return s.Phase == presence.PhaseLive && s.Done == 2 && s.Total == 2 && len(s.Problems) == 0
			})
			r.stop()
		})
	}
}

// The subscription is refreshed, and what expires at the server is not known any more.
func TestKamailioRefresh(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t, peers.WithMinExpires(1), peers.WithDatabase())
	cfg := testConfig(server.Address)
	cfg.Expires = 2 * time.Second
	r := start(t, cfg, crowd("4750"))
	phone := peers.SIPPhone(t, server, "sip:4750@example.test")
	phone.Publish(600, "open", "on-the-phone")
	r.await("4750", "phone-connected session-active")
	r.ledger.mu.Lock()
	first := r.newest["4750"].Expires
	r.ledger.mu.Unlock()
	for over := time.Now().Add(patience); time.Now().Before(first); {
		if got := r.facts("4750"); got != "phone-connected session-active" || time.Now().After(over) {
			t.Fatalf("meanwhile %s is known", got)
		}
		<-time.After(10 * time.Millisecond)
	}
	phone.Publish(1, "open", "on-the-phone") // and it dies
	r.await("4750", "expired")
	r.stop()
}

// A server that was started anew knows no dialog: 481, and all is subscribed to again.
func TestKamailioForgets(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t, peers.WithMinExpires(1))
	cfg := testConfig(server.Address)
	cfg.Expires = 2 * time.Second
	r := start(t, cfg, crowd("4750"))
	r.await("4750", "nothing")
	server.Restart()
	peers.SIPPhone(t, server, "sip:4750@example.test").Publish(600, "open")
	r.await("4750", "session-active")
	r.stop()
}

// Digest as the publisher has it, and the shortest interval of the server.
func TestKamailioCredentials(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t, peers.WithSHA256())
	cfg := testConfig(server.Address)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(server.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.PasswordFile, cfg.Expires = server.User, secret.File(file), 30*time.Second
	r := start(t, cfg, crowd("4750"))
	r.await("4750", "nothing")
	r.fares("live", func(s presence.Status) bool { return s.Phase == presence.PhaseLive && s.Done == 1 })
	r.stop()
}

// sipp as a list server: full state, a change, and the end.
func TestSIPpList(t *testing.T) {
	t.Parallel()
	server := peers.SIPpListServer(t)
	cfg := testConfig(server.Address)
	cfg.ListURI = "sip:friends@example.test"
	r := start(t, cfg, crowd("alice", "bob", "carol"))
	r.await("alice", "session-active")
	r.await("bob", "session-offline")
	if s := r.Status(); s.Done != 2 || s.Total != 3 || s.Unmonitored["carol"] == "" {
		t.Errorf("%+v", s)
	}
	r.stop()
	server.Passed()
}
