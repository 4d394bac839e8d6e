package ews

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/Azure/go-ntlmssp"
)

// A lane is one connection to the server and what authenticates it. It serves
// one request at a time, from the start until the body of the answer is closed:
// NTLM authenticates a connection, so no step of another request's handshake
// may come in between.
type lane struct {
	transport http.RoundTripper
	auth      Auth
	drain     *drainer // with NTLM
	account   Account
}

func newLane(transport http.RoundTripper, auth Auth, account Account) *lane {
	return &lane{transport: transport, auth: auth, account: account, drain: &drainer{next: transport}}
}

// newTransport gives a transport with one connection and without HTTP/2.
func newTransport(settings *tls.Config) *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     settings,
		TLSHandshakeTimeout: 15 * time.Second,
		MaxConnsPerHost:     1,
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     100 * time.Second, // IIS closes after 120
		Protocols:           &http1,
	}
}

// errHandshakeMoved says that the connection was lost within a handshake.
var errHandshakeMoved = errors.New("ews: the connection was lost during the NTLM handshake")

// roundTrip sends the request with the lane's credentials. An answer with status
// 401 comes as *Unauthorized.
func (l *lane) roundTrip(req *http.Request) (*http.Response, error) {
	req.SetBasicAuth(l.account.User, l.account.Password)
	if l.auth == Basic {
		resp, err := l.transport.RoundTrip(req)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			return resp, err
		}
		_ = resp.Body.Close()
		return nil, &Unauthorized{Reason: "the server refuses the user name and password" + offered(resp.Header, "Basic")}
	}
	l.drain.handshake = handshake{}
	resp, err := ntlmssp.Negotiator{RoundTripper: l.drain}.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	_ = resp.Body.Close()
	switch h := &l.drain.handshake; {
	case h.err != nil: // the negotiator gives the first answer then, which says nothing
		return nil, h.err
	case h.moved:
		return nil, errHandshakeMoved
	case h.step == 3:
		return nil, &Unauthorized{Reason: "the server took the NTLM handshake and then refused it: the password is wrong or the account locked, " +
			"or the server requires Extended Protection (channel binding), which NTLM here cannot give; set it to Allow for EWS, or use basic authentication"}
	case h.step == 1:
		return nil, &Unauthorized{Reason: "the server's NTLM challenge cannot be answered; NTLMv2 is required"}
	default:
		return nil, &Unauthorized{Reason: "the server does not offer NTLM" + offered(resp.Header, "NTLM")}
	}
}

// reset drops the connection, so that the next request authenticates anew.
func (l *lane) reset() {
	if t, ok := l.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// offered says which schemes a server offers, unless the one meant is among them.
func offered(h http.Header, meant string) string {
	var schemes []string
	for _, challenge := range h.Values("Www-Authenticate") {
		scheme, _, _ := strings.Cut(challenge, " ")
		scheme = strings.TrimRight(scheme, ",")
		if strings.EqualFold(scheme, meant) {
			return ""
		}
		if len(scheme) <= 20 && len(schemes) < 5 {
			schemes = append(schemes, scheme)
		}
	}
	return "; it offers: " + cmp.Or(strings.Join(schemes, ", "), "nothing")
}

// A drainer stands under the negotiator of a lane. It takes the body of each 401
// into memory, so that the connection is free for the next step: the negotiator
// reads the first body only when the handshake is over, and would wait for its
// own connection for ever. It also notes what became of the handshake.
type drainer struct {
	next http.RoundTripper
	handshake
}

type handshake struct {
	step  int      // the last NTLM message sent: 0, 1 or 3
	conn  net.Conn // that of message 1
	moved bool     // message 3 went over another connection than message 1
	err   error    // of the last step
}

// RoundTrip implements http.RoundTripper.
func (d *drainer) RoundTrip(req *http.Request) (*http.Response, error) {
	d.step = messageType(req.Header.Get("Authorization"))
	var conn net.Conn
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn }}
	resp, err := d.next.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	d.err = err
	switch d.step {
	case 1:
		d.conn = conn
	case 3:
		d.moved = conn != d.conn
	}
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	if err != nil {
		d.err = err
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// messageType gives the type of the NTLM message in an Authorization header ([MS-NLMP] 2.2.1), or 0.
func messageType(header string) int {
	_, token, _ := strings.Cut(header, " ")
	message, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(message) < 12 || string(message[:8]) != "NTLMSSP\x00" {
		return 0
	}
	return int(message[8])
}
