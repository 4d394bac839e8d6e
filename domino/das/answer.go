package das

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// Failure is why an answer is of no use, and so what to do about it.
type Failure uint8

// The failures, of section 3.3 of the protocol notes.
const (
	// LoginForm: the server asks to log in, by a form or a redirect. The
	// password is wrong or the site does not take Basic on /api. Stop asking
	// this server: it may lock the account.
	LoginForm Failure = iota + 1
	// Unauthorized: 401. The password is wrong if a mail file that may be read
	// answers so too; otherwise this mail file may not be read.
	Unauthorized
	// NoAccess: 403. This mail file may not be read; if all answer so, the
	// service is not enabled.
	NoAccess
	// NotFound: the mail file, or the person at the helper, does not exist.
	NotFound
	// NotSupported: 400 or 501. The server does not know what was asked for.
	NotSupported
	// Broken: everything else that may be better next time: 5xx, an entry that
	// went away meanwhile, a redirect, a lost connection.
	Broken
	// Malformed: the answer is not what the protocol says.
	Malformed
	// Incomplete: pages are missing, so that nothing can be said.
	Incomplete
)

func (f Failure) String() string {
	switch f {
	case LoginForm:
		return "asks to log in"
	case Unauthorized:
		return "not authorized"
	case NoAccess:
		return "no access"
	case NotFound:
		return "not found"
	case NotSupported:
		return "not supported"
	case Broken:
		return "does not work"
	case Malformed:
		return "malformed answer"
	case Incomplete:
		return "incomplete answer"
	default:
		return "unknown failure"
	}
}

// An Error is an answer that is of no use. It holds nothing of the content of a
// calendar.
type Error struct {
	Failure Failure
	Status  int    // of HTTP; 0 if there was no answer
	Code    int    // cserror of the calendar service; 0 if none was given
	Detail  string // in plain words; may be empty
	Err     error  // the cause, if there is one
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Failure.String())
	if e.Status != 0 {
		fmt.Fprintf(&b, ", HTTP %d", e.Status)
	}
	if e.Code != 0 {
		fmt.Fprintf(&b, ", cserror %d", e.Code)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// FailureOf gives the failure that err is, or 0 if it is not an *Error.
func FailureOf(err error) Failure {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Failure
	}
	return 0
}

func malformed(format string, args ...any) *Error {
	return &Error{Failure: Malformed, Status: http.StatusOK, Detail: fmt.Sprintf(format, args...)}
}

// An answer is a whole response.
type answer struct {
	status int
	header http.Header
	body   []byte // at most maxBody
}

// codeGone is the cserror of an entry that went away between two requests.
const codeGone = 1024 + 7

// classify tells what is wrong with an answer to a request for asked, which was
// to be of the given media type. It gives nil for a usable answer: a body of
// that type, or no body at all.
func classify(a *answer, asked *url.URL, mediaType string) error {
	fail := func(f Failure, detail string) error {
		e := &Error{Failure: f, Status: a.status, Detail: detail}
		e.Code = errorCode(a)
		return e
	}
	got := a.mediaType()
	switch s := a.status; {
	case s == http.StatusOK:
		switch {
		case got == "text/html" || strings.HasPrefix(strings.TrimLeft(string(a.body[:min(len(a.body), 64)]), " \t\r\n\ufeff"), "<"):
			return fail(LoginForm, "a page came instead of data")
		case len(a.body) == 0 || got == mediaType || got == "" || strings.HasPrefix(got, "text/") && mediaType == "text/calendar":
			return nil
		}
		return fail(Malformed, "the answer has another media type")
	case s >= 300 && s < 400:
		return fail(redirected(a.header.Get("Location"), asked))
	case s == http.StatusUnauthorized:
		return fail(Unauthorized, "")
	case s == http.StatusForbidden:
		return fail(NoAccess, "")
	case s == http.StatusNotFound && errorCode(a) == codeGone:
		return fail(Broken, "an entry went away")
	case s == http.StatusNotFound:
		return fail(NotFound, "")
	case s == http.StatusBadRequest || s == http.StatusNotImplemented:
		return fail(NotSupported, "")
	}
	return fail(Broken, "")
}

// redirected tells what a redirect means. It is never followed, so that no
// password reaches a host that is not in the configuration.
func redirected(location string, asked *url.URL) (Failure, string) {
	to, err := asked.Parse(location)
	switch {
	case location == "" || err != nil:
		return Broken, "a redirect to nowhere"
	case to.Hostname() != asked.Hostname() || strings.Contains(strings.ToLower(to.Path+"?"+to.RawQuery), "login"):
		return LoginForm, "a redirect to a login page or another host"
	}
	return Broken, "a redirect; the URL of the server has to be the one it redirects to"
}

func (a *answer) mediaType() string {
	t, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		t, _, _ = strings.Cut(a.header.Get("Content-Type"), ";")
	}
	return strings.ToLower(strings.TrimSpace(t))
}

// errorCode reads the cserror of an error in JSON. The rest of it (a stack, as a
// rule) is never read: it must not get into a log.
func errorCode(a *answer) int {
	if a.status == http.StatusOK || a.mediaType() != "application/json" {
		return 0
	}
	var e struct {
		Code int `json:"cserror"`
	}
	if json.Unmarshal(a.body, &e) != nil {
		return 0
	}
	return e.Code
}
