package ews

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ann() []string { return []string{"ann@example.com"} }

// What each answer of a server, or of what stands before it, means, and how
// many requests it takes to know.
func TestStatus(t *testing.T) {
	with := func(r *http.Response, key, value string) *http.Response {
		r.Header.Set(key, value)
		return r
	}
	page := func(status int) *http.Response {
		return response(status, "text/html; charset=utf-8", "<html>hello</html>")
	}
	for name, c := range map[string]struct {
		answer   func() *http.Response
		want     error // compared but for its text
		requests int32
	}{
		"a login page":     {func() *http.Response { return page(200) }, &ConfigError{Status: 200}, 1},
		"wrong password":   {func() *http.Response { return page(401) }, &Unauthorized{}, 1},
		"EWS switched off": {func() *http.Response { return page(403) }, &ConfigError{Status: 403}, 1},
		"nothing there":    {func() *http.Response { return page(404) }, &ConfigError{Status: 404}, 1},
		"forms login":      {func() *http.Response { return page(440) }, &ConfigError{Status: 440}, 1},
		"account blocked":  {func() *http.Response { return page(456) }, &Unauthorized{}, 1},
		"outage page": {func() *http.Response {
			return with(page(302), "Location", "/EWS/genericerrorpage.htm?aspxerrorpath=/x")
		}, &Outage{Status: 302}, 1},
		"redirect":            {func() *http.Response { return with(page(302), "Location", "http://elsewhere.example.com/") }, &ConfigError{Status: 302}, 1},
		"moved":               {func() *http.Response { return with(page(301), "Location", "https://elsewhere.example.com/") }, &ConfigError{Status: 301}, 1},
		"server error page":   {func() *http.Response { return page(500) }, &Outage{Status: 500}, 1},
		"queue full":          {func() *http.Response { return with(page(503), "Retry-After", "120") }, &Outage{503, 2 * time.Minute}, 1},
		"queue full for long": {func() *http.Response { return with(page(503), "Retry-After", "9999999999999") }, &Outage{503, time.Hour}, 1},
		"gateway":             {func() *http.Response { return page(502) }, &Outage{Status: 502}, 1},
		"error that is XML":   {func() *http.Response { return response(500, "text/xml", "<error/>") }, &Outage{Status: 500}, 1},
		"fault": {func() *http.Response {
			return with(response(500, "text/xml", faultXML("ErrorTimeoutExpired")), "Request-Id", "4711")
		}, &Fault{"ErrorTimeoutExpired", "4711"}, 1},
		"fault with OK": {func() *http.Response { return xmlResponse(faultXML("ErrorTimeoutExpired")) }, &Fault{Code: "ErrorTimeoutExpired"}, 1},
		"throttled": {func() *http.Response {
			return response(500, "text/xml", faultXML("ErrorServerBusy", valueXML("BackOffMilliseconds", "7000")))
		}, &Throttled{CodeServerBusy, 7 * time.Second}, 1},
		"version too new for ever": {func() *http.Response { return response(500, "text/xml", faultXML("ErrorInvalidServerVersion")) }, &Fault{Code: "ErrorInvalidServerVersion"}, 3},
		"cut off":                  {func() *http.Response { return xmlResponse(availabilityXML(free())[:500]) }, io.ErrUnexpectedEOF, 2},
		"lost":                     {func() *http.Response { return nil }, io.ErrUnexpectedEOF, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			client := clientOver(t, func(*http.Request) *http.Response {
				requests.Add(1)
				return c.answer()
			})
			_, err := client.Availability(t.Context(), ann(), morning(), evening())
			switch e := err.(type) { //nolint:errorlint // as they are made
			case *ConfigError:
				e.Reason = ""
			case *Unauthorized:
				e.Reason = ""
			}
			if !errors.Is(err, c.want) && !cmp.Equal(c.want, err) {
				t.Errorf("error %#v, want %#v", err, c.want)
			}
			if requests.Load() != c.requests {
				t.Errorf("%d requests, want %d", requests.Load(), c.requests)
			}
			if strings.Contains(err.Error(), service().Password) {
				t.Error("the error tells the password")
			}
		})
	}
}

func TestStepDown(t *testing.T) {
	var seen []string
	c := clientOver(t, func(req *http.Request) *http.Response {
		body, _ := io.ReadAll(req.Body)
		_, rest, _ := strings.Cut(string(body), `RequestServerVersion Version="`)
		version, _, _ := strings.Cut(rest, `"`)
		seen = append(seen, version)
		if version != "Exchange2007_SP1" {
			return response(500, "text/xml", faultXML("ErrorInvalidSchemaVersionForMailboxVersion"))
		}
		return xmlResponse(availabilityXML(free()))
	})
	for range 2 {
		if _, err := c.Availability(t.Context(), ann(), morning(), evening()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"Exchange2010_SP2", "Exchange2010_SP1", "Exchange2007_SP1", "Exchange2007_SP1"}, seen); diff != "" {
		t.Error(diff)
	}
}

// A cut answer leaves nothing behind that would mix with the second.
func TestCutAnswerIsAskedAgain(t *testing.T) {
	whole := availabilityXML(free(), free())
	cut := strings.LastIndex(whole, "</FreeBusyResponse>") + len("</FreeBusyResponse>")
	n := 0
	c := clientOver(t, func(*http.Request) *http.Response {
		if n++; n == 1 {
			return xmlResponse(whole[:cut])
		}
		return xmlResponse(whole)
	})
	got, err := c.Availability(t.Context(), []string{"a@example.com", "b@example.com"}, morning(), evening())
	if err != nil || len(got) != 2 || n != 2 {
		t.Errorf("%d results, %v, %d requests", len(got), err, n)
	}
}

func TestTooManyConnections(t *testing.T) {
	full := true
	c := clientOver(t, func(*http.Request) *http.Response {
		if full {
			return response(500, "text/xml", faultXML("ErrorExceededConnectionCount"))
		}
		return xmlResponse(availabilityXML(free()))
	})
	for want := 3; want >= 0; want-- {
		_, err := c.Availability(t.Context(), ann(), morning(), evening())
		if _, ok := errors.AsType[*Throttled](err); !ok {
			t.Fatal(err)
		}
		if c.Lanes() != max(want, 1) {
			t.Errorf("%d lanes, want %d", c.Lanes(), max(want, 1))
		}
	}
	full = false
	if _, err := c.Availability(t.Context(), ann(), morning(), evening()); err != nil || len(c.lanes) != 1 {
		t.Errorf("%v with %d lanes", err, len(c.lanes))
	}
}

// A request has its own time; a server that never answers takes no longer.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{URL: "https://mail.example.com/", Account: service(), Auth: Basic, Transport: silent{}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = c.Availability(t.Context(), ann(), morning(), evening())
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 90*time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}

type silent struct{}

func (silent) RoundTrip(req *http.Request) (*http.Response, error) {
	_ = req.Body.Close()
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// Over a real connection: what is sent, and that a redirect is not followed.
func TestRequest(t *testing.T) {
	var followed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer elsewhere.Close()
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		http.Redirect(w, r, elsewhere.URL, http.StatusFound)
	}))
	defer s.Close()
	c, err := New(Options{URL: s.URL, Account: service(), Auth: Basic})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	_, err = c.Availability(t.Context(), ann(), morning(), evening())
	if _, ok := errors.AsType[*ConfigError](err); !ok || followed.Load() {
		t.Errorf("%v, followed: %t", err, followed.Load())
	}
	if got.Get("Content-Type") != "text/xml; charset=utf-8" || got.Get("Accept") != "text/xml" || got.Get("Accept-Encoding") != "gzip" ||
		got.Get("Return-Client-Request-Id") != "true" || len(got.Get("Client-Request-Id")) != 36 || got.Get("User-Agent") != "presenced" {
		t.Errorf("header %v", got)
	}
}

// The server holds the connection within an answer: the client gives up in time,
// and goes on over another.
func TestCutConnection(t *testing.T) {
	whole := availabilityXML(free())
	var n atomic.Int32
	s := newNTLMServer(t, strings.Repeat("x", longRefusal), func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 1 {
			answer(whole)(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, whole[:300])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	c := ntlmClient(t, s, 1, service())
	if _, err := c.Availability(t.Context(), ann(), morning(), evening()); err != nil || n.Load() != 2 {
		t.Errorf("%v after %d answers", err, n.Load())
	}
}

func TestLimits(t *testing.T) {
	c := clientOver(t, func(*http.Request) *http.Response { return nil })
	if _, err := c.Availability(t.Context(), make([]string, MaxMailboxes+1), morning(), evening()); err == nil {
		t.Error("101 mailboxes pass")
	}
	for _, o := range []Options{{URL: "ftp://x"}, {URL: "https://"}, {URL: "https://x", Auth: "kerberos"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v passes", o)
		}
	}
}

// What the client sends is valid by the schema of Exchange 2013 SP1.
func TestRequestsAreValid(t *testing.T) {
	data := os.Getenv("PRESENCED_TESTDATA")
	if data == "" {
		t.Skip("PRESENCED_TESTDATA is unset: the schema of Exchange is not at hand")
	}
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		const text = `peer xmllint is not installed: run "make peers"`
		if os.Getenv("PRESENCED_PEERS") == "required" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	schema := filepath.Join(data, "exchange", "schema-exchange2013sp1", "messages.xsd")
	odd := []string{"ann@example.com", `o'"<>&@example.com`, "grün\x01@example.com"}
	for name, request := range map[string]string{
		"availability":  availabilityRequest(odd, morning(), evening()),
		"tips":          tipsRequest(odd[1], odd),
		"configuration": configurationRequest,
	} {
		t.Run(name, func(t *testing.T) {
			// The body on its own, with the prefixes that the envelope declares.
			document := strings.Replace(request, ">", ` xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"`+
				` xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages">`, 1)
			file := filepath.Join(t.TempDir(), "request.xml")
			if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), xmllint, "--nonet", "--noout", "--schema", schema, file).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
