package ews

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // NTLM is made of it
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/md4" //nolint:gosec,staticcheck // NTLM is made of it
)

// An ntlmServer is a web server that authenticates connections by NTLMv2, as IIS
// does: what is true of one connection says nothing about another.
type ntlmServer struct {
	*httptest.Server
	body     string // of each 401
	serve    http.HandlerFunc
	epa      bool // refuse everybody at the end of the handshake
	requests atomic.Int32
	shakes   atomic.Int32 // complete and accepted handshakes
	tries    atomic.Int32 // authenticate messages seen
	disorder atomic.Int32 // authenticate messages on a connection without a challenge
	cut      atomic.Int32 // challenges after which the connection is to be closed

	mu       sync.Mutex
	password string
}

type connState struct {
	challenge []byte
	in        bool
}

type connKey struct{}

func newNTLMServer(t *testing.T, body string, serve http.HandlerFunc) *ntlmServer {
	t.Helper()
	s := &ntlmServer{body: body, serve: serve, password: "correct horse"}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.handle))
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, new(connState))
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *ntlmServer) handle(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	state := r.Context().Value(connKey{}).(*connState)
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	message, _ := base64.StdEncoding.DecodeString(token)
	switch messageType(r.Header.Get("Authorization")) {
	case 1:
		state.challenge = make([]byte, 8)
		_, _ = rand.Read(state.challenge)
		if s.cut.Add(-1) >= 0 {
			w.Header().Set("Connection", "close")
		}
		s.refuse(w, "NTLM "+base64.StdEncoding.EncodeToString(challengeMessage(state.challenge)))
		return
	case 3:
		s.tries.Add(1)
		if state.challenge == nil {
			s.disorder.Add(1)
		}
		s.mu.Lock()
		ok := state.challenge != nil && !s.epa && verify(message, state.challenge, `EXAMPLE`, "svc", s.password)
		s.mu.Unlock()
		state.challenge = nil
		if !ok {
			s.refuse(w, "NTLM")
			return
		}
		s.shakes.Add(1)
		state.in = true
	default:
		if !state.in {
			s.refuse(w, "NTLM")
			return
		}
	}
	s.serve(w, r)
}

func (s *ntlmServer) refuse(w http.ResponseWriter, challenge string) {
	w.Header().Set("Www-Authenticate", challenge)
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(s.body))
}

func (s *ntlmServer) setPassword(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = p
}

// challengeMessage writes a CHALLENGE_MESSAGE, [MS-NLMP] 2.2.1.2.
func challengeMessage(challenge []byte) []byte {
	var info bytes.Buffer
	pair := func(id uint16, data []byte) {
		_ = binary.Write(&info, binary.LittleEndian, []uint16{id, uint16(len(data))})
		info.Write(data)
	}
	pair(2, unicode("EXAMPLE"))
	pair(7, binary.LittleEndian.AppendUint64(nil, 133_000_000_000_000_000))
	pair(0, nil)
	m := append([]byte("NTLMSSP\x00"), 2, 0, 0, 0)
	m = append(m, make([]byte, 8)...) // no target name
	const unicodeFlag, ntlm, targetInfo = 1, 0x200, 0x800000
	m = binary.LittleEndian.AppendUint32(m, unicodeFlag|ntlm|targetInfo)
	m = append(m, challenge...)
	m = append(m, make([]byte, 8)...)
	m = binary.LittleEndian.AppendUint16(m, uint16(info.Len()))
	m = binary.LittleEndian.AppendUint16(m, uint16(info.Len()))
	m = binary.LittleEndian.AppendUint32(m, 56)
	m = append(m, make([]byte, 8)...) // version
	return append(m, info.Bytes()...)
}

// verify checks the NTLMv2 response of an AUTHENTICATE_MESSAGE, [MS-NLMP] 3.3.2.
func verify(message, challenge []byte, domain, user, password string) bool {
	field := func(at int) []byte {
		if len(message) < at+8 {
			return nil
		}
		length, offset := int(binary.LittleEndian.Uint16(message[at:])), int(binary.LittleEndian.Uint32(message[at+4:]))
		if offset+length > len(message) {
			return nil
		}
		return message[offset : offset+length]
	}
	response := field(20)
	if len(response) < 24 || !bytes.Equal(field(28), unicode(domain)) || !bytes.Equal(field(36), unicode(user)) {
		return false
	}
	hash := md4.New() //nolint:gosec // NTLM is made of it
	hash.Write(unicode(password))
	key := keyed(keyed(hash.Sum(nil), unicode(strings.ToUpper(user)+domain)), append(bytes.Clone(challenge), response[16:]...))
	return hmac.Equal(key, response[:16])
}

func keyed(key, data []byte) []byte {
	h := hmac.New(md5.New, key)
	h.Write(data)
	return h.Sum(nil)
}

func unicode(s string) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(s)) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

const longRefusal = 1300

func ntlmClient(t *testing.T, s *ntlmServer, lanes int, account Account) *Client {
	t.Helper()
	c, err := New(Options{URL: s.URL, Account: account, Auth: NTLM, Lanes: lanes, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

func service() Account { return Account{User: `EXAMPLE\svc`, Password: "correct horse"} }

// 48 calls over four lanes need four handshakes of two extra requests, however
// many callers there are and whether or not a 401 has a body.
func TestLanes(t *testing.T) {
	for _, body := range []string{"", strings.Repeat("x", longRefusal)} {
		t.Run(fmt.Sprintf("401 with %d bytes", len(body)), func(t *testing.T) {
			s := newNTLMServer(t, body, answer(availabilityXML(free())))
			c := ntlmClient(t, s, 4, service())
			// One after another first: with one connection per lane, a body that
			// nobody reads would block here.
			if _, err := c.Availability(t.Context(), []string{"ann@example.com"}, morning(), evening()); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			var failed atomic.Int32
			for range 16 {
				wg.Go(func() {
					for range 3 {
						if _, err := c.Availability(t.Context(), []string{"ann@example.com"}, morning(), evening()); err != nil {
							failed.Add(1)
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if failed.Load() != 0 || s.disorder.Load() != 0 {
				t.Errorf("%d calls failed, %d handshakes out of order", failed.Load(), s.disorder.Load())
			}
			if shakes, requests := s.shakes.Load(), s.requests.Load(); shakes > 4 || requests != 49+2*shakes {
				t.Errorf("%d handshakes and %d requests for 49 calls", shakes, requests)
			}
		})
	}
}

// A wrong password is tried once, however many callers wait for the outcome.
func TestWrongPasswordIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		c := clientOver(t, func(*http.Request) *http.Response {
			tries.Add(1)
			return response(http.StatusUnauthorized, "text/html", "refused")
		})
		c.probe <- struct{}{}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := c.Availability(t.Context(), []string{"ann@example.com"}, morning(), evening())
				wantUnauthorized(t, err, "user name and password")
			})
		}
		synctest.Wait() // all of them wait for the probe
		<-c.probe
		wg.Wait()
		if n := tries.Load(); n != 1 {
			t.Errorf("the password was tried %d times", n)
		}
	})
}

func TestExtendedProtectionIsNamed(t *testing.T) {
	s := newNTLMServer(t, "", answer(availabilityXML(free())))
	s.epa = true
	_, err := ntlmClient(t, s, 1, service()).Availability(t.Context(), []string{"ann@example.com"}, morning(), evening())
	wantUnauthorized(t, err, "Extended Protection")
}

// A connection that is lost within the handshake is no wrong password.
func TestChallengeLost(t *testing.T) {
	s := newNTLMServer(t, "refused", answer(availabilityXML(free())))
	s.cut.Store(1)
	c := ntlmClient(t, s, 1, service())
	if _, err := c.Availability(t.Context(), []string{"ann@example.com"}, morning(), evening()); err != nil {
		t.Fatal(err)
	}
	s.cut.Store(2)
	c.CloseIdle()
	if _, err := c.Availability(t.Context(), []string{"ann@example.com"}, morning(), evening()); err == nil {
		t.Fatal("lost twice, and yet an answer")
	} else if _, ok := err.(*Unauthorized); ok { //nolint:errorlint // as it is made
		t.Fatalf("taken for a wrong password: %v", err)
	}
}

func TestPasswordChanged(t *testing.T) {
	s := newNTLMServer(t, "refused", answer(availabilityXML(free())))
	c := ntlmClient(t, s, 1, service())
	ask := func() error {
		_, err := c.Availability(t.Context(), []string{"ann@example.com"}, morning(), evening())
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	s.setPassword("another")
	if err := ask(); err != nil {
		t.Fatalf("the connection that was let in is not asked again: %v", err)
	}
	c.CloseIdle()
	before := s.tries.Load()
	wantUnauthorized(t, ask(), "password")
	if n := s.tries.Load() - before; n != 2 {
		t.Errorf("%d tries: want the one refused and one on a new connection", n)
	}
	wantUnauthorized(t, ask(), "password")
	if n := s.tries.Load() - before; n != 3 {
		t.Errorf("%d tries: want one more only", n)
	}
	s.setPassword("correct horse")
	if err := ask(); err != nil {
		t.Fatal(err)
	}
}

func TestSchemeNotOffered(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Basic realm="mail"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	c, err := New(Options{URL: s.URL, Account: service()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	_, err = c.TipLimit(t.Context())
	wantUnauthorized(t, err, "does not offer NTLM", "Basic")
}

func wantUnauthorized(t *testing.T, err error, words ...string) {
	t.Helper()
	u, ok := err.(*Unauthorized) //nolint:errorlint // as it is made
	if !ok {
		t.Errorf("error %v, want an *Unauthorized", err)
		return
	}
	for _, w := range words {
		if !strings.Contains(u.Reason, w) {
			t.Errorf("reason %q does not say %q", u.Reason, w)
		}
	}
}
