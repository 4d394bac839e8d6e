package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"presenced/aggregator/presence"
	"presenced/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// An office is a hub and a gate that the test changes.
type office struct {
	mu     sync.Mutex
	people map[presence.ID]presence.Person
	states map[presence.ID]presence.State
	hidden map[presence.ID]bool
	feeds  map[chan presence.State]bool
}

func newOffice(ids ...presence.ID) *office {
	o := &office{people: map[presence.ID]presence.Person{}, states: map[presence.ID]presence.State{}, hidden: map[presence.ID]bool{}, feeds: map[chan presence.State]bool{}}
	for _, id := range ids {
		o.people[id] = presence.Person{ID: id, Name: strings.ToUpper(string(id[:1])) + string(id[1:])}
		o.set(id, presence.Available)
	}
	return o
}

func (o *office) tell(s presence.State) {
	for feed := range o.feeds {
		feed <- s
	}
}

func (o *office) set(id presence.ID, a presence.Availability) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := presence.State{Person: id, Availability: a, Class: a.Class()}
	o.states[id] = s
	o.tell(s)
}

func (o *office) hide(id presence.ID, hidden bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hidden[id] = hidden
	o.tell(o.states[id])
}

func (o *office) remove(id presence.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.people, id)
	delete(o.states, id)
	o.tell(presence.State{Person: id, Why: presence.Reason{Rule: presence.RuleRemoved}})
}

// group changes what no state tells of.
func (o *office) group(id presence.ID, groups ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.people[id]
	p.Groups = groups
	o.people[id] = p
}

func (o *office) Watch(ctx context.Context, _ ...presence.ID) iter.Seq[presence.State] {
	return func(yield func(presence.State) bool) {
		feed := make(chan presence.State, 1024)
		o.mu.Lock()
		o.feeds[feed] = true
		first := slices.Collect(maps.Values(o.states))
		o.mu.Unlock()
		defer func() {
			o.mu.Lock()
			delete(o.feeds, feed)
			o.mu.Unlock()
		}()
		for _, s := range first {
			if !yield(s) {
				return
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-feed:
				if !yield(s) {
					return
				}
			}
		}
	}
}

func (o *office) Person(s presence.Subject) (presence.Person, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.people[presence.ID(s.Value)]
	return p, ok && s.Scheme == "id"
}

func (*office) Report(context.Context, presence.Report) error { return nil }

func (o *office) Admit(w presence.Watcher, of presence.ID) presence.Access { return o.Access(w, of) }

func (*office) Dismiss(presence.Watcher, presence.ID) {}

func (o *office) Access(w presence.Watcher, of presence.ID) presence.Access {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hidden[of] || w.Subject.String() != "webhook:crm" {
		return presence.Access{}
	}
	return presence.Everyone()
}

// notes is a memory in a map.
type notes struct {
	mu     sync.Mutex
	values map[string][]byte
	err    error
}

func newNotes() *notes { return &notes{values: map[string][]byte{}} }

func (n *notes) Load(context.Context) (map[string][]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.values), n.err
}

func (n *notes) Put(_ context.Context, key string, value []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.values[key] = bytes.Clone(value)
	}
	return n.err
}

func (n *notes) Delete(_ context.Context, key string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		delete(n.values, key)
	}
	return n.err
}

const testKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func testConfig(t testing.TB, url string) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(testKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Name, c.URL, c.SecretFile = "crm", url, secret.File(file)
	return c
}

// A receiver takes requests, as the network or as a server, and does with them what
// the test wants.
type receiver struct {
	mu     sync.Mutex
	answer func(person string, n int) (status int, retryAfter string) // nil: 200; n requests were made before
	n      int
	wrong  []string          // what is wrong with requests
	has    map[string]string // the state that was accepted last, by person
	ids    []string          // of the messages, in order
	times  []time.Time
	bodies []string
}

func newReceiver() *receiver { return &receiver{has: map[string]string{}} }

// verify checks a signature as a receiver does, from the specification.
func verify(h http.Header, body []byte) error {
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(testKey, "whsec_"))
	seconds, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age < -5*time.Second || age > 5*time.Minute {
		return fmt.Errorf("timestamp %q", h.Get("webhook-timestamp"))
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", h.Get("webhook-id"), seconds, body)
	for s := range strings.SplitSeq(h.Get("webhook-signature"), " ") {
		version, text, _ := strings.Cut(s, ",")
		if got, err := base64.StdEncoding.DecodeString(text); err == nil && version == "v1" && hmac.Equal(got, mac.Sum(nil)) {
			return nil
		}
	}
	return fmt.Errorf("signature %q", h.Get("webhook-signature"))
}

func (r *receiver) take(req *http.Request) (status int, retryAfter string) {
	body, err := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		err = verify(req.Header, body)
	}
	var e struct {
		Type string
		Data struct{ Person, State string }
	}
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if err != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
		r.wrong = append(r.wrong, fmt.Sprint(req.Method, req.Header, err))
	}
	r.ids, r.times, r.bodies = append(r.ids, req.Header.Get("webhook-id")), append(r.times, time.Now()), append(r.bodies, string(body))
	status = http.StatusOK
	if r.answer != nil {
		status, retryAfter = r.answer(e.Data.Person, r.n)
	}
	r.n++
	switch {
	case status != http.StatusOK:
	case e.Type == "presence.removed":
		delete(r.has, e.Data.Person)
	case e.Type == "presence.changed":
		r.has[e.Data.Person] = e.Data.State
	default:
		r.wrong = append(r.wrong, "type "+e.Type)
	}
	return status, retryAfter
}

// RoundTrip has it be a network.
func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	status, after := r.take(req)
	if status == 0 {
		return nil, fmt.Errorf("dial tcp: connection refused")
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {after}}, Body: http.NoBody, Request: req}, nil
}

// ServeHTTP has it be a server.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	status, _ := r.take(req)
	w.WriteHeader(status)
}

func (r *receiver) answers(f func(person string, n int) (int, string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.n = f, 0
}

// count gives how many requests there were.
func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)
}

// holds gives what was accepted last, and fails the test where a request was wrong.
func (r *receiver) holds(t *testing.T) map[string]string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.wrong {
		t.Errorf("a wrong request: %s", w)
	}
	return maps.Clone(r.has)
}

// run runs a hook until stop is called, which gives its error.
func run(t *testing.T, h *Hook, hub presence.Hub) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx, hub) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			err = <-ended
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}
