package web

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

// Audit is who changed what: *audit.Trail is one.
type Audit interface {
	// Lines gives lines, the oldest first, and how many older ones were left out.
	Lines(ctx context.Context, q audit.Query) ([]audit.Line, int, error)
}

// An auditView is the body of the page of the audit trail.
type auditView struct {
	Who, What, Whom string
	Since, Until    string // as the form has them, in the zone of the server
	SinceISO        string // the same in UTC, for the script
	UntilISO        string
	Wrong           string // with what was asked for
	Lead            string
	Lines           []auditLine
	Range           string
	Before, After   string // addresses of the pages beside this one
	CSV, JSON       string
}

type auditLine struct {
	At                            moment
	Who, From, What, Whom, Detail string
	Person, Path                  string // that it is about, where the directory knows them
}

// Limits of the audit page.
const (
	auditRows = 100 // of a page
	auditTime = 20 * time.Second
	auditBack = 7 * 24 * time.Hour // unless another time is asked for
	auditForm = "2006-01-02T15:04" // of a field for a moment
)

func (s *Site) auditRoutes(mux *http.ServeMux) {
	if s.parts.Audit == nil {
		return
	}
	s.offer(place{Section: administration, Href: "/audit", Icon: "audit", Text: "Audit", Page: "audit", Needs: signin.ReadAudit})
	mux.Handle("GET /audit", s.require(signin.ReadAudit, s.auditPage))
	mux.Handle("GET /audit.csv", s.require(signin.ReadAudit, s.auditFile))
	mux.Handle("GET /audit.json", s.require(signin.ReadAudit, s.auditFile))
}

// An auditFilter is what somebody wants to see of the trail. The words of each text
// are to be in the line, in any order and case.
type auditFilter struct {
	who, what, whom string
	since, until    time.Time // until: zero is now
	wrong           string
}

func (s *Site) auditFilter(v url.Values, now time.Time) auditFilter {
	f := auditFilter{who: clipped(v.Get("who")), what: clipped(v.Get("what")), whom: clipped(v.Get("whom")), since: now.Add(-auditBack)}
	read := func(key string, into *time.Time) {
		text := v.Get(key)
		if text == "" {
			return
		}
		for _, form := range []string{auditForm, "2006-01-02T15:04:05", "2006-01-02", time.RFC3339} {
			if t, err := time.ParseInLocation(form, text, s.zone); err == nil {
				*into = t
				return
			}
		}
		f.wrong = clipped(strconv.QuoteToGraphic(text)) + " is no time such as 2026-11-20T10:00."
	}
	read("since", &f.since)
	read("until", &f.until)
	if f.wrong == "" && !f.until.IsZero() && !f.since.Before(f.until) {
		f.wrong = "The time ends before it begins."
	}
	return f
}

// fits tells whether a line is one of those wanted.
func (f *auditFilter) fits(l *audit.Line) bool {
	holds := func(text, words string) bool {
		text = strings.ToLower(text)
		for word := range strings.FieldsSeq(strings.ToLower(words)) {
			if !strings.Contains(text, word) {
				return false
			}
		}
		return true
	}
	return holds(l.Who+" "+l.From, f.who) && holds(l.What, f.what) && holds(l.Whom+" "+l.Detail, f.whom)
}

// auditLines gives what a filter finds, the newest first. Few read the trail at once.
func (s *Site) auditLines(r *http.Request, f *auditFilter) (lines []audit.Line, left int, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), auditTime)
	defer cancel()
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	lines, left, err = s.parts.Audit.Lines(ctx, audit.Query{Since: f.since, Until: f.until, Fits: f.fits})
	slices.Reverse(lines)
	return lines, left, err
}

func (s *Site) auditPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(r, "audit", "Audit", url.Values{"rows": {"none"}})
	now, query := time.Now(), r.URL.Query()
	f := s.auditFilter(query, now)
	field := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.In(s.zone).Format(auditForm)
	}
	view := &auditView{
		Who: f.who, What: f.what, Whom: f.whom, Wrong: f.wrong,
		Since: field(f.since), Until: field(f.until), SinceISO: isoOf(f.since), UntilISO: isoOf(f.until),
	}
	p.Body = view
	if f.wrong != "" {
		s.show(w, r, http.StatusUnprocessableEntity, &p)
		return
	}
	lines, left, err := s.auditLines(r, &f)
	if err != nil {
		s.log.ErrorContext(r.Context(), "the audit trail cannot be read", "error", err)
		p.Bad = "The audit trail cannot be read just now: " + err.Error() + ". Sources says how the store fares."
		s.show(w, r, http.StatusServiceUnavailable, &p)
		return
	}
	again := url.Values{"since": {view.SinceISO}}
	for key, value := range map[string]string{"who": f.who, "what": f.what, "whom": f.whom, "until": view.UntilISO} {
		setUnless(again, key, value, "")
	}
	view.CSV, view.JSON = address("/audit.csv", again), address("/audit.json", again)
	pages := max((len(lines)+auditRows-1)/auditRows, 1)
	nth, _ := strconv.Atoi(query.Get("page")) //nolint:errcheck // what is none is the first page
	nth = min(max(nth, 1), pages)
	at := func(n int) string {
		v := maps.Clone(again)
		v.Set("page", strconv.Itoa(n))
		return address("/audit", v)
	}
	if nth > 1 {
		view.Before = at(nth - 1)
	}
	if nth < pages {
		view.After = at(nth + 1)
	}
	view.Lead = plural(len(lines), "line", "lines") + ", the newest first"
	if left > 0 {
		view.Lead = "the newest " + number(len(lines)) + " lines of " + number(len(lines)+left) + "; ask for a shorter time to see the others"
	}
	from, to := (nth-1)*auditRows, min(nth*auditRows, len(lines))
	view.Range = number(from+1) + " to " + number(to) + " of " + number(len(lines))
	for _, l := range lines[from:to] {
		row := auditLine{At: momentOf(l.At, now, s.zone), Who: l.Who, From: l.From, What: l.What, Whom: l.Whom, Detail: l.Detail}
		// The identifier of a service may be that of a person too.
		if of, ok := s.person(presence.ID(l.Whom)); ok && (strings.HasPrefix(l.What, "access ") || strings.HasPrefix(l.What, "presence ")) {
			row.Person, row.Path = of.Name, personPath(of.ID)
		}
		view.Lines = append(view.Lines, row)
	}
	s.show(w, r, http.StatusOK, &p)
}

// auditFile gives the same lines as a file, all that the page leads to.
func (s *Site) auditFile(w http.ResponseWriter, r *http.Request) {
	f := s.auditFilter(r.URL.Query(), time.Now())
	if f.wrong != "" {
		http.Error(w, f.wrong, http.StatusUnprocessableEntity)
		return
	}
	lines, left, err := s.auditLines(r, &f)
	if err != nil {
		s.log.ErrorContext(r.Context(), "the audit trail cannot be read", "error", err)
		http.Error(w, "the audit trail cannot be read just now", http.StatusServiceUnavailable)
		return
	}
	var b bytes.Buffer
	kind, name := "text/csv; charset=utf-8", "audit.csv"
	if strings.HasSuffix(r.URL.Path, ".json") {
		kind, name = "application/json", "audit.json"
		err = json.NewEncoder(&b).Encode(struct {
			Lines   []audit.Line `json:"lines"`
			LeftOut int          `json:"left_out"` // older ones
		}{lines, left})
	} else {
		err = audit.WriteCSV(&b, lines)
	}
	if err != nil { // of a buffer there is none
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	s.write(w, r, b.Bytes())
}

// isoOf gives t in UTC; the empty string for no time.
func isoOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
