package exchange

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/presence"
	"presenced/exchange/ews"
)

// A fate is what became of a mailbox about which the server does not tell.
type fate struct {
	kind   kind
	code   string
	misses int       // in a row
	next   time.Time // not to be asked before
}

// lonely is the number of misses after which a mailbox is asked about alone, so
// that it cannot spoil the answer about others.
const lonely = 3

// A kind is what a response code about one mailbox means.
type kind uint8

const (
	told      kind = iota // the server tells
	missing               // there is no such mailbox
	denied                // the account may not see it
	elsewhere             // another forest or the cloud has it, and cannot be reached from there
	failing               // not now
	busy                  // the server is throttling
	tooMuch               // more entries than an answer may have
)

func kindOf(code string) kind {
	switch code {
	case ews.CodeOK:
		return told
	case "ErrorMailRecipientNotFound", "ErrorNonExistentMailbox", "ErrorInvalidSmtpAddress":
		return missing
	case "ErrorNoFreeBusyAccess", "ErrorAccessDenied":
		return denied
	case "ErrorProxyRequestProcessingFailed", "ErrorProxyServiceDiscoveryFailed", "ErrorAvailabilityConfigNotFound":
		return elsewhere
	case ews.CodeServerBusy:
		return busy
	case ews.CodeTooManyHits:
		return tooMuch
	default:
		return failing
	}
}

// problem gives the name under which mailboxes of that fate are counted, and what to say of one.
func (k kind) problem() (counter, text string) {
	switch k {
	case missing:
		return "mailboxes not found", "the server knows no such mailbox"
	case denied:
		return "mailboxes without access", "the service account may not see its free/busy times"
	case elsewhere:
		return "mailboxes elsewhere", "the mailbox is in another forest or in the cloud, and the server cannot reach it"
	default:
		return "mailboxes failing", "the server cannot tell just now"
	}
}

// blank tells whether nothing at all is known of such a mailbox, so that what
// was said before must not stand.
func (k kind) blank() bool { return k == missing || k == denied }

// missed notes that a mailbox could not be told about at the moment now.
func (s *source) missed(mailbox presence.Subject, now time.Time, code string) kind {
	return s.note(mailbox, now, code, 1)
}

// isolate is missed for a mailbox that spoils the answer about others: it is
// asked about alone from now on.
func (s *source) isolate(mailbox presence.Subject, now time.Time, code string) kind {
	return s.note(mailbox, now, code, lonely)
}

func (s *source) note(mailbox presence.Subject, now time.Time, code string, least int) kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.fates[mailbox]
	f := fate{kind: kindOf(code), code: code, misses: max(before.misses+1, least)}
	const longest = time.Hour
	switch {
	case f.kind.blank():
		f.next = now.Add(day)
	case f.kind == elsewhere:
		f.next = now.Add(min(s.interval<<min(f.misses, 10), longest))
	case f.misses >= lonely:
		f.next = now.Add(min(s.interval<<min(f.misses-lonely, 10), longest))
	}
	s.fates[mailbox] = f
	if !known || before.code != code {
		s.log.Info("mailbox is not covered", "mailbox", mailbox.Value, "code", code)
	}
	return f.kind
}

// reached notes that a mailbox was told about.
func (s *source) reached(mailbox presence.Subject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.fates[mailbox]; ok {
		delete(s.fates, mailbox)
		s.log.Info("mailbox is covered again", "mailbox", mailbox.Value, "code", f.code)
	}
}

func (s *source) fateOf(mailbox presence.Subject) fate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fates[mailbox]
}

// forget drops what is kept of mailboxes that are not in the roster.
func (s *source) forget(roster []presence.Subject) {
	keep := make(map[presence.Subject]bool, len(roster))
	for _, m := range roster {
		keep[m] = true
	}
	if s.dropped != nil {
		s.dropped(keep)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.fates, func(m presence.Subject, _ fate) bool { return !keep[m] })
}

func (s *source) count(problem string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[problem] += n
}

func (s *source) set(p presence.Phase, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.detail = p, detail
}

// begin notes that so many mailboxes are being asked about.
func (s *source) begin(total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.total = 0, total
	if s.phase != presence.PhaseLive {
		s.phase, s.detail = presence.PhaseSyncing, ""
	}
}

func (s *source) progress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
}

// end notes how a sweep ended at the moment at. A detail means that it did not
// achieve what it should although nothing failed.
func (s *source) end(at time.Time, err error, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, context.Canceled): // told to stop
	case err != nil:
		s.phase, s.detail = presence.PhaseDegraded, err.Error()
		s.lastError, s.lastAt = err.Error(), at
	case detail != "":
		s.phase, s.detail = presence.PhaseDegraded, detail
	default:
		s.phase, s.detail = presence.PhaseLive, fmt.Sprintf("covers %d mailboxes", s.total)
	}
}

// Status implements the reporting that the supervisor looks for.
func (s *source) Status() presence.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := presence.Status{
		Phase: s.phase, Detail: s.detail, Problems: maps.Clone(s.counts), LastError: s.lastError, LastErrorAt: s.lastAt,
	}
	if s.phase == presence.PhaseSyncing {
		st.Done, st.Total = s.done, s.total
	}
	mailboxes := slices.SortedFunc(maps.Keys(s.fates), func(a, b presence.Subject) int { return strings.Compare(a.Value, b.Value) })
	uncovered := 0
	for _, m := range mailboxes {
		f := s.fates[m]
		counter, text := f.kind.problem()
		st.Problems[counter]++
		if f.kind == failing && f.misses < lonely {
			continue
		}
		if uncovered++; uncovered > presence.MaxUnmonitored {
			st.Uncovered = uncovered
			continue
		}
		if st.Unmonitored == nil {
			st.Unmonitored = map[string]string{}
		}
		st.Unmonitored[m.Value] = fmt.Sprintf("%s (%s)", text, f.code)
	}
	return st
}
