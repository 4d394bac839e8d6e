package web

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
	"presenced/internal/config"
)

// Policies is the policy in force, and what another one would have made of the past.
type Policies interface {
	// Policy gives the policy in force. It is not changed.
	Policy() *presence.Policy
	// Origin tells where that comes from.
	Origin() PolicyOrigin
	// Table writes it in the form in which Parse reads it.
	Table() []byte
	// Parse reads a table. The error is a *config.Error with all that is wrong.
	Parse(table []byte) (*presence.Policy, error)
	// DryRun tells who would have been different by another policy. It reads all that
	// is remembered, and may take minutes; ErrNotRemembered where nothing is.
	DryRun(ctx context.Context, would *presence.Policy, since, until time.Time) ([]journal.Difference, error)
}

// A PolicyOrigin is where the policy in force comes from.
type PolicyOrigin struct {
	File  string // the table is of this file; empty: it is the default one, made from knobs
	Knobs []Knob
}

// A Knob is one setting of the default table.
type Knob struct {
	Key, Value, Default, Meaning string
	Set                          bool // in the configuration, if only to the default
}

// A policyView is the body of the page of the policy.
type policyView struct {
	Lead     string
	File     string
	Rules    []policyRule
	Counted  bool // the rules say whom they decide now
	Knobs    []knobView
	Shown    []labelled // which fact shows as which activity, and when
	Times    []labelled
	MayTry   bool
	Tried    bool // a table came with the request
	Since    []choice
	Table    string // as it was typed
	Mistakes []mistake
	Sound    string // what was found right
	Run      *dryRunView
	Problem  string // why there was no dry run
}

type policyRule struct {
	No, Name, Title string
	Conditions      []labelled
	S, Word, Class  string
	Count           string
	Share           string // of the rule that decides most, in per cent
}

type knobView struct {
	Knob

	Changed bool
}

type mistake struct{ Where, Text, Line string }

type dryRunView struct {
	Since, Until moment
	People, Of   string
	Times        string
	Now          string
	Tally        []labelled
	Rows         []differenceView
	Range        string
}

type differenceView struct {
	Path, Person, Group string
	From, Until         moment
	Was, Would          look
	WasDoing, WillDoing string
	WasRule, WouldRule  string
}

// The limits of a dry run.
const (
	maxTableForm   = 768 << 10 // bytes of a form with a table
	dryRunTime     = 2 * time.Minute
	maxDifferences = 200 // rows of a page
	maxMistakes    = 100
	maxTally       = 8
)

// policyWindows are the times that a dry run may look back, the first of them unless
// another is asked for.
func policyWindows() []choice {
	return []choice{{Value: "24h", Text: "Last 24 hours"}, {Value: "1h", Text: "Last hour"}, {Value: "168h", Text: "Last 7 days"}}
}

func (s *Site) policyRoutes(mux *http.ServeMux) {
	if s.parts.Policies == nil {
		return
	}
	s.offer(place{Section: administration, Href: "/policy", Icon: "policy", Text: "Policy", Page: "policy", Needs: signin.ReadHealth})
	mux.Handle("GET /policy", s.require(signin.ReadHealth, s.policyPage))
	mux.Handle("GET /policy.yaml", s.require(signin.ReadHealth, s.policyTable))
	// It tells what people were: who asks sees everybody, as an administrator does.
	mux.Handle("POST /policy", s.require(signin.AdminAccess|signin.ReadAll, s.policyTry))
}

func (s *Site) policyPage(w http.ResponseWriter, r *http.Request) {
	s.showPolicy(w, r, http.StatusOK, &policyView{Since: policyWindows()})
}

// policyTable gives the table in force as a file.
func (s *Site) policyTable(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Content-Disposition", `attachment; filename="policy.yaml"`)
	s.write(w, r, s.parts.Policies.Table())
}

// policyTry checks a table, and says who would have been different by it. Nothing is
// put in force.
func (s *Site) policyTry(w http.ResponseWriter, r *http.Request) {
	view := &policyView{Since: policyWindows(), Tried: true}
	r.Body = http.MaxBytesReader(w, r.Body, maxTableForm)
	if err := r.ParseMultipartForm(maxTableForm); err != nil && !errors.Is(err, http.ErrNotMultipart) { // in memory, whatever it holds
		view.Problem = fmt.Sprintf("The form cannot be read: it is to have at most %d KiB.", maxTableForm>>10)
		s.showPolicy(w, r, http.StatusUnprocessableEntity, view)
		return
	}
	window := view.Since[0]
	for i, c := range view.Since {
		view.Since[i].Selected = c.Value == r.PostFormValue("since")
		if view.Since[i].Selected {
			window = c
		}
	}
	table := []byte(r.PostFormValue("table"))
	if file, _, err := r.FormFile("file"); err == nil {
		uploaded, err := io.ReadAll(file) // as much as the form may have
		_ = file.Close()
		if err == nil && len(uploaded) > 0 {
			table = uploaded
		}
	}
	table = bytes.ReplaceAll(table, []byte("\r\n"), []byte("\n")) // as a browser sends what was typed
	view.Table = strings.ToValidUTF8(string(table), "\uFFFD")
	would, err := s.parts.Policies.Parse(table)
	if err != nil {
		view.Mistakes = mistakesOf(err, table)
		s.showPolicy(w, r, http.StatusUnprocessableEntity, view)
		return
	}
	view.Sound = plural(len(would.Rules), "rule", "rules") + ", and nothing is wrong with them."
	if r.PostFormValue("do") == "check" {
		s.showPolicy(w, r, http.StatusOK, view)
		return
	}
	code := http.StatusOK
	if view.Run, view.Problem = s.dryRun(w, r, would, window); view.Problem != "" {
		code = http.StatusServiceUnavailable
	}
	s.showPolicy(w, r, code, view)
}

// dryRun tells who would have been different, or why that cannot be told. There is one
// at a time: it reads all that is remembered.
func (s *Site) dryRun(w http.ResponseWriter, r *http.Request, would *presence.Policy, window choice) (*dryRunView, string) {
	select {
	case s.trying <- struct{}{}:
		defer func() { <-s.trying }()
	default:
		return nil, "Another dry run is under way. Try again in a while."
	}
	back, _ := time.ParseDuration(window.Value) //nolint:errcheck // one of policyWindows
	ctx, cancel := context.WithTimeout(r.Context(), dryRunTime)
	defer cancel()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(dryRunTime + writeTime)) //nolint:errcheck // a recorder has none
	until := time.Now()
	since := until.Add(-back)
	differences, err := s.parts.Policies.DryRun(ctx, would, since, until)
	switch {
	case errors.Is(err, ErrNotRemembered):
		return nil, "Nothing is remembered (history.keep), so that nothing can be tried on the past."
	case ctx.Err() != nil:
		return nil, fmt.Sprintf("It took longer than %s. Look back less far, or use \"presenced policy dry-run\", which waits longer.", dryRunTime)
	case err != nil:
		s.log.ErrorContext(r.Context(), "a dry run failed", "error", err)
		return nil, "What is remembered cannot be read just now: " + err.Error() + "."
	}
	return s.dryRunOf(differences, since, until), ""
}

func (s *Site) dryRunOf(differences []journal.Difference, since, until time.Time) *dryRunView {
	at := func(t time.Time) moment { return momentOf(t, until, s.zone) }
	view := &dryRunView{Since: at(since), Until: at(until), Times: plural(len(differences), "time", "times"), Of: plural(len(s.desk.People()), "person", "people")}
	type change struct{ was, would presence.Availability }
	people, now, tally := map[presence.ID]bool{}, map[presence.ID]bool{}, map[change]map[presence.ID]bool{}
	for i := range differences {
		d := &differences[i]
		people[d.Person] = true
		if d.Until.IsZero() {
			now[d.Person] = true
		}
		c := change{d.Was.Availability, d.Would.Availability}
		if tally[c] == nil {
			tally[c] = map[presence.ID]bool{}
		}
		tally[c][d.Person] = true
	}
	view.People = number(len(people))
	view.Now = "Nobody would be different right now."
	if len(now) > 0 {
		view.Now = plural(len(now), "of them would be", "of them would be") + " different right now."
	}
	changes := make([]change, 0, len(tally))
	for c := range tally {
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(len(tally[b])-len(tally[a]), cmp.Compare(a.was, b.was), cmp.Compare(a.would, b.would))
	})
	for _, c := range changes[:min(len(changes), maxTally)] {
		words := c.was.Words() + " → " + c.would.Words()
		if c.was == c.would {
			words = c.was.Words() + ", doing something else"
		}
		view.Tally = append(view.Tally, labelled{words, number(len(tally[c]))})
	}
	length := func(d *journal.Difference) time.Duration {
		if d.Until.IsZero() {
			return until.Sub(d.From)
		}
		return d.Until.Sub(d.From)
	}
	slices.SortStableFunc(differences, func(a, b journal.Difference) int { return cmp.Compare(length(&b), length(&a)) })
	for i := range differences[:min(len(differences), maxDifferences)] {
		d := &differences[i]
		was, would := visible(d.Was, presence.Everyone()), visible(d.Would, presence.Everyone())
		v := differenceView{
			Path: personPath(d.Person), Person: string(d.Person), From: at(d.From), Until: at(d.Until),
			Was: lookOf(&was), Would: lookOf(&would), WasRule: d.Was.Why.Rule, WouldRule: d.Would.Why.Rule,
		}
		v.WasDoing, _ = doing(&was)
		v.WillDoing, _ = doing(&would)
		if p, ok := s.person(d.Person); ok {
			v.Person, v.Group = p.Name, firstGroup(&p)
		}
		view.Rows = append(view.Rows, v)
	}
	if len(differences) > maxDifferences {
		view.Range = fmt.Sprintf("%d of %s shown, longest first. \"presenced policy dry-run\" gives all.", maxDifferences, number(len(differences)))
	}
	return view
}

// mistakesOf gives what is wrong with a table, each with the line that it stands in.
func mistakesOf(err error, table []byte) []mistake {
	wrong, ok := errors.AsType[*config.Error](err)
	if !ok {
		return []mistake{{Text: err.Error()}}
	}
	lines := strings.Split(string(table), "\n")
	var out []mistake
	for i, p := range wrong.Wrong {
		if i == maxMistakes {
			out = append(out, mistake{Text: fmt.Sprintf("and %d more", len(wrong.Wrong)-i)})
			break
		}
		m := mistake{Text: p.Text}
		if p.Path != "" {
			m.Text = p.Path + ": " + p.Text
		}
		if p.Line > 0 {
			m.Where = fmt.Sprintf("Line %d", p.Line)
			if p.Line <= len(lines) {
				m.Line = clipped(strings.ToValidUTF8(strings.TrimSpace(lines[p.Line-1]), "\uFFFD"))
			}
		}
		out = append(out, m)
	}
	return out
}

func (s *Site) showPolicy(w http.ResponseWriter, r *http.Request, code int, view *policyView) {
	p := s.newPage(r, "policy", "Policy", url.Values{"rows": {"none"}})
	who := signin.From(r.Context())
	policy, origin := s.parts.Policies.Policy(), s.parts.Policies.Origin()
	view.MayTry = who.May(signin.AdminAccess | signin.ReadAll)
	changed := 0
	for _, k := range origin.Knobs {
		view.Knobs = append(view.Knobs, knobView{k, k.Value != k.Default})
		if k.Value != k.Default {
			changed++
		}
	}
	switch view.File = origin.File; {
	case view.File != "":
		view.Lead = "The table is that of " + view.File + "."
	case changed == 0:
		view.Lead = "The built-in table, as nobody changed it."
	default:
		view.Lead = "The built-in table, with " + plural(changed, "setting", "settings") + " changed."
	}
	// How many each rule decides is told to those who see everybody: where few are
	// somewhere, a number says who.
	counts := map[string]int{}
	if view.Counted = who.May(signin.ReadAll); view.Counted {
		for _, st := range s.desk.States() {
			counts[st.Why.Rule]++
		}
	}
	view.Rules = rulesOf(policy, counts)
	for _, shown := range policy.Shown {
		var classes []string
		for _, window := range shown.Windows {
			classes = append(classes, fmt.Sprintf("%d to %d", window.Min, window.Max))
		}
		view.Shown = append(view.Shown, labelled{sentence(shown.Fact.String()), shown.Activity.Words() + ", at class " + strings.Join(classes, " or ")})
	}
	view.Times = timesOf(policy)
	p.Body = view
	s.show(w, r, code, &p)
}

// rulesOf writes the rules of a policy, with how many each decides.
func rulesOf(policy *presence.Policy, counts map[string]int) []policyRule {
	most := 1
	for i := range policy.Rules {
		most = max(most, counts[policy.Rules[i].Name])
	}
	var out []policyRule
	for i := range policy.Rules {
		r := &policy.Rules[i]
		class := r.Class
		if class == 0 {
			class = r.Availability.Class()
		}
		v := policyRule{
			No: number(i + 1), Name: r.Name, Title: r.Title, S: r.Availability.String(), Word: r.Availability.Words(), Class: fmt.Sprint(class),
			Count: number(counts[r.Name]), Share: perCent(100 * float64(counts[r.Name]) / float64(most)),
		}
		for _, c := range []struct {
			word  string
			facts presence.FactSet
		}{{"any of", r.Any}, {"all of", r.All}, {"none of", r.None}, {"not lately", r.NotRecent}} {
			if c.facts != 0 {
				v.Conditions = append(v.Conditions, labelled{c.word, factWords(c.facts)})
			}
		}
		out = append(out, v)
	}
	return out
}

// timesOf says in words when facts come to count, and what is calmed.
func timesOf(policy *presence.Policy) []labelled {
	damping := "at once"
	if policy.MinDwell > 0 {
		damping = "after what was shown for " + policy.MinDwell.String()
	}
	if policy.FlapLimit > 0 {
		damping += fmt.Sprintf(", and at most %s within %s", plural(policy.FlapLimit, "time", "times"), policy.FlapWindow)
	}
	out := []labelled{
		{"Lately", "within " + policy.Recent.String()},
		{"Easier to reach", damping},
	}
	for f := range presence.Expired {
		var times []string
		for _, c := range []struct {
			word string
			time time.Duration
		}{{"counts after", policy.Delay[f]}, {"lingers for", policy.Linger[f]}, {"goes on over gaps of", policy.Gap[f]}} {
			if c.time != 0 {
				times = append(times, c.word+" "+c.time.String())
			}
		}
		if policy.Delay[f] != 0 && policy.Meanwhile[f] != 0 {
			times = append(times, "is until then "+factWords(policy.Meanwhile[f]))
		}
		if len(times) > 0 {
			out = append(out, labelled{sentence(f.String()), strings.Join(times, ", ")})
		}
	}
	return out
}

func factWords(facts presence.FactSet) string {
	var words []string
	for f := range facts.All() {
		words = append(words, strings.ToLower(sentence(f.String())))
	}
	return strings.Join(words, ", ")
}
