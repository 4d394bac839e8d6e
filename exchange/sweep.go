package exchange

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
)

// A sweep is one round over mailboxes as they are at one moment.
type sweep struct {
	*source
	now   time.Time
	began time.Time // on the machine's clock; only differences of it are used
	emit  emitter
	ask   func(ctx context.Context, batch []presence.Subject) error

	mu    sync.Mutex
	done  map[presence.Subject]bool
	spare int // requests that may still be spent on finding poisonous mailboxes
	stop  error
}

func (s *source) newSweep(now time.Time, emit emitter) *sweep {
	return &sweep{source: s, now: now, began: time.Now(), emit: emit, done: map[presence.Subject]bool{}, spare: 64}
}

// at gives the present moment: the one of the sweep, and the time it took so far.
func (w *sweep) at() time.Time { return w.now.Add(time.Since(w.began)) }

// run asks about the mailboxes in batches of the given size, as many at a time
// as there are lanes. Those whose time has not come are left alone, and those
// that failed repeatedly make a batch each. It gives the mailboxes that were not
// reached, and why it stopped.
func (w *sweep) run(ctx context.Context, mailboxes []presence.Subject, size int) ([]presence.Subject, error) {
	w.begin(len(mailboxes))
	var group errgroup.Group
	group.SetLimit(max(w.account.current().Lanes(), 1))
	var batch []presence.Subject
	send := func(batch []presence.Subject) {
		if len(batch) > 0 && w.stopped() == nil {
			group.Go(func() error { return w.one(ctx, batch) })
		}
	}
	for _, m := range mailboxes {
		switch f := w.fateOf(m); {
		case f.next.After(w.now):
			if err := w.unheard(m, f.kind); err != nil {
				w.halt(err)
			}
		case f.misses >= lonely:
			send([]presence.Subject{m})
		default:
			if batch = append(batch, m); len(batch) == size {
				send(batch)
				batch = nil
			}
		}
	}
	send(batch)
	_ = group.Wait() // what it gives is the error to stop for
	err := w.stopped()
	w.end(w.at(), err, "")
	var left []presence.Subject
	for _, m := range mailboxes {
		if !w.done[m] {
			left = append(left, m)
		}
	}
	return left, err
}

// one asks about a batch, and stops the sweep where that shows that it is of no use to go on.
func (w *sweep) one(ctx context.Context, batch []presence.Subject) error {
	if wait, why := w.account.held(w.at()); wait > 0 {
		if t, ok := errors.AsType[*ews.Throttled](why); ok {
			why = &ews.Throttled{Code: t.Code, Wait: wait}
		}
		w.halt(why)
	}
	if err := w.stopped(); err != nil {
		return err
	}
	err := w.bisect(ctx, batch)
	if err != nil {
		if _, ok := errors.AsType[*ews.Throttled](err); ok {
			w.count("requests throttled", 1)
		}
		w.halt(err)
	}
	return err
}

// bisect asks about a batch. Where the server refuses it whole, or its answer
// does not fit, one of the mailboxes may be the cause: the halves are asked
// about apart, as long as there is something to spare for that.
func (w *sweep) bisect(ctx context.Context, batch []presence.Subject) error {
	err := w.ask(ctx, batch)
	if _, ok := errors.AsType[*ews.Malformed](err); ok {
		w.count("answers malformed", 1)
		w.log.Warn("malformed answer", "mailboxes", len(batch), "error", err)
		if !w.spend(1) {
			return err
		}
		err = w.ask(ctx, batch)
	}
	code, poisoned := poison(err)
	switch {
	case !poisoned:
		return err
	case len(batch) == 1:
		return w.unheard(batch[0], w.isolate(batch[0], w.now, code))
	case !w.spend(2):
		return err
	}
	w.count("requests split", 1)
	half := len(batch) / 2
	if err := w.bisect(ctx, batch[:half]); err != nil {
		return err
	}
	return w.bisect(ctx, batch[half:])
}

// poison tells whether a mailbox may be the cause of err, and the code for that.
func poison(err error) (code string, ok bool) {
	if fault, ok := errors.AsType[*ews.Fault](err); ok {
		return fault.Code, !fault.Defect()
	}
	_, ok = errors.AsType[*ews.Malformed](err)
	return "answer malformed", ok
}

func (w *sweep) spend(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.spare < n {
		return false
	}
	w.spare -= n
	return true
}

func (w *sweep) halt(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop == nil {
		w.stop = err
	}
}

func (w *sweep) stopped() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stop
}

// finish notes that a mailbox needs no more asking in this round.
func (w *sweep) finish(mailbox presence.Subject) {
	w.mu.Lock()
	w.done[mailbox] = true
	w.mu.Unlock()
	w.progress()
}

// unheard deals with a mailbox about which nothing was learned: what was said of
// it stands, unless it is sure that there is nothing to know.
func (w *sweep) unheard(mailbox presence.Subject, k kind) error {
	if k.blank() {
		return w.report(mailbox, nil)
	}
	w.finish(mailbox)
	return nil
}

// report states what is known of a mailbox.
func (w *sweep) report(mailbox presence.Subject, spans []presence.Span) error {
	presence.SortSpans(spans)
	r := presence.Report{
		Source: w.name, Subject: mailbox, At: w.now,
		Doubted: w.now.Add(2*w.interval + w.interval/5 + time.Minute), Expires: w.now.Add(day), Grace: day,
		Spans: spans,
	}
	if r.Spans == nil {
		r.Spans = []presence.Span{}
	}
	if err := w.emit(r); err != nil {
		return err
	}
	w.finish(mailbox)
	return nil
}

func addresses(batch []presence.Subject) []string {
	out := make([]string, len(batch))
	for i, m := range batch {
		out[i] = m.Value
	}
	return out
}
