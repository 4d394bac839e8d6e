package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"presenced/bridges/web/signin"
)

// A stream of /events sends, as text/event-stream:
//
//	row    the HTML of a row that changed
//	gone   the id of a row that is no longer to be seen
//	ready  all that changed since the cursor has been sent; how the server is built
//	counts the HTML of the summary
//	beat   the time at the server, when nothing else was sent for a while
//
// Every event carries the cursor that a client comes back with, as since= or
// as Last-Event-ID. There is no snapshot: the page that a client has loaded is
// one, and it holds the cursor it was made at. The query is that of the page, by which
// rows are sent and people counted; shown= names those whose rows the page has, where
// it does not show all that its filters let through.
const (
	frameEvery  = 100 * time.Millisecond // what changes until then is sent at once: few writes for many changes
	beatEvery   = 15 * time.Second
	countsEvery = time.Second // at most, and less often where there are many streams
	maxStreams  = 1000        // in all
	maxOwn      = 30          // of one account
	maxAnyone   = 800         // of all who did not sign in, so that there is room for the others
)

// event writes one event; data may have any number of lines.
func event(name, id, data string) []byte {
	var b bytes.Buffer
	if id != "" {
		b.WriteString("id: " + id + "\n")
	}
	b.WriteString("event: " + name + "\n")
	for line := range strings.SplitSeq(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data), "\n") {
		b.WriteString("data: " + line + "\n")
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func (s *Site) events(w http.ResponseWriter, r *http.Request) {
	leave, code := s.enter(signin.From(r.Context()).Account)
	if leave == nil {
		s.count("streams refused")
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many live pages", code)
		return
	}
	defer leave()

	out := stream{w: w, rc: http.NewResponseController(w), patience: s.patience, chunks: &s.chunks}
	if err := out.rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return
	}
	cursor := r.Header.Get("Last-Event-ID")
	if cursor == "" {
		cursor = r.URL.Query().Get("since")
	}
	if err := s.stream(r, out, s.feed.place(cursor)); errors.Is(err, os.ErrDeadlineExceeded) { // every other end is the client's or ours
		s.count("streams too slow")
		s.log.InfoContext(r.Context(), "a live page that does not read was cut off", "peer", r.RemoteAddr)
	}
}

// enter takes the place of one more stream, of an account or, if that is empty, of
// anyone, until leave is called; nil: there is none, and code is why.
func (s *Site) enter(account string) (leave func(), code int) {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return nil, http.StatusServiceUnavailable
	}
	most := maxOwn
	if account == "" {
		most = maxAnyone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[account] >= most {
		s.streams.Add(-1)
		return nil, http.StatusTooManyRequests
	}
	s.open[account]++
	return func() {
		s.streams.Add(-1)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[account]--; s.open[account] == 0 {
			delete(s.open, account)
		}
	}, 0
}

// still tells whether who began a request is who they were, and may what they might;
// changed is closed when that may be over.
func (s *Site) still(who signin.Identity) (same bool, changed <-chan struct{}) {
	if s.parts.SignIn == nil {
		return true, nil
	}
	return s.parts.SignIn.Still(who)
}

// errOver ends the stream of a session that ended.
var errOver = errors.New("the session is over, or may something else now")

// stream sends what changes after seq until the client is gone, or may not know any more.
func (s *Site) stream(r *http.Request, out stream, seq uint64) error {
	f := parseFilter(r.URL.Query())
	who := signin.From(r.Context())
	v := s.viewerOf(who)
	if f.id != "" {
		defer s.watch(v, f.id)()
	}
	same, over := s.still(who)
	if !same {
		return errOver
	}
	rows, next, _ := s.feed.since(seq)
	if err := out.rows(s.frames(rows, seq, v, &f, nil)); err != nil {
		return err
	}
	seq = next
	ready, err := json.Marshal(map[string]string{"version": s.looks.version, "role": who.Role.String()})
	if err != nil {
		return err
	}
	if err := out.send(event("ready", s.feed.cursorAt(seq), string(ready))); err != nil {
		return err
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	counts := time.NewTimer(s.spread()) // runs while counts are owed
	defer counts.Stop()
	owed, told := true, tally{all: -1}
	var people *census                 // nil: not before counts are owed for the first time
	var changed <-chan struct{}        // nil: not before the frame is over
	frame := time.NewTimer(frameEvery) // runs while changed is nil
	defer frame.Stop()
	look := func(recount bool) error {
		select { // first, where both are to be heard
		case <-over:
			if same, over = s.still(who); !same {
				return errOver
			}
		default:
		}
		rows, next, more := s.feed.since(seq)
		switch {
		case recount || people != nil && s.feed.lacks(seq):
			people = &census{}
			rows, next, _ = s.feed.since(0)
		case next == seq:
			changed = more
			return nil
		}
		changed = nil
		frame.Reset(frameEvery)
		err := out.rows(s.frames(rows, seq, v, &f, people))
		seq = next
		if !owed {
			owed = true
			counts.Reset(countsEvery + s.spread())
		}
		return err
	}
	for err == nil {
		select {
		case <-r.Context().Done():
			err = r.Context().Err()
		case <-over:
			if same, over = s.still(who); !same {
				err = errOver
			}
		case <-changed:
			err = look(false)
		case <-frame.C:
			err = look(false)
		case <-counts.C:
			owed = false
			if f.nobody || f.id != "" {
				continue
			}
			if people == nil {
				err = look(true)
			}
			if err == nil && people.tally != told { // else what changed is not for them
				told = people.tally
				err = out.send(event("counts", s.feed.cursorAt(seq), s.looks.html("summary", summaryOf(told, &f))))
			}
		case now := <-beat.C:
			if same, over = s.still(who); !same { // nothing tells that a time has passed
				return errOver
			}
			err = out.send(event("beat", s.feed.cursorAt(seq), now.UTC().Format(time.RFC3339)))
		}
	}
	return err
}

// spread gives how long a stream waits on top before it tells the counts: the longer,
// the more streams there are, which hear of a change at the same moment and would
// keep each other from telling of the next one.
func (s *Site) spread() time.Duration {
	return rand.N(countsEvery * time.Duration(s.streams.Load()+1) / 250) //nolint:gosec // nothing to guess
}

// A stream is the way to one client. A client that does not take what is sent
// within patience is cut off; it comes back with its cursor.
type stream struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
	chunks   *sync.Pool // of *bytes.Buffer: a stream that waits has none
}

// chunkSize is from how many bytes on what is collected is written.
const chunkSize = 64 << 10

// frames gives what v is sent of those of rows that changed after seq, and has people,
// if it is not nil, take in all of them.
func (s *Site) frames(rows []*row, seq uint64, v viewer, f *filter, people *census) [][]byte {
	var frames [][]byte
	for _, row := range rows {
		shown := row.seq > seq && f.shown.has(row.mark)
		if row.left || !f.concerns(&row.person, row.search) {
			if people != nil {
				people.take(row, nil)
			}
			if row.left && shown {
				frames = append(frames, row.hidden())
			}
			continue
		}
		if people == nil && !shown {
			continue
		}
		seen := row.view(s.access(v, row.person.ID))
		if people != nil {
			if f.channelFits(&seen.state) {
				people.take(row, &seen.state)
			} else {
				people.take(row, nil)
			}
		}
		switch {
		case !shown || seen.changed <= seq: // not for them
		case f.shows(&seen.member, row.search):
			frames = append(frames, seen.shown())
		default:
			frames = append(frames, row.hidden())
		}
	}
	return frames
}

func (out stream) rows(frames [][]byte) error {
	if len(frames) == 0 {
		return nil
	}
	return out.send(frames...)
}

// send writes frames with few calls, which cost more than the bytes do.
func (out stream) send(frames ...[]byte) error {
	chunk := out.chunks.Get().(*bytes.Buffer) //nolint:forcetypeassert,errcheck // it holds nothing else
	defer out.chunks.Put(chunk)
	chunk.Reset()
	for i, frame := range frames {
		chunk.Write(frame)
		if chunk.Len() < chunkSize && i < len(frames)-1 {
			continue
		}
		if err := out.deadline(); err != nil {
			return err
		}
		if _, err := out.w.Write(chunk.Bytes()); err != nil {
			return err
		}
		chunk.Reset()
	}
	return out.rc.Flush()
}

func (out stream) deadline() error {
	err := out.rc.SetWriteDeadline(time.Now().Add(out.patience))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
