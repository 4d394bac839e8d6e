package sip

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/lookup"
)

const (
	answerTime  = 5 * time.Second // a server that takes longer is down (64*T1 of RFC 3261 would be 32 s)
	safePacket  = 1300            // RFC 3261 section 18.1.1: what is larger goes by TCP where possible
	maxPacket   = 65000           // of UDP, where TCP is not possible
	maxTag      = 512             // bytes of an entity-tag
	agentHeader = "presenced"
)

// tameLibrary sets what sipgo has as variables of its package: it refuses to send
// by UDP what does not fit an Ethernet frame (link.send keeps to safePacket while
// the server takes TCP), and warns of nothing through the program's default
// logger (a link gives it another for all that matters).
//
//nolint:gochecknoglobals // done once, for the process
var tameLibrary = sync.OnceFunc(func() {
	sip.UDPMTUSize = maxPacket + 200
	sip.SetDefaultLogger(slog.New(slog.DiscardHandler))
})

// A link is what one server is reached by: a socket for UDP, a connection for TCP
// and TLS. Its methods are safe for concurrent use.
type link struct {
	network      string // UDP, TCP or TLS
	target       netip.AddrPort
	local        string // host for Via
	transport    *sip.TransportLayer
	transactions *sip.TransactionLayer
	withoutTCP   atomic.Bool
	others       bool            // the server has more targets than this one
	worked       bool            // a publication was accepted; of the publisher's loop
	life         context.Context // ends with close
	end          context.CancelFunc

	opening sync.RWMutex // held while a request may open a connection
	closed  bool
}

// openLink makes ready to send to a target of the server at address; it connects with
// the first request. noticed is called, from any goroutine, with a kind of problem for
// each message that is not fit to be read.
func openLink(ctx context.Context, address string, to lookup.Target, trusted *tls.Config, log *slog.Logger, noticed func(kind string)) (*link, error) {
	var d net.Dialer
	probe, err := d.DialContext(ctx, "udp", to.At.String()) // sends nothing; tells which of our addresses the server sees
	if err != nil {
		return nil, err
	}
	local, _, err := net.SplitHostPort(probe.LocalAddr().String())
	_ = probe.Close()
	if err != nil {
		return nil, err
	}
	l := &link{network: strings.ToUpper(to.Transport), target: to.At, local: local}
	l.life, l.end = context.WithCancel(context.WithoutCancel(ctx))
	complain := sync.OnceFunc(func() { log.Warn("A message from the SIP server cannot be read", "server", address) })
	quiet := slog.New(&muffler{log.Handler(), func() {
		noticed("messages malformed")
		complain()
	}})
	l.transport = sip.NewTransportLayer(net.DefaultResolver, sip.NewParser(), trusted,
		sip.WithTransportLayerLogger(quiet),
		sip.WithTransportLayerReadFilter(func(from sip.TransportReadProps, data []byte) ([]byte, error) {
			return l.filter(from, data, noticed), nil
		}))
	l.transactions = sip.NewTransactionLayer(l.transport,
		sip.WithTransactionLayerLogger(quiet),
		sip.WithTransactionLayerTerminateOnConnClose(),
		sip.WithTransactionLayerUnhandledResponseHandler(func(*sip.Response) { noticed("answers too late") }))
	l.transactions.OnRequest(func(req *sip.Request, tx *sip.ServerTx) {
		defer tx.Terminate()
		code, reason := 405, "Method Not Allowed"
		if req.Method == sip.OPTIONS {
			code, reason = 200, "OK"
		} else {
			noticed("requests not expected")
		}
		res := sip.NewResponseFromRequest(req, code, reason, nil)
		res.AppendHeader(sip.NewHeader("Allow", "OPTIONS"))
		_ = tx.Respond(res) // the server sends again if it is lost
	})
	return l, nil
}

// filter drops datagrams of strangers, and the empty lines that some servers send
// before a message, which the parser does not take.
func (l *link) filter(from sip.TransportReadProps, data []byte, noticed func(kind string)) []byte {
	udp, ok := from.RemoteAddr.(*net.UDPAddr)
	if !ok {
		return data
	}
	if udp.AddrPort().Addr().Unmap() != l.target.Addr() {
		noticed("packets of strangers")
		return nil
	}
	for len(data) > 0 && (data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	return data
}

// close ends the link; what is under way fails.
func (l *link) close() {
	l.end()
	l.opening.Lock() // a connection that is opened after this would stay
	l.closed = true
	l.opening.Unlock()
	l.transactions.Close()
	_ = l.transport.Close() // nothing is lost: every request that matters was answered or has failed
}

// options asks whether the server is alive; any final answer says so.
func (l *link) options(ctx context.Context) error {
	uri := sip.Uri{Scheme: "sip", Host: l.host(), Port: int(l.target.Port())}
	_, err := l.send(ctx, func() *sip.Request {
		req := l.build(sip.OPTIONS, uri)
		req.AppendHeader(sip.NewHeader("Accept", "application/pidf+xml"))
		req.SetBody(nil)
		return req
	})
	return err
}

func (l *link) host() string {
	if l.target.Addr().Is6() {
		return "[" + l.target.Addr().String() + "]"
	}
	return l.target.Addr().String()
}

// publish sends r for entity with the header that authorizes it, if any, and
// waits for the final answer.
func (l *link) publish(ctx context.Context, entity sip.Uri, r request, header sip.Header) (response, error) {
	res, err := l.send(ctx, func() *sip.Request {
		req := l.build(sip.PUBLISH, entity)
		req.AppendHeader(sip.NewHeader("Event", "presence"))
		req.AppendHeader(sip.NewHeader("Expires", strconv.FormatInt(int64(r.expires/time.Second), 10)))
		if r.tag != "" {
			req.AppendHeader(sip.NewHeader("SIP-If-Match", r.tag))
		}
		if header != nil {
			req.AppendHeader(header)
		}
		if r.body != nil {
			req.AppendHeader(sip.NewHeader("Content-Type", "application/pidf+xml"))
		}
		req.SetBody(r.body)
		return req
	})
	if err != nil {
		return response{}, err
	}
	return read(res), nil
}

// build makes a request with what all have in common.
func (l *link) build(method sip.RequestMethod, uri sip.Uri) *sip.Request {
	req := sip.NewRequest(method, uri)
	from := sip.FromHeader{Address: uri}
	from.Params.Add("tag", sip.GenerateTagN(12))
	call := sip.CallIDHeader(rand.Text())
	hops := sip.MaxForwardsHeader(70)
	for _, h := range []sip.Header{
		&from, &sip.ToHeader{Address: uri}, &call, &sip.CSeqHeader{SeqNo: 1, MethodName: method}, &hops,
		sip.NewHeader("User-Agent", agentHeader),
	} {
		req.AppendHeader(h)
	}
	return req
}

// send sends what build gives, by TCP if it is too large for a packet and the
// server takes TCP, and waits for the final answer, at most for answerTime.
func (l *link) send(ctx context.Context, build func() *sip.Request) (*sip.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	defer context.AfterFunc(l.life, cancel)() //nolint:contextcheck // ends with the link, whatever the caller's context
	req := build()
	if l.network == "UDP" && len(req.String()) > safePacket-100 && !l.withoutTCP.Load() { // Via is still to come
		res, err := l.exchange(ctx, req, "TCP")
		if _, ok := errors.AsType[*connectError](err); !ok {
			return res, err
		}
		l.withoutTCP.Store(true)
		req = build()
	}
	return l.exchange(ctx, req, l.network)
}

// A connectError says that the request was not sent.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }

func (e *connectError) Unwrap() error { return e.err }

// exchange sends req, which must be new, and waits for the final answer.
func (l *link) exchange(ctx context.Context, req *sip.Request, network string) (*sip.Response, error) {
	via := sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: network, Host: l.local}
	via.Params.Add("branch", sip.GenerateBranch())
	via.Params.Add("rport", "")
	req.PrependHeader(&via)
	req.SetTransport(network)
	req.SetDestination(l.target.String())
	tx, err := l.begin(ctx, req)
	if err != nil {
		return nil, &connectError{err}
	}
	defer tx.Terminate()
	if c, ok := tx.Connection().(interface{ SetWriteDeadline(t time.Time) error }); ok {
		if deadline, ok := ctx.Deadline(); ok {
			_ = c.SetWriteDeadline(deadline) // a closed connection says so when it is written to
		}
	}
	if err := tx.Init(); err != nil {
		return nil, err
	}
	for {
		select {
		case res := <-tx.Responses():
			if !res.IsProvisional() {
				return res, nil
			}
		case <-tx.Done():
			return nil, fmt.Errorf("no answer: %w", tx.Err())
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer: %w", ctx.Err())
		}
	}
}

// begin makes the transaction of req, and the connection where there is none.
func (l *link) begin(ctx context.Context, req *sip.Request) (*sip.ClientTx, error) {
	l.opening.RLock()
	defer l.opening.RUnlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	return l.transactions.NewClientTransaction(ctx, req)
}

// read takes from an answer what the publication needs. What is not as RFC 3903
// and 3261 have it counts as not said.
func read(res *sip.Response) response {
	r := response{code: res.StatusCode, expires: -1}
	if tags := res.GetHeaders("SIP-ETag"); len(tags) == 1 && isTag(tags[0].Value()) {
		r.tag = tags[0].Value()
	}
	if d, ok := seconds(res, "Expires"); ok {
		r.expires = d
	}
	r.minExpires, _ = seconds(res, "Min-Expires")
	r.retryAfter, _ = seconds(res, "Retry-After")
	name := "WWW-Authenticate"
	if r.code == 407 {
		name = "Proxy-Authenticate"
	}
	if r.code == 401 || r.code == 407 {
		var values []string
		for _, h := range res.GetHeaders(name) {
			values = append(values, h.Value())
		}
		r.challenge = digest.Choose(values, r.code == 407)
	}
	return r
}

const tokenCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~"

// isTag tells whether s is a token of RFC 3261, so that it can be sent back.
func isTag(s string) bool {
	return s != "" && len(s) <= maxTag && strings.Trim(s, tokenCharacters) == ""
}

// seconds reads the number at the start of a header, as in "30 (lunch);duration=60".
func seconds(res *sip.Response, name string) (time.Duration, bool) {
	h := res.GetHeader(name)
	if h == nil {
		return 0, false
	}
	digits := h.Value()
	if i := strings.IndexFunc(digits, func(c rune) bool { return c < '0' || c > '9' }); i >= 0 {
		digits = digits[:i]
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0, false
	}
	return time.Duration(n) * time.Second, true //nolint:gosec // 32 bits of seconds fit
}

// A muffler passes on what sipgo logs as debug lines, without attributes: they
// quote whole messages. It tells of messages that could not be parsed, which
// sipgo only logs.
type muffler struct {
	slog.Handler
	unreadable func()
}

func (m *muffler) Enabled(context.Context, slog.Level) bool { return true }

func (m *muffler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "failed to parse" {
		m.unreadable()
		return nil
	}
	if !m.Handler.Enabled(ctx, slog.LevelDebug) {
		return nil
	}
	return m.Handler.Handle(ctx, slog.NewRecord(r.Time, slog.LevelDebug, "sipgo: "+r.Message, r.PC))
}

func (m *muffler) WithAttrs([]slog.Attr) slog.Handler { return m }

func (m *muffler) WithGroup(string) slog.Handler { return m }
