package exchange

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
	"presenced/fixtures/sim/simexchange"
	"presenced/internal/secret"
)

// A site is a simulated server with alice, and sources whose password file can
// be changed.
type site struct {
	t        *testing.T
	server   *simexchange.Server
	file     string
	tries    atomic.Int32 // of a password: what proves one, whatever the outcome
	calendar *Calendar
	replies  *Replies
}

func newSite(t *testing.T, auth ews.Auth) *site {
	t.Helper()
	s := &site{t: t, file: filepath.Join(t.TempDir(), "password"), server: simexchange.New(simexchange.Config{
		User: `EXAMPLE\svc`, Password: "right", Auth: string(auth), Mailboxes: []string{"alice@example.com"},
	})}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		message, _ := base64.StdEncoding.DecodeString(token)
		if scheme == "Basic" || strings.HasPrefix(string(message), "NTLMSSP\x00\x03") {
			s.tries.Add(1)
		}
		s.server.ServeHTTP(w, r)
	}))
	web.Config.ConnContext = s.server.ConnContext
	web.Start()
	t.Cleanup(web.Close)
	s.write("wrong")
	cfg := testConfig()
	cfg.URL, cfg.Auth, cfg.PasswordFile = web.URL+simexchange.Path, string(auth), secret.File(s.file)
	var err error
	if s.calendar, s.replies, err = New(cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.calendar.account.current().CloseIdle() })
	return s
}

func (s *site) write(password string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, []byte(password+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run gives how often a password was tried, and the error with which the source
// ended; nil: it came to make a report.
func (s *site) run(source *source) (tries int32, err error) {
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	roster := make(fakeRoster, 1)
	roster <- mail("alice@example.com")
	s.tries.Store(0)
	err = source.Run(ctx, roster, func(presence.Report) error {
		cancel()
		return nil
	})
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return s.tries.Load(), err
}

// A wrong password is tried once, by whichever source. A corrected one is used
// at the next start without waiting.
func TestPasswordChanged(t *testing.T) {
	for _, auth := range []ews.Auth{ews.NTLM, ews.Basic} {
		t.Run(string(auth), func(t *testing.T) {
			s := newSite(t, auth)
			for i, want := range []int32{1, 0, 0} {
				source := []*source{s.calendar.source, s.replies.source}[i%2]
				if tries, err := s.run(source); !presence.IsPermanent(err) || !strings.Contains(err.Error(), "not let in") || tries != want {
					t.Errorf("run %d with a wrong password: %v after %d tries", i, err, tries)
				}
			}
			s.write("right")
			for _, source := range []*source{s.replies.source, s.calendar.source} {
				if _, err := s.run(source); err != nil {
					t.Errorf("%s with the right password: %v", source.name, err)
				}
			}

			// Whoever was let in with the old password comes back with the new one only.
			if err := s.server.Do(time.Now(), []string{"password", "changed"}); err != nil {
				t.Fatal(err)
			}
			s.write("changed")
			for _, poll := range []func(context.Context, time.Time, []presence.Subject) ([]presence.Report, error){s.calendar.Poll, s.replies.Poll} {
				s.tries.Store(0)
				reports, err := poll(t.Context(), time.Now(), mail("alice@example.com"))
				if tries := s.tries.Load(); err != nil || len(reports) != 1 || tries > 1 {
					t.Errorf("after a change: %d reports, %v, %d tries", len(reports), err, tries)
				}
			}

			if err := os.Remove(s.file); err != nil {
				t.Fatal(err)
			}
			if tries, err := s.run(s.calendar.source); err == nil || presence.IsPermanent(err) || !strings.Contains(err.Error(), s.file) || tries != 0 {
				t.Errorf("without the file: %v after %d tries", err, tries)
			}
			if _, err := s.calendar.Poll(t.Context(), time.Now(), nil); err == nil || !strings.Contains(err.Error(), s.file) {
				t.Errorf("without the file: %v", err)
			}
		})
	}
}

// What one source is told about the old password while the other brings the new
// one does not count; what it is told about throttling does.
func TestPasswordChangedMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		before error // what the server says over the old wire
		ok     bool
	}{
		"refused":   {&ews.Unauthorized{Reason: "the password is wrong"}, true},
		"throttled": {&ews.Throttled{Code: ews.CodeServerBusy, Wait: time.Minute}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "password")
				if err := os.WriteFile(file, []byte("new"), 0o600); err != nil {
					t.Fatal(err)
				}
				was := &fakeWire{delay: time.Second, availability: func([]string, time.Time, time.Time) ([]ews.MailboxAvailability, error) { return nil, c.before }}
				is := &fakeWire{}
				a := &account{password: "old", wire: was, file: secret.File(file), dial: func(password string) (wire, error) {
					if password != "new" {
						t.Errorf("password %q", password)
					}
					return is, nil
				}}
				calendar, replies := sources(testConfig(), a, slog.New(slog.DiscardHandler))
				w := calendar.newSweep(noon(), func(presence.Report) error { return nil })
				done := make(chan error)
				go func() {
					_, err := over(w, func(via wire) ([]ews.MailboxAvailability, error) {
						return via.Availability(t.Context(), []string{"a@example.com"}, noon(), noon())
					})
					done <- err
				}()
				synctest.Wait()
				if _, err := replies.Poll(t.Context(), noon(), mail("a@example.com")); err != nil {
					t.Fatal(err)
				}
				is.take()
				err := <-done
				wait, _ := a.held(noon().Add(time.Second))
				if asked := is.take() != nil; (err == nil) != c.ok || asked != c.ok || (wait == 0) != c.ok || was.closed != 2 {
					t.Errorf("%v, asked again: %t, rests %s, closed %d times", err, asked, wait, was.closed)
				}
			})
		})
	}
}
