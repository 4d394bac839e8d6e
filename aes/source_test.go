package aes

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"iter"
	"log"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aes/csta"
	"presenced/aggregator/presence"
	"presenced/internal/secret"
)

// A fixedRoster gives what is sent to it.
type fixedRoster chan []presence.Subject

func (r fixedRoster) Subjects(ctx context.Context, scheme string) iter.Seq[[]presence.Subject] {
	return func(yield func([]presence.Subject) bool) {
		for {
			select {
			case s := <-r:
				if scheme != "tel" || !yield(s) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func tel(extensions ...string) []presence.Subject {
	var out []presence.Subject
	for _, x := range extensions {
		out = append(out, presence.Subject{Scheme: "tel", Value: x})
	}
	return out
}

// A bench is a Source with the server of the link tests at the other end of a pipe.
type bench struct {
	*Source
	server *server
	log    *strings.Builder
	roster fixedRoster

	mu      sync.Mutex
	far     net.Conn
	reports []string
	roots   []string
	refuse  error         // what emit gives
	stall   chan struct{} // emit waits until it is closed
}

func newBench(t *testing.T) *bench { return newBenches(t, testConfig())[0] }

// newBenches gives a bench for each of several sources.
func newBenches(t *testing.T, configs ...Config) []*bench {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range configs {
		configs[i].PasswordFile = secret.File(file)
	}
	log := &strings.Builder{}
	var out []*bench
	for _, source := range NewAll(configs, slog.New(slog.NewTextHandler(log, nil))) {
		b := &bench{Source: source, server: newServer(t, nil), log: log, roster: make(fixedRoster, 1)}
		b.dial = func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			b.mu.Lock()
			b.far = far
			b.mu.Unlock()
			go b.serve(far)
			return near, nil
		}
		out = append(out, b)
	}
	return out
}

func (b *bench) serve(conn net.Conn) {
	r := csta.NewReader(conn)
	for {
		f, err := r.Read()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.server.later = nil
		b.server.request(f)
		b.roots = append(b.roots, b.server.got[len(b.server.got)-1].root)
		answers := b.server.later
		b.mu.Unlock()
		for _, a := range answers {
			wire, _ := a.f.Append(nil)
			go func() { _, _ = conn.Write(wire) }()
		}
	}
}

func (b *bench) push(p []byte) {
	b.mu.Lock()
	far := b.far
	b.mu.Unlock()
	_, _ = far.Write(p)
	synctest.Wait()
}

func (b *bench) start(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- b.Run(ctx, b.roster, func(r presence.Report) error {
			b.mu.Lock()
			stall, refuse := b.stall, b.refuse
			b.mu.Unlock()
			if stall != nil {
				<-stall
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.reports = append(b.reports, describe(r))
			return refuse
		})
	}()
	return done
}

func (b *bench) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := strings.Join(b.reports, "\n")
	b.reports = nil
	return out
}

func (b *bench) has(root string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(strings.Join(b.roots, " ")+" ", root+" ")
}

func (b *bench) forgetRoots() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roots = nil
}

func (b *bench) hangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.far.Close()
}

func event(t *testing.T, document string) []byte {
	t.Helper()
	wire, err := csta.Frame{InvokeID: csta.EventID, XML: []byte(document)}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func delivered(ref string) string {
	return csta3("DeliveredEvent", "<monitorCrossRefID>"+ref+"</monitorCrossRefID><connection><callID>1</callID></connection><localConnectionInfo>alerting</localConnectionInfo>")
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.roster <- tel("4750")
		done := b.start(ctx)
		time.Sleep(time.Second) // of the bubble
		if got := b.said(); got != "4750: idle" {
			t.Fatalf("said %q", got)
		}
		if st := b.Status(); st.Phase != presence.PhaseLive {
			t.Fatalf("%+v", st)
		}
		b.push(event(t, delivered("2"))[:10]) // in two pieces
		b.push(event(t, delivered("2"))[10:])
		if got := b.said(); got != "4750: ringing" {
			t.Errorf("said %q", got)
		}
		b.roster <- tel("4751")
		time.Sleep(time.Second)
		if got := b.said(); got != "4750: nothing\n4751: idle" || !b.has("MonitorStop") {
			t.Errorf("said %q", got)
		}
		time.Sleep(10 * time.Minute)
		if !b.has("ResetApplicationSessionTimer") {
			t.Error("no sign of life")
		}
		began := time.Now()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if !b.has("StopApplicationSession") || time.Since(began) > time.Second {
			t.Errorf("logged out after %s", time.Since(began))
		}
		if log := b.log.String(); strings.Contains(log, "SECRET") || strings.Contains(log, "right") {
			t.Errorf("a secret in the log: %s", log)
		}
	})
}

func TestRunTakesTheSessionUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.roster <- tel("4750")
		done := b.start(t.Context())
		time.Sleep(time.Second)
		b.hangUp()
		if err := <-done; err == nil || presence.IsPermanent(err) {
			t.Fatalf("ended with %v", err)
		}
		if st := b.Status(); st.Phase != presence.PhaseConnecting {
			t.Errorf("%+v", st)
		}
		b.said()
		b.forgetRoots()
		ctx, cancel := context.WithCancel(t.Context())
		b.roster <- tel("4750")
		done = b.start(ctx)
		time.Sleep(time.Second)
		if got := b.said(); got != "4750: idle" || b.has("GetThirdPartyDeviceId") {
			t.Errorf("said %q", got)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestRunEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*bench)
		during  func(*testing.T, *bench)
		check   func(*testing.T, *bench, error)
	}{
		"with a wrong password": {
			prepare: func(b *bench) { b.server.password = "another" },
			check: func(t *testing.T, _ *bench, err error) {
				if !presence.IsPermanent(err) {
					t.Error(err)
				}
			},
		},
		"when the framing breaks": {
			during: func(_ *testing.T, b *bench) { b.push([]byte("\x00\x00\x00\x070000yyyy")) },
			check: func(t *testing.T, b *bench, err error) {
				if !errors.Is(err, csta.ErrFraming) || b.Status().Problems["connections with broken framing"] != 1 || !strings.Contains(b.log.String(), "broken framing") {
					t.Error(err, b.Status(), b.log)
				}
			},
		},
		"when the aggregator takes no more": {
			prepare: func(b *bench) { b.refuse = io.ErrClosedPipe },
			check: func(t *testing.T, _ *bench, err error) {
				if !errors.Is(err, io.ErrClosedPipe) {
					t.Error(err)
				}
			},
		},
		"when the server is silent": {
			during: func(_ *testing.T, b *bench) {
				b.mu.Lock()
				b.server.answer = func(string, string) string { return "-" }
				b.mu.Unlock()
				time.Sleep(5 * time.Minute)
			},
			check: func(t *testing.T, _ *bench, err error) {
				if err == nil || !strings.Contains(err.Error(), "stopped answering") {
					t.Error(err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				if tc.prepare != nil {
					tc.prepare(b)
				}
				b.roster <- tel("4750")
				done := b.start(t.Context())
				time.Sleep(time.Second)
				if tc.during != nil {
					tc.during(t, b)
				}
				tc.check(t, b, <-done)
			})
		})
	}
}

func TestRunDoesNotWaitLongForTheLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		b.roster <- tel()
		done := b.start(ctx)
		time.Sleep(time.Second)
		b.mu.Lock()
		b.server.answer = func(string, string) string { return "-" }
		b.mu.Unlock()
		began := time.Now()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestSlowAggregatorGetsTheNewestReportOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		stall := make(chan struct{})
		b.stall = stall
		b.roster <- tel("4750")
		done := b.start(ctx)
		time.Sleep(time.Second)
		for i := range 100 {
			on := []string{"true", "false"}[i%2]
			b.push(event(t, csta3("DoNotDisturbEvent", "<monitorCrossRefID>2</monitorCrossRefID><doNotDisturbOn>"+on+"</doNotDisturbOn>")))
		}
		b.push(event(t, delivered("2")))
		time.Sleep(3 * time.Minute)
		if !b.has("ResetApplicationSessionTimer") {
			t.Error("no sign of life while the aggregator is behind")
		}
		b.mu.Lock()
		b.stall = nil
		b.mu.Unlock()
		close(stall)
		synctest.Wait()
		if got := b.said(); got != "4750: idle\n4750: ringing" {
			t.Errorf("said %q", got)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	cfg := testConfig()
	cfg.Plain, cfg.Address, cfg.Secondary = true, closed.Addr().String(), l.Addr().String()
	conn, err := New(cfg, slog.New(slog.DiscardHandler)).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	cfg.Secondary = cfg.Address
	if _, err := New(cfg, slog.New(slog.DiscardHandler)).connect(t.Context()); err == nil {
		t.Error("connected to nothing")
	}
}

func TestConnectWithTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig()
	cfg.Address = srv.Listener.Addr().String()
	if _, err := New(cfg, slog.New(slog.DiscardHandler)).connect(t.Context()); err == nil {
		t.Error("believed an authority that nobody knows")
	}
	cfg.TLS.CAFile = file
	conn, err := New(cfg, slog.New(slog.DiscardHandler)).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestConfig(t *testing.T) {
	c := testConfig()
	if ps := c.Check(); len(ps) > 0 {
		t.Error(ps)
	}
	if host, port, err := c.server("aes.example.com"); host != "aes.example.com" || port != "4722" || err != nil {
		t.Error(host, port, err)
	}
	if host, port, err := c.server("[2001:db8::1]:4000"); host != "2001:db8::1" || port != "4000" || err != nil {
		t.Error(host, port, err)
	}
	c.Plain = true
	if _, port, _ := c.server("aes"); port != "4721" {
		t.Error(port)
	}
	if got := c.protocols()[0]; got != csta.NamespaceCSTA+"/privE" {
		t.Error(got)
	}
	bad := Config{Address: "a b", Secondary: ":1", Versions: []string{""}, SessionDuration: time.Second, Outstanding: -1, Rate: -1, FeaturePoll: 1, Extensions: []string{"21xxx", "x1"}, Capacity: -1}
	bad.TLS.MinVersion = "2"
	var paths []string
	for _, p := range bad.Check() {
		paths = append(paths, p.Path)
	}
	if got := strings.Join(paths, " "); got != "name address secondary user password_file switch extensions[1] capacity versions[0] session_duration cleanup_delay feature_poll outstanding rate tls.min_version" {
		t.Error(got)
	}
}
