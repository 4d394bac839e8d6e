package ews

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Response codes that callers tell apart. There are hundreds of others.
const (
	CodeOK          = "NoError"
	CodeServerBusy  = "ErrorServerBusy"
	CodeTooManyHits = "ErrorResultSetTooBig"
)

// Throttled says that the server wants no request of this account for Wait, which
// is what the server asked for, or a minute where it named no time; an hour at most.
type Throttled struct {
	Code string
	Wait time.Duration
}

func (e *Throttled) Error() string {
	return fmt.Sprintf("ews: the server is busy (%s) and asks to wait %s", e.Code, e.Wait)
}

// Unauthorized says that the server does not let the account in. Trying again
// soon is harmful: it may lock the account.
type Unauthorized struct{ Reason string }

func (e *Unauthorized) Error() string { return "ews: not let in: " + e.Reason }

// ConfigError says that whatever answers at the URL will not work as configured:
// a login page, a redirect, EWS switched off.
type ConfigError struct {
	Status int
	Reason string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("ews: HTTP status %d: %s", e.Status, e.Reason)
}

// Outage says that the server, or what stands before it, does not work for now.
// Wait is what it asked for, an hour at most; zero: it named no time.
type Outage struct {
	Status int
	Wait   time.Duration
}

func (e *Outage) Error() string {
	return fmt.Sprintf("ews: out of service for now (HTTP status %d)", e.Status)
}

// Fault says that the server refused a whole request, for a reason that is none
// of the others. It may lie in one of the mailboxes asked for.
type Fault struct {
	Code    string
	Request string // the server's id of the request, to be found in its logs
}

func (e *Fault) Error() string {
	if e.Request == "" {
		return "ews: the server refused the request: " + e.Code
	}
	return fmt.Sprintf("ews: the server refused the request: %s (request-id %s)", e.Code, e.Request)
}

// Defect tells whether the fault is one of the client, which no repetition and
// no other mailbox mends.
func (e *Fault) Defect() bool {
	switch e.Code {
	case "ErrorSchemaValidation", "ErrorInvalidRequest", "ErrorInvalidServerVersion",
		"ErrorInvalidSchemaVersionForMailboxVersion", "ErrorIncorrectSchemaVersion":
		return true
	}
	return false
}

// Malformed says that an answer cannot be read, or does not fit the request. It
// never quotes the answer.
type Malformed struct{ Reason string }

func (e *Malformed) Error() string { return "ews: malformed answer: " + e.Reason }

// ErrTipsDisabled says that the server gives no MailTips to anybody.
var ErrTipsDisabled = errors.New("ews: MailTips are switched off at the server")

const (
	defaultWait = time.Minute
	longestWait = time.Hour
)

// failure is the part of a fault, or of a response message, that tells what went wrong.
type failure struct {
	Code   string  `xml:"ResponseCode"`
	Values []value `xml:"MessageXml>Value"`
}

type value struct {
	Name string `xml:"Name,attr"`
	Text string `xml:",chardata"`
}

// throttled tells whether it means: ask later. The values come in any order.
func (f *failure) throttled() *Throttled {
	busy := f.Code == CodeServerBusy || f.Code == "ErrorExceededConnectionCount"
	wait := defaultWait
	for _, v := range f.Values {
		text := strings.TrimSpace(v.Text)
		if f.Code == "ErrorInternalServerError" && text == CodeServerBusy {
			busy = true
		}
		if v.Name != "BackOffMilliseconds" {
			continue
		}
		if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms > 0 {
			wait = time.Duration(min(ms, longestWait.Milliseconds())) * time.Millisecond
		}
	}
	if !busy {
		return nil
	}
	return &Throttled{Code: f.Code, Wait: wait}
}

// err gives the error that the failure of a whole request means.
func (f *failure) err(request string) error {
	if t := f.throttled(); t != nil {
		return t
	}
	switch f.Code {
	case "ErrorAccountDisabled", "ErrorPasswordExpired", "ErrorPasswordChangeRequired":
		return &Unauthorized{Reason: "the server says " + f.Code + " of the service account"}
	}
	return &Fault{Code: f.Code, Request: request}
}

// wantsOlder tells whether the version in the request header is too new for the server.
func wantsOlder(err error) bool {
	f, ok := errors.AsType[*Fault](err)
	if !ok {
		return false
	}
	switch f.Code {
	case "ErrorInvalidServerVersion", "ErrorInvalidSchemaVersionForMailboxVersion", "ErrorIncorrectSchemaVersion":
		return true
	}
	return false
}

// checkStatus gives the error that a status line and header mean, whatever the
// body; nil where the body is to be read. A 401 is the lane's business.
func checkStatus(resp *http.Response) error {
	kind, _, _ := strings.Cut(strings.ToLower(resp.Header.Get("Content-Type")), ";")
	html := strings.TrimSpace(kind) == "text/html"
	switch status := resp.StatusCode; {
	case status == http.StatusOK && html:
		return &ConfigError{status, "a web page instead of an EWS answer, such as the login page of a proxy; EWS must be reachable without forms login"}
	case status == http.StatusOK:
		return nil
	case status == 440:
		return &ConfigError{status, "forms login (OWA or a gateway) answers at the URL; it must be the EWS address, such as https://mail.example.com/EWS/Exchange.asmx"}
	case status == http.StatusForbidden:
		return &ConfigError{status, "EWS is not permitted to the account, or switched off by policy"}
	case status == 456:
		return &Unauthorized{Reason: "the server says (HTTP status 456) that the account is blocked"}
	case status == http.StatusFound && errorPage(resp.Header.Get("Location")):
		return &Outage{Status: status}
	case status >= 300 && status < 400:
		return &ConfigError{status, "the URL leads elsewhere; a gateway asks for a login first, or the URL is wrong"}
	case status == http.StatusTooManyRequests:
		return &Outage{status, retryAfter(resp.Header)}
	case status >= 400 && status < 500:
		return &ConfigError{status, "nothing speaks EWS at the URL"}
	case status >= 500 && strings.Contains(kind, "xml"):
		return nil
	default:
		return &Outage{status, retryAfter(resp.Header)}
	}
}

func errorPage(location string) bool {
	path, _, _ := strings.Cut(strings.ToLower(location), "?")
	return strings.HasSuffix(path, "/ews/genericerrorpage.htm")
}

// retryAfter reads the header of that name, RFC 9110 section 10.2.3.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(longestWait/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), longestWait)
	}
	return 0
}
