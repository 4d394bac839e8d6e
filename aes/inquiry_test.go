package aes

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"presenced/aes/csta"
	"presenced/fixtures/sim/simaes"
	"presenced/internal/secret"
)

// inquire starts a switch and an inquiry there.
func inquire(t *testing.T, change func(*simaes.Config)) (*simaes.Switch, *Inquiry) {
	t.Helper()
	server := simaes.Config{User: "svc", Password: "secret", Switch: "CM1", Stations: []string{"4750", "4751"}}
	change(&server)
	sw := simaes.New(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = sw.Serve(ctx, l) })
	t.Cleanup(func() { cancel(); serving.Wait() })
	cfg := DefaultConfig()
	cfg.Name, cfg.Address, cfg.Plain, cfg.User, cfg.Switch = "aes-cm1", l.Addr().String(), true, "svc", "CM1"
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.PasswordFile = secret.File(password)
	q, err := Inquire(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return sw, q
}

// A session that is granted for a second is still there after two.
func TestInquiryKeepsTheSessionAlive(t *testing.T) {
	sw, q := inquire(t, func(c *simaes.Config) { c.SessionDuration = time.Second })
	if wrong := q.Examine(t.Context(), []string{"4750"}); wrong != nil {
		t.Fatal(wrong)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if h, err := q.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%+v, %v", h, err)
	}
	if err := sw.Do(time.Now(), strings.Fields("dnd 4750 on")); err != nil {
		t.Fatal(err)
	}
	h, err := q.Next(t.Context())
	if m, ok := h.Message.(*csta.DoNotDisturbEvent); err != nil || !ok || m.On != csta.Yes || h.Extension != "4750" {
		t.Errorf("%+v, %v", h, err)
	}
}

// What the server says while an answer is waited for is not lost, and what is no message
// is told with its device.
func TestInquiryHearsEverything(t *testing.T) {
	sw, q := inquire(t, func(c *simaes.Config) { c.Dialect = simaes.EarlyEvents | simaes.OwnIDs })
	if wrong := q.Examine(t.Context(), []string{"4750", "4751"}); wrong != nil {
		t.Fatal(wrong)
	}
	for _, command := range []string{"raw 4751 <HeldEvent><monitorCrossRefID>{{xref}}</monitorCrossRefID><cause>", "lost", "stop 4750"} {
		if err := sw.Do(time.Now(), strings.Fields(command)); err != nil {
			t.Fatal(err)
		}
	}
	var heard []string
	for range 5 {
		h, err := q.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		what := "malformed"
		switch h.Message.(type) {
		case *csta.DoNotDisturbEvent:
			what = "do not disturb"
		case *csta.SystemStatus:
			what = "status"
		case *csta.MonitorStopped:
			what = "stopped"
		}
		heard = append(heard, h.Extension+" "+what)
	}
	if got := strings.Join(heard, ", "); got != "4750 do not disturb, 4751 do not disturb, 4751 malformed,  status, 4750 stopped" {
		t.Error(got)
	}
}

// The end of the session, and of the connection, is told, and Close does not wait for
// what will not come.
func TestInquiryEnds(t *testing.T) {
	for command, want := range map[string]string{"terminate": "the server ended the session", "drop": "the connection was lost"} {
		t.Run(command, func(t *testing.T) {
			sw, q := inquire(t, func(*simaes.Config) {})
			if err := sw.Do(time.Now(), []string{command}); err != nil {
				t.Fatal(err)
			}
			_, err := q.Next(t.Context())
			f := (*Fault)(nil)
			if !errors.As(err, &f) || f.Kind != FaultConnect || !strings.Contains(f.What, want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Close gives back at once what the session held; the licences are not left to the
// clean-up of the server.
func TestInquiryGivesItsMonitorsBack(t *testing.T) {
	sw, q := inquire(t, func(*simaes.Config) {})
	if err := sw.Do(time.Now(), strings.Fields("limit 1")); err != nil {
		t.Fatal(err)
	}
	other, err := Inquire(t.Context(), q.cfg)
	if err != nil {
		t.Fatal(err)
	}
	wrong := other.Examine(t.Context(), []string{"4750"})
	other.Close()
	if wrong = append(wrong, q.Examine(t.Context(), []string{"4751"})...); len(wrong) != 0 {
		t.Error(wrong)
	}
}
