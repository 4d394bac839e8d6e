package web

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// What somebody may see is the same on the pages and in the API, which asks for it
// here.

// A Refusal is an error with the status and the words that who asks is given.
type Refusal struct {
	Code int
	Text string
}

func (r *Refusal) Error() string { return r.Text }

// Access gives what who may see of a person.
func (s *Site) Access(who signin.Identity, of presence.ID) presence.Access {
	return s.access(s.viewerOf(who), of)
}

// View gives what is seen of a state with that access. No state leaves otherwise.
func (s *Site) View(st presence.State, a presence.Access) presence.State { return visible(st, a) }

// Enter takes the place of one more stream, until leave is called; nil: there is none,
// and code is why.
func (s *Site) Enter(who signin.Identity) (leave func(), code int) {
	leave, code = s.enter(who.Account)
	if leave == nil {
		s.count("streams refused")
	}
	return leave, code
}

// Still tells whether who began a request is who they were, and may what they might;
// changed is closed when that may be over.
func (s *Site) Still(who signin.Identity) (same bool, changed <-chan struct{}) {
	if who.Via == signin.ViaSocket {
		return true, nil
	}
	return s.still(who)
}

// Filter gives whether somebody is among those that a query asks for, in the words of
// the board: q, group, state and channel.
func (s *Site) Filter(query url.Values) func(*presence.Person, *presence.State) bool {
	f := parseFilter(query)
	return func(p *presence.Person, st *presence.State) bool {
		m := member{person: *p, state: *st}
		return f.shows(&m, searchText(p))
	}
}

// Explain gives the reasoning at a moment; the zero time is now. Its errors, and those
// of History, are a Refusal.
func (s *Site) Explain(ctx context.Context, who signin.Identity, of presence.ID, at time.Time) (Reasoning, error) {
	v := s.viewerOf(who)
	if at.Before(time.Now()) && !at.IsZero() {
		e, err := s.explainAt(ctx, v, of, at)
		if err != nil {
			return e, s.pastProblem(ctx, err)
		}
		return e, nil
	}
	if !at.IsZero() && !tellsAhead(s.access(v, of)) {
		return Reasoning{}, s.pastProblem(ctx, errNotShown)
	}
	e, ok := s.explain(v, of, at)
	if !ok {
		return Reasoning{}, &Refusal{http.StatusNotFound, "nobody has that id"}
	}
	return e, nil
}

// History gives what held at since, then each change up to until, the earliest first;
// of more than most, the newest.
func (s *Site) History(ctx context.Context, who signin.Identity, of presence.ID, since, until time.Time, most int) ([]Change, error) {
	changes, err := s.history(ctx, s.viewerOf(who), of, since, until, most)
	if err != nil {
		return nil, s.pastProblem(ctx, err)
	}
	return changes, nil
}
