package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"
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
// one, and it holds the cursor it was made at.
const (
	beatEvery   = 15 * time.Second
	countsEvery = time.Second // at most
	maxStreams  = 1000
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
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		s.count("streams refused")
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many live pages", http.StatusServiceUnavailable)
		return
	}
	defer s.streams.Add(-1)

	out := stream{w: w, rc: http.NewResponseController(w), patience: s.patience}
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

// stream sends what changes after seq until the client is gone.
func (s *Site) stream(r *http.Request, out stream, seq uint64) error {
	f := parseFilter(r.URL.Query())
	rows, seq, changed := s.feed.since(seq)
	if err := out.rows(rows, &f); err != nil {
		return err
	}
	ready, err := json.Marshal(map[string]string{"version": s.looks.version})
	if err != nil {
		return err
	}
	if err := out.send(event("ready", s.feed.cursorAt(seq), string(ready))); err != nil {
		return err
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	counts := time.NewTimer(0) // runs while counts are owed
	defer counts.Stop()
	owed := true
	for {
		select {
		case <-r.Context().Done():
			return r.Context().Err()
		case <-changed:
			rows, seq, changed = s.feed.since(seq)
			if err := out.rows(rows, &f); err != nil {
				return err
			}
			if !owed {
				owed = true
				counts.Reset(countsEvery)
			}
		case <-counts.C:
			owed = false
			if f.nobody || f.id != "" {
				continue
			}
			html := s.looks.html("summary", summaryOf(s.feed.tally(&f), &f))
			if err := out.send(event("counts", s.feed.cursorAt(seq), html)); err != nil {
				return err
			}
		case now := <-beat.C:
			if err := out.send(event("beat", s.feed.cursorAt(seq), now.UTC().Format(time.RFC3339))); err != nil {
				return err
			}
		}
	}
}

// A stream is the way to one client. A client that does not take what is sent
// within patience is cut off; it comes back with its cursor.
type stream struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
}

func (out stream) rows(rows []*row, f *filter) error {
	var frames [][]byte
	for _, row := range rows {
		switch {
		case row.left:
			frames = append(frames, row.hidden())
		case f.shows(&row.member, row.search):
			frames = append(frames, row.shown())
		case f.concerns(&row.person, row.search):
			frames = append(frames, row.hidden())
		}
	}
	if len(frames) == 0 {
		return nil
	}
	return out.send(frames...)
}

func (out stream) send(frames ...[]byte) error {
	for _, frame := range frames {
		if err := out.deadline(); err != nil {
			return err
		}
		if _, err := out.w.Write(frame); err != nil {
			return err
		}
	}
	if err := out.deadline(); err != nil {
		return err
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
