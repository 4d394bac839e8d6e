package domino

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/presence"
	"presenced/domino/das"
)

// Domino locks an account after some wrong passwords, counted over all its
// protocols. So a server is asked about one subject alone until one answer
// proves the password, and left alone after a failure that is no single mail
// file's.
const (
	firstWait = 5 * time.Minute // after the first failure to log in, then twice as long each time
	lastWait  = time.Hour
	patience  = 5 // failures in a row after which a server is left alone for this poll
)

// A gate is what is known of one server from poll to poll. One visit uses it at
// a time.
type gate struct {
	server   string
	closed   time.Time     // do not ask before
	why      error         // it is closed
	wait     time.Duration // the last one after a failure to log in
	disabled bool          // it refused every subject
	turn     int           // where in the list of subjects the next visit begins

	mu     sync.Mutex
	proven presence.Subject // answered last; zero if none did since the gate was closed
}

func (g *gate) lastProven() (presence.Subject, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.proven, g.proven != presence.Subject{}
}

func (g *gate) setProven(s presence.Subject) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.proven = s
}

// close leaves the server alone.
func (g *gate) close(now time.Time, wait time.Duration, why error) error {
	g.closed, g.why = now.Add(wait), why
	return why
}

// A visit asks one server about its subjects, once.
type visit struct {
	*poller
	gate     *gate
	now      time.Time
	subjects []presence.Subject
	tell     func(presence.Subject, []presence.Span) error

	// Asking is held by all that ask side by side; who has to find out whether
	// the password still holds takes it alone.
	asking sync.RWMutex

	mu       sync.Mutex
	answered bool
	inARow   int   // failures since the last answer
	failure  error // the last of them
	over     error // why nobody is to ask any more
}

func (v *visit) run(ctx context.Context) error {
	if v.now.Before(v.gate.closed) {
		return v.gate.why
	}
	var due []presence.Subject
	for _, s := range v.subjects {
		if !v.isParked(s) {
			due = append(due, s)
		} else if err := v.tell(s, nil); err != nil {
			return err
		}
	}
	if len(due) == 0 {
		return nil
	}
	turn := v.gate.turn % len(due)
	due = slices.Concat(due[turn:], due[:turn])
	rest, err := v.prove(ctx, due)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for _, s := range rest {
		group.Go(func() error { return v.beside(ctx, s) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if !v.answered && v.failure != nil {
		return v.broken(v.failure)
	}
	return nil
}

// prove asks about one subject after the other until an answer proves that the
// server accepts the password. It gives the subjects not asked about yet.
func (v *visit) prove(ctx context.Context, due []presence.Subject) ([]presence.Subject, error) {
	var suspects []presence.Subject // who are not authorized, if others are
	refusals := 0
	for i, s := range due {
		err := v.ask(ctx, s)
		if das.FailureOf(err) == das.Unauthorized {
			suspects = append(suspects, s)
			if proven, ok := v.gate.lastProven(); ok && proven != s {
				// Is it the password, or this one alone?
				if err = v.probe(ctx, proven); das.FailureOf(err) == das.Unauthorized {
					return nil, v.locked(err, 1)
				}
			} else if len(suspects) > 1 {
				return nil, v.locked(err, len(suspects))
			} else {
				continue // the next one tells
			}
		}
		switch failure := das.FailureOf(err); {
		case err == nil:
			v.gate.wait, v.gate.disabled = 0, false
			for _, s := range suspects {
				if err := v.deny(s, "without access", unauthorized); err != nil {
					return nil, err
				}
			}
			return due[i+1:], nil
		case failure == das.LoginForm:
			return nil, v.locked(err, 1)
		case failure == das.NoAccess:
			refusals++
			if v.gate.disabled {
				return nil, v.shut()
			}
		}
		if err := v.judge(s, err); err != nil {
			return nil, err
		}
	}
	proven, ok := v.gate.lastProven()
	switch {
	case len(suspects) > 0:
		return nil, v.locked(&das.Error{Failure: das.Unauthorized, Status: http.StatusUnauthorized}, 1)
	case refusals == len(v.subjects) && (!ok || slices.Contains(due, proven)):
		return nil, v.shut()
	}
	return nil, nil
}

// beside asks while others ask too.
func (v *visit) beside(ctx context.Context, s presence.Subject) error {
	v.asking.RLock()
	err := v.ended(ctx)
	if err == nil {
		err = v.ask(ctx, s)
	}
	v.asking.RUnlock()
	switch das.FailureOf(err) {
	case das.Unauthorized, das.LoginForm:
		return v.doubt(ctx, s, err)
	default:
		return v.judge(s, err)
	}
}

// doubt finds out, while nobody else asks, whether it is the password or this
// subject alone that is not accepted any more.
func (v *visit) doubt(ctx context.Context, s presence.Subject, err error) error {
	v.asking.Lock()
	defer v.asking.Unlock()
	if over := v.ended(ctx); over != nil {
		return over
	}
	if das.FailureOf(err) == das.Unauthorized {
		proven, _ := v.gate.lastProven()
		switch again := v.probe(ctx, proven); das.FailureOf(again) {
		case das.Unauthorized, das.LoginForm:
		default:
			if again != nil {
				return v.judge(proven, again)
			}
			return v.deny(s, "without access", unauthorized)
		}
	}
	return v.end(v.locked(err, 1))
}

const unauthorized = "the user may not read it (HTTP 401)"

// ask reads about one subject and tells what it learnt. Its error is a
// *das.Error, or one that ends everything: that of the context or of who takes
// the reports.
func (v *visit) ask(ctx context.Context, s presence.Subject) error {
	a, err := v.read(ctx, v.now, s)
	if err != nil {
		return err
	}
	v.proved(s)
	v.skipped(s, a.skipped)
	return v.tell(s, a.spans)
}

// probe is ask without telling.
func (v *visit) probe(ctx context.Context, s presence.Subject) error {
	if _, err := v.read(ctx, v.now, s); err != nil {
		return err
	}
	v.proved(s)
	return nil
}

func (v *visit) proved(s presence.Subject) {
	v.gate.setProven(s)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answered, v.inARow = true, 0
}

// judge does what a failure asks for that says nothing about the password. Its
// error ends the visit.
func (v *visit) judge(s presence.Subject, err error) error {
	kind := "requests failed"
	switch das.FailureOf(err) {
	case 0: // no error, or one that ends everything
		return err
	case das.NoAccess:
		return v.deny(s, "without access", "the user may not read it (HTTP 403)")
	case das.NotFound:
		return v.deny(s, "not found", "the server does not know it")
	case das.Malformed:
		kind = "answers malformed"
	case das.Incomplete:
		kind = "answers incomplete"
	default:
	}
	v.problem(s, kind, err)
	v.mu.Lock()
	v.failure = err
	v.inARow++
	tired := v.inARow >= patience && kind == "requests failed"
	v.mu.Unlock()
	if tired {
		return v.end(v.broken(err))
	}
	return nil
}

func (v *visit) broken(err error) error { return fmt.Errorf("server %s: %w", v.gate.server, err) }

// deny parks a subject and says that nothing is known of it.
func (v *visit) deny(s presence.Subject, kind, why string) error {
	v.park(s, kind, why, v.now)
	return v.tell(s, nil)
}

// locked closes the gate because the server does not accept the password, shown
// by so many subjects.
func (v *visit) locked(err error, shown int) error {
	g := v.gate
	g.wait = min(max(2*g.wait, firstWait), lastWait)
	g.turn += shown // another time, ask about others first
	g.setProven(presence.Subject{})
	return g.close(v.now, g.wait, presence.Permanent(fmt.Errorf("server %s does not accept the user and password (%w): correct password_file, "+
		"unlock the account, or let the web site take Basic authentication on /api; nothing else is asked of it until then", g.server, err)))
}

// shut closes the gate because the server refuses everything.
func (v *visit) shut() error {
	v.gate.disabled = true
	v.gate.turn++
	return v.gate.close(v.now, parking, presence.Permanent(fmt.Errorf("server %s: %s", v.gate.server, v.refused)))
}

// end makes err the reason of the visit's end; the first one stays.
func (v *visit) end(err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over == nil {
		v.over = err
	}
	return v.over
}

// ended gives the reason why nobody is to ask any more, if there is one.
func (v *visit) ended(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over != nil {
		return v.over
	}
	return ctx.Err()
}
