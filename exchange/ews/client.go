// Package ews is a client of Exchange Web Services: free/busy times and automatic
// replies of many mailboxes at a time, over connections authenticated by NTLM or
// Basic. It knows nothing of presence and keeps no calendar. Package exchange is
// its caller.
package ews

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"presenced/internal/trust"
)

// Auth is how the account proves itself.
type Auth string

// The ways. Basic sends the password: use it over TLS only.
const (
	NTLM  Auth = "ntlm"
	Basic Auth = "basic"
)

// An Account is a user, as DOMAIN\user or user@domain, and the password.
type Account struct{ User, Password string }

// Options say which server to talk to, and how. Zero values of Auth, Lanes and
// Timeout mean NTLM, 4 and 90 seconds.
type Options struct {
	URL     string
	Account Account
	Auth    Auth
	Lanes   int           // connections, and so requests at a time; at most 8
	TLS     trust.Config  // for https
	Timeout time.Duration // of one request and its answer, not counting the wait for a lane

	// Transport replaces the connections of all lanes, in tests and in replay.
	// The lanes' authentication stands on top of it.
	Transport http.RoundTripper
}

// MaxLanes is the most connections one client may have: servers grant an account
// 27 at a time by default, to all its clients together.
const MaxLanes = 8

// A Client talks to one server with one account. All methods may be called
// concurrently; a call waits for a free lane. They give the typed errors of this
// package, or what the network says.
type Client struct {
	url       string
	host      string
	timeout   time.Duration
	lanes     chan *lane // the free ones
	closeIdle []func()

	mu       sync.Mutex
	working  int           // lanes in use or free
	surplus  int           // lanes to take away when they come back
	version  int           // index of versions
	trusted  bool          // the last answer was no 401
	refusals int           // answers with 401 that stood
	refusal  error         // the last of them
	probe    chan struct{} // held by the one request that is under way while the account is not trusted
}

// versions are the RequestServerVersions to try, the one to prefer first.
func versions() []string { return []string{"Exchange2010_SP2", "Exchange2010_SP1", "Exchange2007_SP1"} }

// New makes a client. It reads the certificate files of o.TLS, and connects to nothing.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("ews: the URL is none of http or https")
	}
	if o.Auth == "" {
		o.Auth = NTLM
	}
	if o.Auth != NTLM && o.Auth != Basic {
		return nil, fmt.Errorf("ews: no authentication %q", o.Auth)
	}
	if o.Lanes == 0 {
		o.Lanes = 4
	}
	if o.Timeout == 0 {
		o.Timeout = 90 * time.Second
	}
	count := min(max(o.Lanes, 1), MaxLanes)
	c := &Client{
		url: u.String(), host: u.Host, timeout: o.Timeout,
		lanes: make(chan *lane, count), working: count, probe: make(chan struct{}, 1),
	}
	settings, err := o.TLS.Client(u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("ews: %w", err)
	}
	for range count {
		transport := o.Transport
		if transport == nil {
			own := newTransport(settings.Clone())
			c.closeIdle = append(c.closeIdle, own.CloseIdleConnections)
			transport = own
		}
		c.lanes <- newLane(transport, o.Auth, o.Account)
	}
	return c, nil
}

// Lanes tells how many requests may be under way at a time. It falls when the
// server says that there are too many.
func (c *Client) Lanes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.working
}

// CloseIdle closes the connections that no request uses. The client stays usable.
func (c *Client) CloseIdle() {
	for _, f := range c.closeIdle {
		f()
	}
}

// call sends one request, given by what is to stand in the SOAP body, and gives
// the element want of the answer.
func call[T any](ctx context.Context, c *Client, request, want string) (*T, error) {
	var answer *T
	err := c.insist(ctx, request, func(body io.Reader, id string) error {
		answer = new(T) // anew for each try: what a lost answer left must not mix with the next
		return readAnswer(body, want, id, answer)
	})
	return answer, err
}

// A reader reads the answer with that request id.
type reader func(body io.Reader, id string) error

// insist tries a lost connection again once, at once; a version header that is
// too new for the server, with an older one.
func (c *Client) insist(ctx context.Context, request string, read reader) error {
	again := true
	for {
		version := c.currentVersion()
		err := c.admitted(ctx, envelope(versions()[version], request), read)
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case wantsOlder(err) && c.stepDown(version):
		case again && lost(err):
			again = false
		default:
			return err
		}
	}
}

// lost tells whether err is of the network, and no timeout.
func lost(err error) bool {
	if network, ok := errors.AsType[net.Error](err); ok && network.Timeout() {
		return false
	}
	return !isTyped(err)
}

func (c *Client) currentVersion() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// stepDown takes the version after the one that was refused, and tells whether there is one.
func (c *Client) stepDown(refused int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == refused && refused+1 < len(versions()) {
		c.version++
	}
	return c.version > refused
}

// admitted guards the account against being locked. While it is not known that
// the server lets it in, one request is under way at a time, and those that
// waited behind a refused one are refused with it. A 401 after success, which
// may also be a server that is busy, is tried once more on a new connection.
func (c *Client) admitted(ctx context.Context, body string, read reader) error {
	c.mu.Lock()
	seen := c.refusals
	c.mu.Unlock()
	for fresh := false; ; {
		if c.isTrusted() && !fresh {
			err := c.exchange(ctx, body, read, false)
			if _, refused := errors.AsType[*Unauthorized](err); !refused {
				return err
			}
			fresh = true
			c.mu.Lock()
			c.trusted = false
			c.mu.Unlock()
		}
		done, err := c.proven(ctx, seen, body, read, fresh)
		if done {
			return err
		}
	}
}

func (c *Client) isTrusted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trusted
}

// proven has an exchange that finds out whether the server lets the account in.
// It is not done where that became known while it waited.
func (c *Client) proven(ctx context.Context, seen int, body string, read reader, fresh bool) (done bool, err error) {
	select {
	case c.probe <- struct{}{}:
		defer func() { <-c.probe }()
	case <-ctx.Done():
		return true, ctx.Err()
	}
	c.mu.Lock()
	refusal, behind, trusted := c.refusal, c.refusals != seen, c.trusted
	c.mu.Unlock()
	switch {
	case behind:
		return true, refusal
	case trusted && !fresh:
		return false, nil
	}
	err = c.exchange(ctx, body, read, fresh)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, refused := errors.AsType[*Unauthorized](err); refused {
		c.trusted, c.refusal = false, err
		c.refusals++
	} else if answered(err) {
		c.trusted = true
	}
	return true, err
}

// answered tells whether the server let the account in, whatever it then said.
func answered(err error) bool {
	if err == nil {
		return true
	}
	switch err.(type) { //nolint:errorlint // they come as they were made
	case *Throttled, *Fault, *Malformed:
		return true
	}
	return false
}

// exchange has one request and its answer over a lane.
func (c *Client) exchange(ctx context.Context, body string, read reader, fresh bool) error {
	l, err := c.take(ctx)
	if err != nil {
		return err
	}
	defer c.give(l)
	if fresh {
		l.reset()
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = c.post(ctx, l, body, read)
	if t, ok := errors.AsType[*Throttled](err); ok && t.Code == "ErrorExceededConnectionCount" {
		c.shrink()
	}
	return err
}

func (c *Client) take(ctx context.Context) (*lane, error) {
	select {
	case l := <-c.lanes:
		return l, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// give puts a lane back, or closes it where there is one too many.
func (c *Client) give(l *lane) {
	c.mu.Lock()
	gone := c.surplus > 0
	if gone {
		c.surplus--
	}
	c.mu.Unlock()
	if gone {
		l.reset()
		return
	}
	c.lanes <- l
}

func (c *Client) shrink() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working > 1 {
		c.working--
		c.surplus++
	}
}

func (c *Client) post(ctx context.Context, l *lane, body string, read reader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("ews: %w", err)
	}
	req.Header.Set("Content-Type", "text/xml; charset=utf-8")
	req.Header.Set("Accept", "text/xml")
	req.Header.Set("User-Agent", "presenced")
	req.Header.Set("Client-Request-Id", newID())
	req.Header.Set("Return-Client-Request-Id", "true")
	resp, err := l.roundTrip(req)
	if err != nil {
		if isTyped(err) {
			return err
		}
		return fmt.Errorf("ews: %s: %w", c.host, err)
	}
	defer resp.Body.Close()
	if err := checkStatus(resp); err != nil {
		return err
	}
	err = read(resp.Body, requestID(resp.Header))
	_, malformed := errors.AsType[*Malformed](err)
	switch {
	case resp.StatusCode != http.StatusOK && (err == nil || malformed):
		return &Outage{Status: resp.StatusCode}
	case err == nil || isTyped(err):
		return err
	default:
		return fmt.Errorf("ews: %s: reading the answer: %w", c.host, err)
	}
}

// requestID gives the id under which the server logged the request.
func requestID(h http.Header) string {
	id := h.Get("Request-Id")
	if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return id
}

// newID gives a random UUID, RFC 9562 section 5.4.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// envelope puts a request into a SOAP 1.1 envelope.
func envelope(version, request string) string {
	return `<?xml version="1.0" encoding="utf-8"?>` + "\n" +
		`<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"` +
		` xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"` +
		` xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages">` +
		`<soap:Header><t:RequestServerVersion Version="` + version + `"/></soap:Header>` +
		`<soap:Body>` + request + `</soap:Body></soap:Envelope>`
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text))
	return b.String()
}
