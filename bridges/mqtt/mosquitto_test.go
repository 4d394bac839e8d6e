package mqtt

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
	"presenced/internal/secret"
)

// says wants topics to have these states, and nothing else below presence/; "-" is
// availability.
func says(wants ...string) func(map[string]string) bool {
	return func(holds map[string]string) bool {
		if len(holds) != len(wants) {
			return false
		}
		for _, w := range wants {
			topic, want, _ := strings.Cut(w, "=")
			got := holds[topic]
			var d struct{ State string }
			if json.Unmarshal([]byte(got), &d) == nil {
				got = d.State
			}
			if got != want {
				return false
			}
		}
		return true
	}
}

// TestMosquitto publishes to a real broker and has a client of its own look: changes,
// people who leave and are hidden, also while nobody looked, and others' topics.
func TestMosquitto(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "tls"}[secure], func(t *testing.T) {
			s := peers.Mosquitto(t, secure)
			w := s.Watch("presence/#")
			s.Publish("presence/kitchen", "motion")
			s.Publish("presence/other", `{"version":1,"person":"ann"}`)
			s.Publish("presence/zoe", `{"person":"zoe"}`) // of another program, that has people too
			o := newOffice("ann", "bob", "cat/+#$%dan")
			p := New(testConfig(t, s), o, quiet())
			stop := run(t, p, o)
			if err := Try(t.Context(), testConfig(t, s)); err != nil {
				t.Errorf("a trial: %v", err)
			}
			foreign := []string{"presence/kitchen=motion", "presence/other=", "presence/zoe="}
			await := func(what string, more ...string) {
				t.Helper()
				w.Await(what, says(append(more, foreign...)...))
			}
			await("everybody", "presence/$availability=online", "presence/ann=available", "presence/bob=available", "presence/cat%2F%2B%23%24%25dan=available")
			o.set("ann", presence.Busy)
			o.remove("cat/+#$%dan")
			await("changes", "presence/$availability=online", "presence/ann=busy", "presence/bob=available")
			if st := p.Status(); st.Phase != presence.PhaseLive {
				eventually(t, "live", func() bool { return p.Status().Phase == presence.PhaseLive })
			}
			if err := stop(); err == nil || p.Status().Phase != presence.PhaseConnecting {
				t.Errorf("after the end: %v, %+v", err, p.Status())
			}
			await("presenced is gone in order", "presence/$availability=offline", "presence/ann=busy", "presence/bob=available")
			s.Watch("presence/#").Await("who comes now learns it too", says(append(foreign, "presence/$availability=offline", "presence/ann=busy", "presence/bob=available")...))

			o.remove("bob") // while nobody looked
			o.set("ann", presence.Away)
			run(t, p, o)
			await("the next one", "presence/$availability=online", "presence/ann=away")
			o.hide("ann")
			await("nobody is shown", "presence/$availability=online")
			if err := Try(t.Context(), testConfig(t, s)); err != nil { // and nothing is different
				t.Errorf("a trial: %v", err)
			}
			s.Watch("presence/#").Await("what is retained", says(append(foreign, "presence/$availability=online")...))
		})
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within ten seconds: %s", what)
		}
		<-tick.C
	}
}

// TestBrokerRestarts ends the broker, which has forgotten nothing, and then everything.
func TestBrokerRestarts(t *testing.T) {
	s := peers.Mosquitto(t, false)
	o := newOffice("ann", "bob")
	p := New(testConfig(t, s), o, quiet())
	run1, ended := t.Context(), make(chan error, 1)
	go func() { ended <- p.Run(run1, o) }()
	s.Watch("presence/#").Await("everybody", says("presence/$availability=online", "presence/ann=available", "presence/bob=available"))
	s.Stop()
	select {
	case err := <-ended:
		if err == nil || presence.IsPermanent(err) {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the end of the broker is not noticed")
	}
	if err := p.Run(t.Context(), o); err == nil || presence.IsPermanent(err) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("without a broker: %v", err)
	}
	o.set("bob", presence.Busy)
	s.Forget()
	s.Start()
	run(t, p, o)
	s.Watch("presence/#").Await("everybody again", says("presence/$availability=online", "presence/ann=available", "presence/bob=busy"))
}

// TestHomeAssistant looks at the discovery of a person, who is renamed and leaves.
func TestHomeAssistant(t *testing.T) {
	s := peers.Mosquitto(t, false)
	w := s.Watch("homeassistant/#")
	o := newOffice("ann", "b_b")
	cfg := testConfig(t, s)
	cfg.HomeAssistant = true
	p := New(cfg, o, quiet())
	stop := run(t, p, o)
	const ann, bob = "homeassistant/sensor/presenced-broker/ann/config", "homeassistant/sensor/presenced-broker/b_5Fb/config"
	wants := `{"name":"Ann","unique_id":"presenced-broker_ann","state_topic":"presence/ann","value_template":"{{ value_json.state }}",` +
		`"json_attributes_topic":"presence/ann","availability_topic":"presence/$availability","icon":"mdi:account","qos":1,` +
		`"device":{"identifiers":["presenced-broker"],"name":"Presence (broker)"},"origin":{"name":"presenced"}}`
	w.Await("two sensors", func(h map[string]string) bool { return len(h) == 2 && h[ann] == wants && h[bob] != "" })
	o.mu.Lock()
	o.people["ann"] = presence.Person{ID: "ann", Name: "Ann Alder"}
	o.mu.Unlock()
	p.Review()
	w.Await("another name", func(h map[string]string) bool { return strings.Contains(h[ann], `"name":"Ann Alder"`) })
	o.remove("ann")
	w.Await("one left", func(h map[string]string) bool { return len(h) == 1 && h[bob] != "" })
	_ = stop()
	o.remove("b_b")
	run(t, p, o)
	w.Await("the other one left while nobody looked", func(h map[string]string) bool { return len(h) == 0 })
}

// TestDenied looks at what an operator sees where the broker does not allow things.
func TestDenied(t *testing.T) {
	s := peers.Mosquitto(t, true)
	o := newOffice("ann")
	for want, change := range map[string]func(*Config){
		`does not let "nobody" in`: func(c *Config) { c.User = "nobody" },
		"certificate":              func(c *Config) { c.TLS.CAFile = "" },
		"no such file":             func(c *Config) { c.PasswordFile = secret.File("/nowhere") },
	} {
		cfg := testConfig(t, s)
		change(&cfg)
		p := New(cfg, o, quiet())
		err := p.Run(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) || presence.IsPermanent(err) != (want != "certificate") || p.Status().LastError != err.Error() {
			t.Errorf("want %q, got %v, permanent: %v", want, err, presence.IsPermanent(err))
		}
	}
	cfg := testConfig(t, s)
	cfg.Prefix = "denied"
	p := New(cfg, o, quiet())
	run(t, p, o)
	eventually(t, "the refusal shows", func() bool {
		st := p.Status()
		return st.Phase == presence.PhaseDegraded && strings.Contains(st.LastError, "the broker does not take denied/ann: not authorized")
	})
	cfg.Prefix, cfg.Name = "hidden", "broker"
	cfg.ClientID = "another"
	p = New(cfg, o, quiet())
	run(t, p, o)
	s.Watch("hidden/#").Await("published where it cannot be looked at", says("hidden/$availability=online", "hidden/ann=available"))
}
