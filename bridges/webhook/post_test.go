package webhook

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"presenced/bridges/outbox"
	"presenced/internal/secret"
)

// TestSign has the example of the reference implementation.
func TestSign(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	for text, want := range map[string]string{
		testKey:                                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n":   "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		testKey + "\n" + testKey:               "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		"whsec_short":                          "",
		" \n":                                  "",
		strings.Repeat(testKey+" ", 5):         "",
		"not base64 at all, whatever it means": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := readKeys(secret.File(file))
		if err != nil {
			if want != "" || strings.Contains(err.Error(), "short") || strings.Contains(err.Error(), "MfKQ") {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if got := sign(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestBody(t *testing.T) {
	at := time.Date(2026, 11, 20, 11, 5, 0, 0, time.FixedZone("CET", 3600))
	for want, a := range map[string]outbox.Attempt{
		`{"type":"presence.changed","timestamp":"2026-11-20T10:05:00Z","data":{"version":1,"person":"ann"}}`: {Person: "ann", Since: at, Content: []byte(`{"version":1,"person":"ann"}`)},
		`{"type":"presence.removed","timestamp":"2026-11-20T10:05:00Z","data":{"version":1,"person":"bob"}}`: {Person: "bob", Since: at},
	} {
		if got := string(body(&a)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// attempt posts once, as cfg has it.
func attempt(t *testing.T, cfg Config) verdict {
	t.Helper()
	s, err := newSender(&cfg, "run")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	return s.post(t.Context(), outbox.Attempt{Person: "ann", Content: []byte(`{"version":1,"person":"ann","state":"busy"}`), Message: 7})
}

// TestServers posts to real servers of all kinds.
func TestServers(t *testing.T) {
	r := newReceiver()
	followed := false
	mux := http.NewServeMux()
	mux.Handle("/taken", r)
	mux.HandleFunc("/followed", func(http.ResponseWriter, *http.Request) { followed = true })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "/followed", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 64<<10))
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Long", strings.Repeat("x", 1<<20)) })
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Retry-After", "17")
		code := 0
		for _, c := range req.PathValue("code") {
			code = 10*code + int(c-'0')
		}
		w.WriteHeader(code)
	})
	plain, secure := httptest.NewServer(mux), httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer plain.Close()
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for _, c := range []struct {
		url     string
		outcome outbox.Outcome
		after   time.Duration
		why     string
		change  func(*Config)
	}{
		{url: plain.URL + "/taken", outcome: outbox.Accepted},
		{url: secure.URL + "/taken", outcome: outbox.Accepted, change: func(c *Config) { c.TLS.CAFile = ca }},
		{url: secure.URL + "/taken", outcome: outbox.Failed, why: "certificate"},
		{url: plain.URL + "/elsewhere", outcome: outbox.Failed, why: "307 Temporary Redirect; redirects are not followed"},
		{url: plain.URL + "/silent", outcome: outbox.Failed, why: "no answer within 50ms", change: func(c *Config) { c.Timeout = 50 * time.Millisecond }},
		{url: plain.URL + "/endless", outcome: outbox.Accepted},
		{url: plain.URL + "/headers", outcome: outbox.Failed, why: "headers exceeded"},
		{url: plain.URL + "/status/204", outcome: outbox.Accepted, after: 17 * time.Second},
		{url: plain.URL + "/status/400", outcome: outbox.Refused, after: 17 * time.Second, why: "answers 400 Bad Request"},
		{url: plain.URL + "/status/413", outcome: outbox.Refused, after: 17 * time.Second, why: "answers 413"},
		{url: plain.URL + "/status/415", outcome: outbox.Refused, after: 17 * time.Second, why: "answers 415"},
		{url: plain.URL + "/status/422", outcome: outbox.Refused, after: 17 * time.Second, why: "answers 422"},
		{url: plain.URL + "/status/429", outcome: outbox.Failed, after: 17 * time.Second, why: "answers 429"},
		{url: plain.URL + "/status/401", outcome: outbox.Failed, after: 17 * time.Second, why: "compare the key"},
		{url: plain.URL + "/status/404", outcome: outbox.Failed, after: 17 * time.Second, why: "answers 404"},
		{url: plain.URL + "/status/410", outcome: outbox.Gone, after: 17 * time.Second, why: "410 Gone"},
		{url: plain.URL + "/status/503", outcome: outbox.Failed, after: 17 * time.Second, why: "answers 503"},
		{url: "https://169.254.169.254/latest/meta-data", outcome: outbox.Failed, why: "169.254.169.254 is not posted to: it is a link-local address"},
		{url: "http://127.0.0.1:1/path-of-a-secret", outcome: outbox.Failed, why: "connection refused"},
	} {
		cfg := testConfig(t, c.url)
		if c.change != nil {
			c.change(&cfg)
		}
		v := attempt(t, cfg)
		if v.outcome != c.outcome || v.after != c.after || !strings.Contains(v.why, c.why) || c.why == "" && v.why != "" {
			t.Errorf("%s: %d, after %s, %q; want %d, after %s, %q", c.url, v.outcome, v.after, v.why, c.outcome, c.after, c.why)
		}
		for _, private := range []string{"path-of-a-secret", "meta-data", "/followed"} {
			if strings.Contains(v.why, private) {
				t.Errorf("%q tells of the path", v.why)
			}
		}
	}
	if took := time.Since(begun); took > DefaultConfig().Timeout {
		t.Errorf("%v: something was waited for until the time was over", took)
	}
	for url, want := range map[string]string{plain.URL: "", secure.URL: "", "http://127.0.0.1:1": "refused", "https://169.254.169.254": "link-local"} {
		cfg := testConfig(t, url+"/taken")
		cfg.TLS.CAFile = ca
		if err := Try(t.Context(), cfg); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("trial of %s: %v, want %q", url, err, want)
		}
	}
	if got := r.holds(t); got["ann"] != "busy" || followed || !slices.Equal(r.ids, []string{"msg_run_7", "msg_run_7"}) {
		t.Errorf("the receiver has %q by %q; followed: %v", got, r.ids, followed)
	}
}

func TestGuard(t *testing.T) {
	allowed, err := networks([]string{"169.254.10.0/24", "ff02::1"})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"192.0.2.7:443": "", "10.1.2.3:443": "", "[2001:db8::1]:443": "", "127.0.0.1:80": "", "169.254.10.9:443": "", "[ff02::1]:443": "",
		"169.254.169.254:80":           "link-local",
		"[::ffff:169.254.169.254]:80":  "link-local",
		"[64:ff9b::a9fe:a9fe]:80":      "link-local",
		"[fe80::1%eth0]:443":           "link-local",
		"0.0.0.0:443":                  "one machine",
		"[::]:443":                     "one machine",
		"224.0.0.1:443":                "one machine",
		"255.255.255.255:443":          "one machine",
		"100.100.100.200:80":           "metadata",
		"168.63.129.16:80":             "metadata",
		"[fd00:ec2::254]:80":           "metadata",
		"example.com:443":              "no address",
		"[64:ff9b::6464:64c8]:80":      "metadata",
		"169.254.11.1:443":             "link-local",
		"[::ffff:100.100.100.200]:443": "metadata",
	} {
		err := (&guard{allowed: allowed}).check("tcp", address, nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	local := guard{plain: true}
	if local.check("tcp", "127.0.0.1:80", nil) != nil || local.check("tcp", "[::1]:80", nil) != nil || local.check("tcp", "192.0.2.7:80", nil) == nil {
		t.Error("http is not kept on the machine")
	}
}

func TestCheck(t *testing.T) {
	good := testConfig(t, "https://crm.example.com/x")
	if ps := good.Check(); len(ps) != 0 {
		t.Error(ps)
	}
	for _, c := range []struct {
		key, want string
		change    func(*Config)
	}{
		{"name", "needed", func(c *Config) { c.Name = "" }},
		{"url", "name where", func(c *Config) { c.URL = "" }},
		{"url", "is no address", func(c *Config) { c.URL = "ftp://crm.example.com" }},
		{"url", "is no address", func(c *Config) { c.URL = "https:///x" }},
		{"url", "is http", func(c *Config) { c.URL = "http://crm.example.com" }},
		{"url", "user or a password", func(c *Config) { c.URL = "https://u:hunter2@crm.example.com" }},
		{"url", "is no address", func(c *Config) { c.URL = "https://u:hunter2@crm.example.com:x" }},
		{"secret_file", "name the file", func(c *Config) { c.SecretFile = "" }},
		{"people", "neither", func(c *Config) { c.People = []string{"group:"} }},
		{"tls.min_version", "none of", func(c *Config) { c.TLS.MinVersion = "0.9" }},
		{"allow_addresses", "no network", func(c *Config) { c.Allow = []string{"here"} }},
		{"in_flight", "between", func(c *Config) { c.InFlight = 0 }},
		{"rate", "between", func(c *Config) { c.Rate = 1001 }},
		{"timeout", "between", func(c *Config) { c.Timeout = 0 }},
		{"give_up", "between", func(c *Config) { c.GiveUp = time.Second }},
	} {
		bad := good
		c.change(&bad)
		ps := bad.Check()
		if len(ps) != 1 || ps[0].Path != c.key || !strings.Contains(ps[0].Text, c.want) || strings.Contains(ps[0].Text, "hunter2") {
			t.Errorf("want %s: %s, got %+v", c.key, c.want, ps)
		}
	}
	for _, url := range []string{"http://localhost:9/x", "http://127.9.9.9", "http://[::1]:80/"} {
		c := good
		if c.URL = url; len(c.Check()) != 0 {
			t.Errorf("%s: %v", url, c.Check())
		}
	}
	plain := good
	plain.URL, plain.AllowPlain = "http://crm.example.com", true
	if ps := plain.Check(); len(ps) != 0 {
		t.Error(ps)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, text := range []string{"", "120", "-1", "99999999999", "Fri, 20 Nov 2026 11:00:00 GMT", "Fri, 20 Nov 1999 11:00:00 GMT", "Friday, 20-Nov-26 11:00:00 GMT"} {
		f.Add(text)
	}
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if d := retryAfter(text, now); d < 0 || d > maxRetryAfter {
			t.Errorf("%q: %s", text, d)
		}
	})
}

func TestRetryAfterForms(t *testing.T) {
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "120": 2 * time.Minute, "-1": 0, "1e3": 0, "2000000000": maxRetryAfter, "Fri, 20 Nov 2026 10:30:00 GMT": 30 * time.Minute, "Fri, 20 Nov 2025 11:00:00 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
