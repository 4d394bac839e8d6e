// Package das is a client of the calendar part of Domino Access Services, the
// JSON interface of HCL Domino from 9.0.1 on, and of the out-of-office helper
// that a customer puts beside it. It reads only, and it keeps nothing of an
// entry but its times and how it shows: what a meeting is about never gets
// past the decoder.
//
// Package domino is its only caller. Everything a server or a directory says is
// bounded and checked here; servers are found only through a map of the
// administrator.
package das

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxBody is the largest answer that is read, unpacked: a page of 100 entries is
// a tenth of it.
const maxBody = 1 << 20

// A Server is one entry of the administrator's map.
type Server struct {
	Name string // of the Domino server, canonical or abbreviated
	URL  string // base URL of its web server
}

// Options say how to ask.
type Options struct {
	Servers   []Server
	User      string            // empty: do not authenticate
	Zone      *time.Location    // of entries without a zone; nil: UTC
	ICalendar bool              // ask for iCalendar rather than JSON
	Timeout   time.Duration     // of one request; 0: none but the context's
	Transport http.RoundTripper // nil: http.DefaultTransport
}

// A Client reads calendars. It is safe for concurrent use. How many requests run
// at once, and when to stop, is the caller's business.
type Client struct {
	link
	zone      *time.Location
	icalendar bool
	servers   map[string]*server // by ServerKey
}

// A server is a web server, and what was learnt of it.
type server struct {
	name string
	base *url.URL

	mu      sync.Mutex
	filter  filter
	settled bool
}

// NewClient fails if a URL of the map is not usable, or a server is named twice.
func NewClient(o Options) (*Client, error) {
	c := &Client{link: newLink(o.User, o.Timeout, o.Transport), zone: o.Zone, icalendar: o.ICalendar, servers: make(map[string]*server)}
	if c.zone == nil {
		c.zone = time.UTC
	}
	for _, s := range o.Servers {
		base, err := CheckURL(s.URL)
		if err != nil {
			return nil, fmt.Errorf("server %q: %w", s.Name, err)
		}
		key := ServerKey(s.Name)
		if key == "" {
			return nil, errors.New("a server has no name")
		}
		if c.servers[key] != nil {
			return nil, fmt.Errorf("server %q is named twice", s.Name)
		}
		c.servers[key] = &server{name: s.Name, base: base}
	}
	return c, nil
}

// CheckURL parses the base URL of a server: http or https, a host, and nothing
// behind the path.
func CheckURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("the URL cannot be read")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("the URL begins with neither https:// nor http://")
	case u.Hostname() == "":
		return nil, errors.New("the URL has no host")
	case u.User != nil:
		return nil, errors.New("the URL holds a user; write user and password_file instead")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the URL has something behind its path")
	}
	return u, nil
}

// Locate finds the mail file that a directory writes as SERVER!!mailfile. It
// fails for a server that is not in the map and for a name that could lead
// elsewhere; the error does not quote the value.
func (c *Client) Locate(subject string) (MailFile, error) {
	key, mailfile, err := SplitSubject(subject)
	if err != nil {
		return MailFile{}, err
	}
	s := c.servers[key]
	if s == nil {
		return MailFile{}, errors.New("its server is not among the configured servers")
	}
	path, err := cleanPath(mailfile)
	if err != nil {
		return MailFile{}, err
	}
	at, err := under(s.base, path)
	if err != nil {
		return MailFile{}, err
	}
	return MailFile{Server: s.name, URL: at}, nil
}

// A link sends requests with a user's name and password.
type link struct {
	http     *http.Client
	user     string
	timeout  time.Duration
	password *atomic.Pointer[string]
}

func newLink(user string, timeout time.Duration, transport http.RoundTripper) link {
	return link{
		user: user, timeout: timeout, password: new(atomic.Pointer[string]),
		http: &http.Client{
			Transport: transport,
			// No redirect is followed, and without a jar no cookie is kept:
			// who sends DasToken back is refused without a token in a header.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// SetPassword sets the password of later requests, and tells whether it is
// another one than before.
func (l link) SetPassword(password string) bool {
	old := l.password.Swap(&password)
	return old == nil || *old != password
}

// CloseIdleConnections closes what no request uses; those under way go on.
func (l link) CloseIdleConnections() { l.http.CloseIdleConnections() }

// get asks for a page. The error is an *Error, or that of the context.
func (l link) get(ctx context.Context, at, mediaType string) (*answer, error) {
	if l.timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, l.timeout)
		defer cancel()
		a, err := l.ask(limited, at, mediaType)
		return a, settle(ctx, err)
	}
	a, err := l.ask(ctx, at, mediaType)
	return a, settle(ctx, err)
}

// settle keeps the end of the caller's context apart from a slow server.
func settle(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (l link) ask(ctx context.Context, at, mediaType string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, &Error{Failure: Malformed, Detail: "the request cannot be made"}
	}
	req.Header.Set("Accept", mediaType)
	req.Header.Set("User-Agent", "presenced")
	if l.user != "" {
		password := ""
		if p := l.password.Load(); p != nil {
			password = *p
		}
		req.SetBasicAuth(l.user, password)
	}
	resp, err := l.http.Do(req)
	if err != nil {
		// The URL names a person, and an error of net/http quotes it.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, &Error{Failure: Broken, Err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, &Error{Failure: Broken, Status: resp.StatusCode, Err: err}
	}
	if len(body) > maxBody {
		return nil, &Error{Failure: Malformed, Status: resp.StatusCode, Detail: fmt.Sprintf("the answer is larger than %d bytes", maxBody)}
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: body}
	return a, classify(a, req.URL, mediaType)
}

// A Helper reads automatic replies from the customer's helper, by the contract
// of section 6.2 of the protocol notes. It is safe for concurrent use.
type Helper struct {
	link
	template string
	base     *url.URL
}

// MailPlace is what a helper's template has where the mail address belongs.
const MailPlace = "{mail}"

// NewHelper fails if the template is not a URL with {mail} behind its host.
func NewHelper(template, user string, timeout time.Duration, transport http.RoundTripper) (*Helper, error) {
	base, err := CheckTemplate(template)
	if err != nil {
		return nil, err
	}
	return &Helper{link: newLink(user, timeout, transport), template: template, base: base}, nil
}

// CheckTemplate tells what is wrong with the template of a helper's URL. It gives
// the URL for an address of nobody.
func CheckTemplate(template string) (*url.URL, error) {
	if !strings.Contains(template, MailPlace) {
		return nil, errors.New("the URL lacks {mail}, the place of the mail address")
	}
	u, err := url.Parse(strings.ReplaceAll(template, MailPlace, "x"))
	switch {
	case err != nil:
		return nil, errors.New("the URL cannot be read")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("the URL begins with neither https:// nor http://")
	case u.Hostname() == "":
		return nil, errors.New("the URL has no host")
	case u.User != nil:
		return nil, errors.New("the URL holds a user; write user and password_file instead")
	}
	// The host must not depend on the address.
	if v, err := url.Parse(strings.ReplaceAll(template, MailPlace, "y")); err != nil || v.Host != u.Host || v.Scheme != u.Scheme {
		return nil, errors.New("{mail} has to be behind the host")
	}
	return u, nil
}

// Host names the helper.
func (h *Helper) Host() string { return h.base.Host }
