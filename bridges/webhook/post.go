package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/outbox"
)

// The types of an event.
const (
	typeChanged = "presence.changed"
	typeRemoved = "presence.removed" // the person left, or is not shown to the receiver any more
)

// An event is the body of a request.
type event struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"` // when the state became so; of two the later one counts
	Data      json.RawMessage `json:"data"`
}

// removed is the data of typeRemoved.
type removed struct {
	Version int         `json:"version"`
	Person  presence.ID `json:"person"`
}

func body(a *outbox.Attempt) []byte {
	e := event{typeChanged, a.Since.UTC(), a.Content}
	if a.Content == nil {
		e.Type = typeRemoved
		e.Data, _ = json.Marshal(removed{outbox.Version, a.Person}) // a number and a text: cannot fail
	}
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // of our own making
	}
	return data
}

// The limits of an answer.
const (
	maxAnswerHeader = 16 << 10
	maxAnswerBody   = 16 << 10 // read so that the connection can be used again; of no interest
	maxRetryAfter   = 24 * time.Hour
)

// A sender posts to one receiver.
type sender struct {
	cfg    *Config
	keys   [][]byte
	run    string // stands in message ids, so that no two runs have the same
	client *http.Client

	transport *http.Transport
}

func newSender(cfg *Config, run string) (*sender, error) {
	keys, err := readKeys(cfg.SecretFile)
	if err != nil {
		return nil, err
	}
	_, host := cfg.host()
	settings, err := cfg.TLS.Client(host)
	if err != nil {
		return nil, err
	}
	allowed, err := networks(cfg.Allow)
	if err != nil {
		return nil, err
	}
	g := guard{allowed: allowed, plain: strings.HasPrefix(strings.ToLower(cfg.URL), "http:") && !cfg.AllowPlain}
	dialer := &net.Dialer{Timeout: cfg.Timeout, Control: g.check}
	t := &http.Transport{ // no proxy: the guard is to see where a connection leads
		DialContext: dialer.DialContext, TLSClientConfig: settings, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxConnsPerHost: cfg.InFlight, MaxIdleConnsPerHost: cfg.InFlight, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswerHeader,
	}
	client := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &sender{cfg: cfg, keys: keys, run: run, client: client, transport: t}, nil
}

func (s *sender) close() { s.client.CloseIdleConnections() }

// Try reads the key and connects to the receiver of cfg, without sending anything.
func Try(ctx context.Context, cfg Config) error {
	s, err := newSender(&cfg, "")
	if err != nil {
		return err
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return err // was checked
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	conn, err := s.transport.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), u.Scheme)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if u.Scheme == "https" {
		return tls.Client(conn, s.transport.TLSClientConfig).HandshakeContext(ctx)
	}
	return nil
}

// A verdict is what came of a request.
type verdict struct {
	attempt outbox.Attempt
	outcome outbox.Outcome
	after   time.Duration // how long the receiver wants to be left alone
	why     string        // in words; nothing of the URL but the host
}

// post makes one attempt.
func (s *sender) post(ctx context.Context, a outbox.Attempt) verdict {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	v := verdict{attempt: a, outcome: outbox.Failed}
	content := body(&a)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, bytes.NewReader(content))
	if err != nil {
		v.why = "the address is none"
		return v
	}
	now, id := time.Now(), fmt.Sprintf("msg_%s_%d", s.run, a.Message)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "presenced")
	req.Header.Set(headerID, id)
	req.Header.Set(headerTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(headerSignature, sign(s.keys, id, now, content))
	res, err := s.client.Do(req)
	if err != nil {
		v.why = s.explain(ctx, err)
		return v
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswerBody) // the status says it
	v.outcome, v.why = judge(res)
	v.after = retryAfter(res.Header.Get("Retry-After"), now)
	return v
}

// explain says why there was no answer, without the path of the URL.
func (s *sender) explain(ctx context.Context, err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if ctx.Err() != nil {
		return fmt.Sprintf("no answer within %s", s.cfg.Timeout)
	}
	return err.Error()
}

// judge says what an answer means.
func judge(res *http.Response) (outbox.Outcome, string) {
	status := "the receiver answers " + strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode)
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return outbox.Accepted, ""
	case code >= 300 && code < 400:
		return outbox.Failed, status + "; redirects are not followed, so put the address that it means into url"
	case code == http.StatusGone:
		return outbox.Gone, status
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return outbox.Failed, status + "; compare the key in secret_file, and the clocks"
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnsupportedMediaType || code == http.StatusUnprocessableEntity:
		return outbox.Refused, status
	default:
		return outbox.Failed, status
	}
}

// retryAfter reads a Retry-After (RFC 9110, section 10.2.3); nothing where it cannot
// be read, and a day at most.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter) //nolint:gosec // 31 bits
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(0, min(at.Sub(now), maxRetryAfter))
}
