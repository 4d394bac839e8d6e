package presence

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An ID names a person; it never changes while the person exists.
type ID string

// A Subject is a person as one source knows them. Scheme is one of tel (an
// extension), mail (a primary SMTP address in lower case), notes (the mail file
// as Domino writes it, "Mail1/Acme!!mail/jdoe.nsf"), sip, jid, id.
type Subject struct {
	Scheme string `json:"scheme"`
	Value  string `json:"value"`
}

// String gives scheme:value.
func (s Subject) String() string { return s.Scheme + ":" + s.Value }

// A Span is one fact that holds over [From, Until). A zero Until means: until
// the report is replaced.
type Span struct {
	Fact    Fact      `json:"fact"`
	From    time.Time `json:"from"`
	Until   time.Time `json:"until,omitzero"`
	Contact string    `json:"contact,omitempty"` // the communication resource it is about: tel:4711, im:ann@example.com
	Note    string    `json:"note,omitempty"`    // of what is set by hand: by whom; shown only to those whom the access rules allow
	Private bool      `json:"private,omitempty"` // times and show-as only; never a word about what it is
}

// window gives the time in which the span counts: it begins delay after From and
// ends linger after Until. A span that ended within the delay never counts, and
// ok is false.
func (s *Span) window(delay, linger time.Duration) (from, until time.Time, ok bool) {
	from, until = s.From, s.Until
	if delay != 0 {
		from = from.Add(delay)
	}
	if until.IsZero() {
		return from, until, true
	}
	ok = until.After(from)
	if linger != 0 {
		until = until.Add(linger)
	}
	return from, until, ok
}

// A Report replaces all that Source said about Subject: reports are
// idempotent, and one with an older At never wins. A report without spans says
// that the source knows nothing about the subject.
//
// Spans that ended within the last hour stay in the report, so that "in the
// last 15 minutes" is the policy's business and not the source's.
type Report struct {
	Source  string    `json:"source"`
	Subject Subject   `json:"subject"`
	At      time.Time `json:"at"` // when it was true at the source

	// Doubted is the time from which the report is shown as stale; zero: when
	// its source is lost. Expires is the time at which it stops counting; zero:
	// it lasts as long as its source lives.
	Doubted time.Time `json:"doubted,omitzero"`
	Expires time.Time `json:"expires,omitzero"`

	// Grace is how long the report outlives its source, once the link to that is
	// lost. A phone call is worth seconds, a calendar that was read is worth a day.
	Grace time.Duration `json:"grace,omitempty"`

	Spans []Span `json:"spans"`
}

// Limits of a report; one that exceeds them is refused by Check.
const (
	MaxSpans = 500
	MaxText  = 1024 // bytes of any text in a report
)

// Check tells whether r is fit to be accepted: it names its source and
// subject, is stated at some time, and is within the limits.
func (r *Report) Check() error {
	switch {
	case r.Source == "":
		return errors.New("report without a source")
	case r.Subject.Scheme == "" || r.Subject.Value == "":
		return fmt.Errorf("report of %s without a subject", r.Source)
	case r.At.IsZero():
		return fmt.Errorf("report of %s about %s without a time", r.Source, r.Subject)
	case len(r.Spans) > MaxSpans:
		return fmt.Errorf("report of %s about %s has %d spans, the limit is %d", r.Source, r.Subject, len(r.Spans), MaxSpans)
	case len(r.Source) > MaxText || len(r.Subject.Value) > MaxText:
		return fmt.Errorf("report of %.40s: source or subject longer than %d bytes", r.Source, MaxText)
	}
	for _, s := range r.Spans {
		if s.Fact >= Expired {
			return fmt.Errorf("report of %s about %s states the unknown fact %d", r.Source, r.Subject, s.Fact)
		}
		if len(s.Note) > MaxText || len(s.Contact) > MaxText {
			return fmt.Errorf("report of %s about %s: note or contact longer than %d bytes", r.Source, r.Subject, MaxText)
		}
	}
	return nil
}

// Lost gives r as it counts after its source was lost at the given time: doubted
// at once, unless the source itself said from when on, and expired when its
// grace is over.
func (r Report) Lost(at time.Time) Report {
	if r.Doubted.IsZero() {
		r.Doubted = at
	}
	if end := at.Add(r.Grace); r.Expires.IsZero() || end.Before(r.Expires) {
		r.Expires = end
	}
	return r
}

// expired tells whether the life of r is over.
func (r *Report) expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// doubted tells whether r is stale.
func (r *Report) doubted(now time.Time) bool { return !r.Doubted.IsZero() && !now.Before(r.Doubted) }

// SortSpans brings spans into the canonical order (From, Fact, Until, Contact), so
// that equal knowledge is an equal report.
func SortSpans(spans []Span) {
	slices.SortFunc(spans, func(a, b Span) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Fact, b.Fact), a.Until.Compare(b.Until), strings.Compare(a.Contact, b.Contact))
	})
}
