package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"presenced/fixtures/peers"
)

// TestReceivers runs the service with a webhook and an MQTT broker: what is set by
// hand arrives at both; what the receiver refuses is seen and tried again by the
// command line, also after a restart.
func TestReceivers(t *testing.T) {
	broker := peers.Mosquitto(t, false)
	var mu sync.Mutex
	took, refused := map[string]string{}, true
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e struct {
			Type string
			Data struct{ Person, State string }
		}
		data, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if err := json.Unmarshal(data, &e); err != nil || !strings.HasPrefix(r.Header.Get("Webhook-Signature"), "v1,") {
			t.Errorf("%s %v", data, err)
		}
		if e.Data.Person == "birch" && refused {
			w.WriteHeader(http.StatusGone)
			return
		}
		took[e.Data.Person] = e.Data.State
	}))
	defer receiver.Close()
	key, password := write(t, "key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), write(t, "password", broker.Password+"\n")
	s := newSite(t, fmt.Sprintf(`webhooks:
- {name: crm, url: %q, secret_file: %s, people: [alder, birch]}
mqtt:
- {name: house, url: "mqtt://%s", user: presenced, password_file: %s, people: [alder]}
`, receiver.URL, key, broker.Addr, password))
	ask := func(want string, args ...string) {
		t.Helper()
		code, out, errs := command(t, append(args, "--socket", s.socket())...)
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("%v: exit %d\n%s%s\nwant %q", args, code, out, errs, want)
		}
	}
	if code, out, errs := command(t, "check", "-c", s.file, "--online"); !strings.Contains(out, "bridge crm: connected") || !strings.Contains(out, "bridge house: connected") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	first := s.process()
	s.listening()
	gone := func() bool {
		_, out, _ := command(t, "status", "--url", s.url)
		return strings.Contains(out, "410 Gone; presenced webhook retry crm tries again")
	}
	eventually(t, "the receiver wants nothing any more", gone)
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	second := s.process()
	defer func() {
		_ = second.Process.Signal(syscall.SIGTERM)
		_ = second.Wait()
	}()
	s.listening()
	eventually(t, "that is remembered", gone)
	mu.Lock()
	refused = false
	mu.Unlock()
	ask("alder is set to dnd", "set", "alder", "dnd")
	ask("birch is set to away", "set", "birch", "away")
	ask("crm is tried again; dead letters among that: 0", "webhook", "retry", "crm")
	eventually(t, "the receiver was told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return took["alder"] == "dnd" && took["birch"] == "away" && len(took) == 2
	})
	ask("PERSON", "webhook", "dead", "crm")
	ask("webhook retry", "audit")
	broker.Watch("presence/#").Await("alder is published, and nobody else", func(holds map[string]string) bool {
		return len(holds) == 2 && strings.Contains(holds["presence/alder"], `"state":"dnd"`) && holds["presence/$availability"] == "online"
	})
	if code, _, errs := command(t, "webhook", "dead", "nobody", "--socket", s.socket()); code == 0 || !strings.Contains(errs, `no webhook of the configuration has the name "nobody"`) {
		t.Errorf("exit %d, %s", code, errs)
	}
}
