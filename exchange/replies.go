package exchange

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
)

// Replies is the source name/replies: automatic replies.
type Replies struct {
	*source
	sendingAs string

	memory sync.Mutex
	// since is when replies without a period were first seen, so that polling
	// again does not move their beginning.
	since   map[presence.Subject]time.Time
	limit   int
	limitAt time.Time
}

// round is a sweep of automatic replies.
func (r *Replies) round(ctx context.Context, now time.Time, mailboxes []presence.Subject, emit emitter) ([]presence.Subject, error) {
	w := r.newSweep(now, emit)
	size, err := r.batch(ctx, w)
	if errors.Is(err, ews.ErrTipsDisabled) {
		return nil, r.unavailable(w, mailboxes)
	}
	if err != nil {
		w.end(w.at(), err, "")
		return mailboxes, err
	}
	w.ask = func(ctx context.Context, batch []presence.Subject) error { return r.ask(ctx, w, batch) }
	left, err := w.run(ctx, mailboxes, size)
	if errors.Is(err, ews.ErrTipsDisabled) {
		return nil, r.unavailable(w, left)
	}
	return left, err
}

// batch gives how many mailboxes one request may have: what the server says,
// asked once a day, or 50 where it does not say.
func (r *Replies) batch(ctx context.Context, w *sweep) (int, error) {
	const usual = 50
	r.memory.Lock()
	limit, at := r.limit, r.limitAt
	r.memory.Unlock()
	if age := w.now.Sub(at); limit > 0 && age >= 0 && age < day {
		return limit, nil
	}
	if wait, why := w.account.held(w.at()); wait > 0 {
		return 0, why
	}
	limit, err := over(w, func(via wire) (int, error) { return via.TipLimit(ctx) })
	if _, poisoned := poison(err); poisoned {
		limit, err = usual, nil
	}
	if err != nil {
		return 0, err
	}
	r.memory.Lock()
	defer r.memory.Unlock()
	r.limit, r.limitAt = limit, w.now
	return limit, nil
}

// unavailable states that nothing is known of anybody.
func (r *Replies) unavailable(w *sweep, mailboxes []presence.Subject) error {
	for _, m := range mailboxes {
		if err := w.report(m, nil); err != nil {
			return err
		}
	}
	w.end(w.at(), nil, "MailTips are switched off at the server, so automatic replies are not known")
	return nil
}

func (r *Replies) ask(ctx context.Context, w *sweep, batch []presence.Subject) error {
	tips, err := over(w, func(via wire) ([]ews.Tip, error) { return via.MailTips(ctx, r.sendingAs, addresses(batch)) })
	for i, mailbox := range batch[:min(len(batch), len(tips))] {
		if err := r.take(w, mailbox, &tips[i]); err != nil {
			return err
		}
	}
	return err
}

func (r *Replies) take(w *sweep, mailbox presence.Subject, tip *ews.Tip) error {
	switch k := kindOf(tip.Code); {
	case k == busy:
		return nil
	case k != told:
		return w.unheard(mailbox, r.missed(mailbox, w.now, tip.Code))
	case tip.Pending:
		w.finish(mailbox)
		return nil
	}
	r.reached(mailbox)
	return w.report(mailbox, r.spans(mailbox, tip, w.now))
}

func (r *Replies) spans(mailbox presence.Subject, tip *ews.Tip, now time.Time) []presence.Span {
	r.memory.Lock()
	defer r.memory.Unlock()
	if !tip.On || !tip.Until.IsZero() {
		delete(r.since, mailbox)
	}
	switch {
	case !tip.On || !tip.Until.IsZero() && tip.Until.Before(now.Add(-recent)):
		return nil
	case !tip.Until.IsZero():
		return []presence.Span{{Fact: presence.AutoReply, From: tip.From, Until: tip.Until}}
	}
	since, ok := r.since[mailbox]
	if !ok || since.After(now) {
		since = now
		r.since[mailbox] = since
	}
	return []presence.Span{{Fact: presence.AutoReply, From: since}}
}

// drop forgets the mailboxes that are not to be kept.
func (r *Replies) drop(keep map[presence.Subject]bool) {
	r.memory.Lock()
	defer r.memory.Unlock()
	maps.DeleteFunc(r.since, func(m presence.Subject, _ time.Time) bool { return !keep[m] })
}
