package das

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A step is one request that a test expects, and its answer.
type step struct {
	want        string // the end of the request's URI
	status      int    // 0: 200
	contentType string
	rng         string // Content-Range
	location    string
	body        string
}

// script serves the steps one after the other, at /mail/jdoe.nsf of Mail1/Acme.
func script(t *testing.T, icalendar bool, steps ...step) (*Client, MailFile) {
	t.Helper()
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n >= len(steps) {
			t.Errorf("request %d, %s, is one too many", n+1, r.RequestURI)
			http.Error(w, "unexpected", http.StatusTeapot)
			return
		}
		p := steps[n]
		n++
		if !strings.HasSuffix(r.RequestURI, p.want) {
			t.Errorf("request %d is %s, want ...%s", n, r.RequestURI, p.want)
		}
		if user, password, ok := r.BasicAuth(); !ok || user != "Reader" || password != "geheim" {
			t.Errorf("request %d comes as %q %q", n, user, password)
		}
		if r.Method != http.MethodGet || r.Header.Get("Cookie") != "" || r.Header.Get("X-DAS-Token") != "" {
			t.Errorf("request %d: %s with %v", n, r.Method, r.Header)
		}
		w.Header().Set("Set-Cookie", "DasToken=77; path=/")
		for key, value := range map[string]string{"Content-Type": p.contentType, "Content-Range": p.rng, "Location": p.location} {
			if value != "" {
				w.Header().Set(key, value)
			}
		}
		if p.status != 0 {
			w.WriteHeader(p.status)
		}
		_, _ = io.WriteString(w, p.body)
	}))
	t.Cleanup(func() {
		s.Close()
		if n != len(steps) && !t.Failed() {
			t.Errorf("%d requests, want %d", n, len(steps))
		}
	})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := NewClient(Options{
		Servers: []Server{{"Mail1/Acme", s.URL}}, User: "Reader", Zone: berlin(t), ICalendar: icalendar, Timeout: 5 * time.Second, Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetPassword("geheim")
	m, err := c.Locate(`Mail1/Acme!!mail\jdoe`)
	if err != nil {
		t.Fatal(err)
	}
	return c, m
}

func berlin(t testing.TB) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

var (
	since  = at("2026-11-19 08:00")
	before = at("2026-11-22 08:00")
)

const (
	window   = "?since=2026-11-19T08:00:00Z&before=2026-11-22T08:00:00Z&count=100&start="
	narrow   = "&fields=start,end,transparency,status,class,reccurenceid,x-lotus-apptype,x-lotus-noticetype"
	jsonType = "application/json"
)

// event writes an event as the calendar service does, text and all.
func event(hour int, appttype string) string {
	return fmt.Sprintf(`{
      "href": "http:\/\/internal\/mail\/jdoe.nsf\/api\/calendar\/events\/%[1]d-Lotus_Notes_Generated",
      "id": "%[1]d-Lotus_Notes_Generated",
      "summary": "Secret talk",
      "location": "Behind the \"door\"",
      "start": {"date": "2026-11-20", "time": "%02[1]d:00:00", "utc": true},
      "end": {"date": "2026-11-20", "time": "%02[1]d:30:00", "utc": true},
      "class": "public",
      "transparency": "opaque",
      "sequence": 0,
      "last-modified": "20260825T212457Z",
      "categories": "a;b",
      "x-lotus-summarydataonly": {"data": "TRUE"},
      "x-lotus-appttype": {"data": "%[2]s"}
    }`, hour, appttype)
}

func page(events ...string) string {
	return "{\n  \"x-lotus-charset\": {\"data\": \"UTF-8\"},\n  \"events\": [" + strings.Join(events, ",\n") + "]\n}"
}

func starts(l Listing) []int {
	var hours []int
	for _, e := range l.Entries {
		hours = append(hours, e.Start.Hour())
	}
	return hours
}

func TestEventsPages(t *testing.T) {
	hundred := slices.Repeat([]string{event(9, "3")}, 100)
	for _, test := range []struct {
		name  string
		steps []step
		want  []int
		fails Failure
	}{
		{"nothing in it", []step{{want: "/mail/jdoe.nsf/api/calendar/events" + window + "0" + narrow}}, nil, 0},
		{"one page", []step{
			{want: window + "0" + narrow, contentType: jsonType, rng: "items 0-1", body: page(event(9, "3"), event(10, "0"))},
			{want: window + "2" + narrow},
		}, []int{9, 10}, 0},
		{"a view entry without an event", []step{
			{want: "&start=0" + narrow, contentType: jsonType, rng: "items 0-99", body: page(event(9, "3"))},
			{want: "&start=100" + narrow, contentType: jsonType, rng: "items 100-100", body: page(event(10, "3"))},
			{want: "&start=101" + narrow},
		}, []int{9, 10}, 0},
		{"a page of nothing but such", []step{
			{contentType: jsonType, rng: "items 0-99", body: page(event(9, "3"))},
			{want: "&start=100" + narrow, contentType: jsonType, rng: "items 100-199", body: page()},
			{want: "&start=200" + narrow, contentType: jsonType, rng: "items 200-201", body: page(event(11, "3"))},
			{want: "&start=202" + narrow},
		}, []int{9, 11}, 0},
		{"no Content-Range ends it", []step{
			{contentType: jsonType, body: page(event(9, "3"))},
		}, []int{9}, 0},
		{"no Content-Range at a full page", []step{
			{contentType: jsonType, body: page(hundred...)},
		}, nil, Incomplete},
		{"pages overlap", []step{
			{contentType: jsonType, rng: "items 0-99", body: page(event(9, "3"))},
			{contentType: jsonType, rng: "items 50-120", body: page(event(9, "3"), event(10, "3"))},
			{want: "&start=121" + narrow},
		}, []int{9, 9, 10}, 0},
		{"no progress", []step{
			{contentType: jsonType, rng: "items 0-99", body: page(event(9, "3"))},
			{contentType: jsonType, rng: "items 0-99", body: page(event(9, "3"))},
		}, nil, Incomplete},
		{"a page is lost", []step{
			{contentType: jsonType, rng: "items 0-99", body: page(event(9, "3"))},
			{contentType: jsonType, rng: "items 200-240", body: page(event(12, "3"))},
		}, nil, Incomplete},
		{"the second page fails", []step{
			{contentType: jsonType, rng: "items 0-99", body: page(event(9, "3"))},
			{status: 500, contentType: jsonType, body: `{"code":500,"cserror":1024,"data":"java.lang.Secret"}`},
		}, nil, Broken},
		{"a range that is none", []step{
			{contentType: jsonType, rng: "items 0-99999999999999999999", body: page(event(9, "3"))},
		}, nil, Incomplete},
		{"cut off", []step{
			{contentType: jsonType, rng: "items 0-0", body: page(event(9, "3"))[:200]},
		}, nil, Malformed},
		{"too large", []step{
			{contentType: jsonType, body: `{"events":["` + strings.Repeat("x", maxBody) + `"]}`},
		}, nil, Malformed},
		{"login form", []step{
			{contentType: "text/html; charset=UTF-8", body: "<html><form action=\"/names.nsf?Login\">"},
		}, nil, LoginForm},
		{"login form that says it is JSON", []step{
			{contentType: jsonType, body: "\r\n <!DOCTYPE html>"},
		}, nil, LoginForm},
		{"empty page of HTML", []step{{contentType: "text/html"}}, nil, LoginForm},
		{"another media type", []step{{contentType: "application/pdf", body: "%PDF"}}, nil, Malformed},
		{"redirect to the login", []step{{status: 302, location: "/names.nsf?Login&RedirectTo=x"}}, nil, LoginForm},
		{"redirect to another host", []step{{status: 302, location: "https://evil.example.com/mail"}}, nil, LoginForm},
		{"redirect to the same host", []step{{status: 301, location: "/elsewhere"}}, nil, Broken},
		{"401", []step{{status: 401}}, nil, Unauthorized},
		{"403 of a service that is off", []step{{status: 403, contentType: jsonType, body: `{"code":403,"text":"Forbidden"}`}}, nil, NoAccess},
		{"403 as a page", []step{{status: 403, contentType: "text/html", body: "<html>"}}, nil, NoAccess},
		{"404", []step{{status: 404, contentType: jsonType, body: `{"code":404,"text":"Not Found","message":"No database context."}`}}, nil, NotFound},
		{"404 of an entry", []step{{status: 404, contentType: jsonType, body: `{"code":404,"cserror":1031}`}}, nil, Broken},
		{"503", []step{{status: 503}}, nil, Broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, m := script(t, false, test.steps...)
			got, err := c.Events(t.Context(), m, since, before)
			if FailureOf(err) != test.fails || (err == nil) != (test.fails == 0) {
				t.Fatalf("error %v, want %v", err, test.fails)
			}
			if diff := cmp.Diff(test.want, starts(got)); diff != "" {
				t.Error(diff)
			}
			if err != nil && (strings.Contains(err.Error(), "Secret") || strings.Contains(err.Error(), "jdoe")) {
				t.Errorf("the error tells too much: %v", err)
			}
		})
	}
}

func TestEventsTooManyPages(t *testing.T) {
	var steps []step
	for i := range maxPages {
		steps = append(steps, step{contentType: jsonType, rng: fmt.Sprintf("items %d-%d", i*100, i*100+99), body: page(event(9, "3"))})
	}
	c, m := script(t, false, steps...)
	if _, err := c.Events(t.Context(), m, since, before); FailureOf(err) != Incomplete {
		t.Errorf("error %v", err)
	}
}

func TestEventsFields(t *testing.T) {
	const wide = narrow + ",recurrenceid,x-lotus-appttype"
	untyped := strings.ReplaceAll(page(event(9, "3")), "x-lotus-appttype", "x-other")
	typed := page(event(9, "3"))

	t.Run("the server knows the name that is spelt right", func(t *testing.T) {
		c, m := script(t, false,
			step{want: "start=0" + narrow, contentType: jsonType, body: untyped},
			step{want: "start=0" + wide, contentType: jsonType, body: typed},
			step{want: "start=0" + wide, contentType: jsonType, body: typed})
		for range 2 {
			if l, err := c.Events(t.Context(), m, since, before); err != nil || !l.typed() {
				t.Errorf("%v, %v", l, err)
			}
		}
	})
	t.Run("only without a filter", func(t *testing.T) {
		c, m := script(t, false,
			step{want: narrow, contentType: jsonType, body: untyped},
			step{want: wide, contentType: jsonType, body: untyped},
			step{want: "start=0", contentType: jsonType, body: typed},
			step{want: "start=0", contentType: jsonType, body: untyped})
		for range 2 {
			if _, err := c.Events(t.Context(), m, since, before); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("no types at all", func(t *testing.T) {
		c, m := script(t, false,
			step{want: narrow, contentType: jsonType, body: untyped},
			step{want: wide, contentType: jsonType, body: untyped},
			step{want: "start=0", contentType: jsonType, body: untyped},
			step{want: narrow, contentType: jsonType, body: untyped})
		for range 2 {
			if l, err := c.Events(t.Context(), m, since, before); err != nil || len(l.Entries) != 1 {
				t.Errorf("%v, %v", l, err)
			}
		}
	})
	t.Run("a server that knows no fields", func(t *testing.T) {
		c, m := script(t, false,
			step{want: narrow, status: 400, contentType: jsonType, body: `{"code":400}`},
			step{want: "start=0", contentType: jsonType, body: typed},
			step{want: "start=0"})
		for range 2 {
			if _, err := c.Events(t.Context(), m, since, before); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNoCredentialsLeave(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer other.Close()
	c, m := script(t, false, step{status: 302, location: other.URL + "/mail/jdoe.nsf"})
	if _, err := c.Events(t.Context(), m, since, before); err == nil {
		t.Error("a redirect is no error")
	}
	if asked != 0 {
		t.Error("the redirect was followed")
	}
}

func TestCancelled(t *testing.T) {
	c, m := script(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Events(ctx, m, since, before); !errors.Is(err, context.Canceled) || FailureOf(err) != 0 {
		t.Errorf("error %v", err)
	}
}

func TestTimeout(t *testing.T) {
	slow := transport(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	c, err := NewClient(Options{Servers: []Server{{"Mail1/Acme", "https://mail1"}}, Timeout: time.Millisecond, Transport: slow})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Locate("Mail1/Acme!!mail/jdoe")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Events(t.Context(), m, since, before); FailureOf(err) != Broken {
		t.Errorf("error %v", err)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHelper(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		kind   string
		body   string
		want   AutoReply
		fails  Failure
	}{
		{"off", 200, jsonType, `{"enabled":false}`, AutoReply{}, 0},
		{"off with dates", 200, jsonType, `{"enabled":false,"start":"never"}`, AutoReply{}, 0},
		{
			"on", 200, jsonType, `{"enabled":true,"subject":"Secret","message":"x","start":"2026-11-20T00:00:00Z","end":"2026-11-27T01:00:00+01:00","sendToExternal":false}`,
			AutoReply{true, at("2026-11-20 00:00"), at("2026-11-27 00:00")},
			0,
		},
		{"on without bounds", 200, jsonType, `{"enabled":true}`, AutoReply{Enabled: true}, 0},
		{"bounds that are null", 200, jsonType, `{"enabled":true,"start":null,"end":null}`, AutoReply{Enabled: true}, 0},
		{"a bad date", 200, jsonType, `{"enabled":true,"start":"tomorrow"}`, AutoReply{}, Malformed},
		{"reversed", 200, jsonType, `{"enabled":true,"start":"2026-11-20T00:00:00Z","end":"2026-11-19T00:00:00Z"}`, AutoReply{}, Malformed},
		{"nothing said", 200, jsonType, `{}`, AutoReply{}, Malformed},
		{"empty", 200, "", "", AutoReply{}, Malformed},
		{"a page", 200, "text/html", "<html>", AutoReply{}, LoginForm},
		{"nobody known", 404, jsonType, `{}`, AutoReply{}, NotFound},
		{"not there", 501, "", "", AutoReply{}, NotSupported},
		{"down", 502, "", "", AutoReply{}, Broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if want := "/ooo/a%2Bb%26c%40example.com?for=a%2Bb%26c%40example.com"; r.RequestURI != want {
					t.Errorf("asked for %s, want %s", r.RequestURI, want)
				}
				if test.kind != "" {
					w.Header().Set("Content-Type", test.kind)
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer s.Close()
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			h, err := NewHelper(s.URL+"/ooo/{mail}?for={mail}", "Reader", time.Second, tr)
			if err != nil {
				t.Fatal(err)
			}
			got, err := h.AutoReply(t.Context(), "a+b&c@example.com")
			if FailureOf(err) != test.fails {
				t.Errorf("error %v, want %v", err, test.fails)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckTemplate(t *testing.T) {
	for template, ok := range map[string]bool{
		"https://h/ooo?mail={mail}":      true,
		"http://h:8080/{mail}":           true,
		"https://h/ooo":                  false,
		"https://{mail}/ooo":             false,
		"https://{mail}.example.com/ooo": false,
		"{mail}://h/":                    false,
		"ftp://h/{mail}":                 false,
		"https:///{mail}":                false,
		"https://u:p@h/{mail}":           false,
	} {
		if _, err := CheckTemplate(template); (err == nil) != ok {
			t.Errorf("CheckTemplate(%q) = %v", template, err)
		}
	}
}
