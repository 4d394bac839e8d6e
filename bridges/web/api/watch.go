package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

const beatEvery = 15 * time.Second

// event writes one event of a stream; data is on one line.
func event(name, id string, data []byte) []byte {
	var b bytes.Buffer
	b.WriteString("id: " + id + "\nevent: " + name + "\ndata: ")
	b.Write(data)
	b.WriteString("\n\n")
	return b.Bytes()
}

const watchText = `A stream of events (text/event-stream) that does not end. Each has an id, with which a client that was
cut off comes back in the header Last-Event-ID: it gets what changed since, each person at most once.

* reset: what the client knows is void, all states follow. The first event, unless the client came back in time.
* state: the newest state of a person, as GET /api/states/{id} gives it. It may come again as it was.
* gone: {"person": ID}; the person is not in the directory any more.
* ready: all that there was has been sent.
* beat: {"at": TIME}; there was nothing else to send for 15 seconds.

A client that is slow skips states of a person, never the newest. One that does not read is cut off.`

type watching struct {
	LastEventID string   `header:"Last-Event-ID" maxLength:"100" doc:"The id of the last event that was received."`
	Since       string   `query:"since" maxLength:"100" doc:"The same, for clients that cannot set headers; the header counts before it."`
	IDs         []string `query:"id,explode" maxItems:"1000" doc:"Only these people; may be repeated."`
	Group       string   `query:"group" maxLength:"200" doc:"Only those who are members of this group when something changes."`
}

func (a *API) watch() {
	add(a, canRead(), huma.Operation{
		OperationID: "watch", Method: http.MethodGet, Path: "/api/watch", Tags: []string{"people"},
		Summary: "States now, then every change", Description: watchText, Errors: []int{http.StatusTooManyRequests, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{"200": {
			Description: "The stream", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}, func(ctx context.Context, in *watching) (*huma.StreamResponse, error) {
		leave, code := a.Sight.Enter(signin.From(ctx))
		if leave == nil {
			return nil, huma.ErrorWithHeaders(huma.NewError(code, "there are too many streams; try again later"), http.Header{"Retry-After": {"30"}})
		}
		a.streams.Add(1)
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer leave()
			defer a.streams.Add(-1)
			a.stream(ctx, hc, in)
		}}, nil
	})
}

// stream serves one client until it is gone.
func (a *API) stream(ctx context.Context, hc huma.Context, in *watching) {
	r, w := humago.Unwrap(hc)
	out := stream{w: w, rc: http.NewResponseController(w), patience: a.patience}
	if err := out.rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return
	}
	if err := a.follow(ctx, out, in); errors.Is(err, os.ErrDeadlineExceeded) { // every other end is the client's or ours
		a.Log.InfoContext(ctx, "a watcher of the API that does not read was cut off", "peer", r.RemoteAddr)
	}
}

// errOver ends the stream of a session or a token that ended.
var errOver = errors.New("who asked may not, or may something else now")

// follow sends what the client is to see until it is gone, or may not know any more.
func (a *API) follow(ctx context.Context, out stream, in *watching) error {
	who := signin.From(ctx)
	seq, known := a.feed.place(cmp.Or(in.LastEventID, in.Since))
	if !known {
		if err := out.send(event("reset", a.feed.cursor(0), []byte("{}"))); err != nil {
			return err
		}
	}
	wants := wanted(in)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for first := true; ; first = false {
		same, over := a.Sight.Still(who)
		if !same {
			return errOver
		}
		rows, next, changed := a.feed.since(seq)
		frames := a.frames(rows, seq, who, wants, first && !known)
		if seq = next; first {
			frames = append(frames, event("ready", a.feed.cursor(seq), []byte("{}")))
		}
		if err := out.send(frames...); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-over:
		case now := <-beat.C: // and nothing tells that the time of a session has passed
			data, err := json.Marshal(map[string]time.Time{"at": now.UTC()})
			if err != nil {
				return err
			}
			if err := out.send(event("beat", a.feed.cursor(seq), data)); err != nil {
				return err
			}
		}
	}
}

// wanted gives whether a client asked for who a row is about, and is in these groups.
// Of who left they are not known any more.
func wanted(in *watching) func(*row, []string) bool {
	named := make(map[string]bool, len(in.IDs))
	for _, id := range in.IDs {
		named[id] = true
	}
	return func(r *row, groups []string) bool {
		return (len(named) == 0 || named[string(r.id)]) && (in.Group == "" || r.left || slices.Contains(groups, in.Group))
	}
}

// frames gives what who is sent of rows that changed after seq. In a snapshot there is
// nobody who left.
func (a *API) frames(rows []*row, seq uint64, who signin.Identity, wants func(*row, []string) bool, snapshot bool) [][]byte {
	var frames [][]byte
	for _, r := range rows {
		p, known := a.known(string(r.id))
		switch {
		case !wants(r, p.Groups):
		case r.left && !snapshot:
			data, err := json.Marshal(map[string]presence.ID{"person": r.id})
			if err != nil {
				panic("api: an identifier cannot be written: " + err.Error())
			}
			frames = append(frames, event("gone", a.feed.cursor(r.seq), data))
		case r.left, !known:
		default:
			if v := a.feed.seen(r, a.Sight.Access(who, r.id)); v.changed > seq {
				frames = append(frames, v.frame())
			}
		}
	}
	return frames
}

// A stream is the way to one client. A client that does not take what is sent within
// patience is cut off; it comes back with the id of the last event.
type stream struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
}

func (out stream) send(frames ...[]byte) error {
	if len(frames) == 0 {
		return nil
	}
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
