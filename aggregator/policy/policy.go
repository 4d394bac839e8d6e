// Package policy reads and writes the table of a policy as YAML: the file in
// which an administrator keeps a table of their own has the form in which the
// default is printed. It is imported by cmd only; whoever decides by a policy
// needs aggregator/presence and nothing of this.
package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"presenced/aggregator/presence"
	"presenced/internal/config"
)

// Limits of a table.
const (
	MaxRules      = 200
	MaxActivities = 200
	MaxClass      = 19999
	maxName       = 64  // bytes of the name of a rule
	maxTitle      = 200 // bytes of its title
)

// Parse reads a table; name stands in the errors. The error is a *config.Error
// with everything that is wrong, each with line and key.
func Parse(name string, data []byte) (*presence.Policy, error) {
	var t table
	if err := config.Parse(name, data, &t); err != nil {
		return nil, err
	}
	return t.policy, nil
}

// A table is the file.
type table struct {
	Recent     time.Duration    `yaml:"recent" default:"15m" doc:"What recently means in not_recent."`
	MinDwell   time.Duration    `yaml:"min_dwell" default:"1s" doc:"How long a state is shown at least before an easier one."`
	FlapLimit  int              `yaml:"flap_limit" default:"3" doc:"How many times within flap_window a person may become easier to reach."`
	FlapWindow time.Duration    `yaml:"flap_window" default:"3m" doc:"The time in which flap_limit counts."`
	Times      map[string]times `yaml:"times" doc:"How long facts take to count, by fact."`
	Rules      []rule           `yaml:"rules" doc:"The rules. The first one that fits decides."`
	Activities []activity       `yaml:"activities" doc:"Which facts show as activities. The first one that fits is shown."`

	reading config.Reading
	policy  *presence.Policy // what Check made of the file
}

type times struct {
	Delay     time.Duration `yaml:"delay" doc:"How long it must hold before it counts."`
	Linger    time.Duration `yaml:"linger" doc:"How long it counts after it ended."`
	Meanwhile []string      `yaml:"meanwhile" doc:"The facts that count instead while it waits for its delay."`
	Gap       time.Duration `yaml:"gap" doc:"How long a break between two spans may be for them to count as one."`
}

type rule struct {
	Rule         string   `yaml:"rule" doc:"Name of the rule, unique and stable."`
	Title        string   `yaml:"title" doc:"The rule in words."`
	Any          []string `yaml:"any" doc:"At least one of these facts holds."`
	All          []string `yaml:"all" doc:"All of these hold."`
	None         []string `yaml:"none" doc:"None of these holds."`
	NotRecent    []string `yaml:"not_recent" doc:"None of these held recently."`
	Availability string   `yaml:"availability" doc:"What it decides."`
	Class        int      `yaml:"class" doc:"Its numeric class; that of the availability where it is left out."`
}

type activity struct {
	Fact    string   `yaml:"fact" doc:"The fact."`
	Shows   string   `yaml:"shows" doc:"The activity that it shows as."`
	Classes []string `yaml:"classes" doc:"The classes at which it is shown, as MIN-MAX."`
}

// Read implements config.Reader.
func (t *table) Read(r config.Reading) { t.reading = r }

// Check implements config.Checker. It makes the policy on the way.
func (t *table) Check() []config.Problem {
	var c checker
	t.policy = &presence.Policy{Recent: t.Recent, MinDwell: t.MinDwell, FlapLimit: t.FlapLimit, FlapWindow: t.FlapWindow}
	c.problems = CheckDamping(t.MinDwell, t.FlapLimit, t.FlapWindow)
	c.times(t)
	c.rules(t)
	c.activities(t)
	return c.problems
}

// CheckDamping tells what is wrong with the values of min_dwell, flap_limit and
// flap_window, whether they stand in a table or among the knobs.
func CheckDamping(dwell time.Duration, limit int, window time.Duration) []config.Problem {
	var c checker
	if dwell < 0 || dwell > presence.MaxDwell {
		c.wrong("min_dwell", "%s is not within 0s and %s", dwell, Duration(presence.MaxDwell))
	}
	if limit < 0 || limit > presence.MaxFlapLimit {
		c.wrong("flap_limit", "%d is not within 0 and %d", limit, presence.MaxFlapLimit)
	}
	if window < 0 || window > presence.MaxFlapWindow {
		c.wrong("flap_window", "%s is not within 0s and %s", window, Duration(presence.MaxFlapWindow))
	}
	return c.problems
}

type checker struct{ problems []config.Problem }

func (c *checker) wrong(path, format string, args ...any) {
	c.problems = append(c.problems, config.Wrong(path, format, args...))
}

// fact gives the fact of that name.
func (c *checker) fact(path, name string) (presence.Fact, bool) {
	f, err := presence.ParseFact(name)
	switch {
	case name == "":
		c.wrong(path, "is missing: want the name of a fact")
	case err != nil:
		c.wrong(path, "%v", err)
	}
	return f, err == nil
}

func (c *checker) facts(path string, names []string) presence.FactSet {
	var set presence.FactSet
	for i, name := range names {
		if f, ok := c.fact(fmt.Sprintf("%s[%d]", path, i), name); ok {
			set |= presence.Facts(f)
		}
	}
	return set
}

func (c *checker) times(t *table) {
	for _, name := range slices.Sorted(maps.Keys(t.Times)) {
		at, times := "times."+name, t.Times[name]
		meanwhile := c.facts(at+".meanwhile", times.Meanwhile)
		if f, ok := c.fact(at, name); ok {
			t.policy.Delay[f], t.policy.Linger[f] = times.Delay, times.Linger
			t.policy.Meanwhile[f], t.policy.Gap[f] = meanwhile, times.Gap
		}
	}
}

func (c *checker) rules(t *table) {
	if len(t.Rules) == 0 {
		c.wrong("rules", "is missing: a table needs rules, the last of them without conditions")
		return
	}
	if len(t.Rules) > MaxRules {
		c.wrong("rules", "%d rules, the limit is %d", len(t.Rules), MaxRules)
		return
	}
	named := map[string]string{}
	sound := make([]bool, len(t.Rules)) // whether all of the rule is known; of others nothing follows
	for i := range t.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		before := len(c.problems)
		r := c.rule(at, &t.Rules[i])
		t.policy.Rules = append(t.policy.Rules, r)
		sound[i] = len(c.problems) == before && t.reading.Sound(at)
		if other, taken := named[r.Name]; taken {
			c.wrong(at+".rule", "%q is the name of %s already", r.Name, other)
		} else if r.Name != "" {
			named[r.Name] = at
		}
		if sound[i] {
			c.reach(at, t.policy.Rules, sound)
		}
	}
	last := len(t.Rules) - 1
	if sound[last] && !unconditional(&t.policy.Rules[last]) {
		c.wrong(fmt.Sprintf("rules[%d]", last), "the last rule must be one without conditions, so that there always is a state")
	}
}

// rule checks a rule by itself.
func (c *checker) rule(at string, t *rule) presence.Rule {
	r := presence.Rule{
		Name: t.Rule, Title: t.Title, Class: t.Class,
		Any: c.facts(at+".any", t.Any), All: c.facts(at+".all", t.All),
		None: c.facts(at+".none", t.None), NotRecent: c.facts(at+".not_recent", t.NotRecent),
	}
	switch {
	case r.Name == "":
		c.wrong(at+".rule", "is missing: want a name for the rule")
	case len(r.Name) > maxName || strings.ContainsFunc(r.Name, func(r rune) bool { return r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		c.wrong(at+".rule", "want a name without spaces, of at most %d bytes", maxName)
	case r.Name == presence.RuleRemoved:
		c.wrong(at+".rule", "%q is the name of what becomes of people who leave the directory", r.Name)
	}
	switch {
	case strings.TrimSpace(r.Title) == "":
		c.wrong(at+".title", "is missing: want the rule in words")
	case len(r.Title) > maxTitle || strings.ContainsFunc(r.Title, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }):
		c.wrong(at+".title", "want one line of at most %d bytes", maxTitle)
	}
	if t.Availability == "" {
		c.wrong(at+".availability", "is missing: want one of %s", availabilities())
	} else if r.Availability.UnmarshalText([]byte(t.Availability)) != nil {
		c.wrong(at+".availability", "unknown availability %q; want one of %s", t.Availability, availabilities())
	}
	if r.Class < 0 || r.Class > MaxClass {
		c.wrong(at+".class", "%d is not between 0 and %d", r.Class, MaxClass)
	}
	return r
}

// reach checks that the last of rules can ever fire.
func (c *checker) reach(at string, rules []presence.Rule, sound []bool) {
	last := len(rules) - 1
	r := &rules[last]
	if r.All&r.None != 0 || r.Any != 0 && r.Any&^r.None == 0 {
		c.wrong(at, "can never fire: it wants what it forbids (%s)", (r.All|r.Any)&r.None)
		return
	}
	for i := range rules[:last] {
		if sound[i] && covers(&rules[i], r) {
			c.wrong(at, "can never fire: wherever it fits, rule %s above it does", rules[i].Name)
			return
		}
	}
}

// covers tells whether above fires wherever r would.
func covers(above, r *presence.Rule) bool {
	return (above.Any == 0 || r.Any != 0 && r.Any&^above.Any == 0 || r.All&above.Any != 0) &&
		above.All&^r.All == 0 && above.None&^r.None == 0 && above.NotRecent&^r.NotRecent == 0
}

func unconditional(r *presence.Rule) bool { return r.Any|r.All|r.None|r.NotRecent == 0 }

func (c *checker) activities(t *table) {
	if len(t.Activities) > MaxActivities {
		c.wrong("activities", "%d activities, the limit is %d", len(t.Activities), MaxActivities)
		return
	}
	for i, a := range t.Activities {
		at := fmt.Sprintf("activities[%d]", i)
		var row presence.Shown
		row.Fact, _ = c.fact(at+".fact", a.Fact)
		if a.Shows == "" {
			c.wrong(at+".shows", "is missing: want the name of an activity")
		} else if err := row.Activity.UnmarshalText([]byte(a.Shows)); err != nil {
			c.wrong(at+".shows", "%v", err)
		}
		if len(a.Classes) == 0 {
			c.wrong(at+".classes", "is missing: without classes it is never shown")
		}
		for j, text := range a.Classes {
			w, err := parseWindow(text)
			if err != nil {
				c.wrong(fmt.Sprintf("%s.classes[%d]", at, j), "%v", err)
			}
			row.Windows = append(row.Windows, w)
		}
		t.policy.Shown = append(t.policy.Shown, row)
	}
}

// parseWindow reads MIN-MAX.
func parseWindow(text string) (presence.Window, error) {
	low, high, _ := strings.Cut(text, "-")
	least, err := strconv.Atoi(strings.TrimSpace(low))
	if err != nil {
		return presence.Window{}, fmt.Errorf("%q is no range of classes such as 6500-8999", text)
	}
	most, err := strconv.Atoi(strings.TrimSpace(high))
	switch {
	case err != nil:
		return presence.Window{}, fmt.Errorf("%q is no range of classes such as 6500-8999", text)
	case least < 0 || most < 0 || least > MaxClass || most > MaxClass:
		return presence.Window{}, fmt.Errorf("%q is not within 0-%d", text, MaxClass)
	case least > most:
		return presence.Window{}, fmt.Errorf("%q ends before it begins", text)
	}
	return presence.Window{Min: least, Max: most}, nil
}

func availabilities() string {
	var names []string
	for a := range presence.Availabilities() {
		names = append(names, a.String())
	}
	return strings.Join(names, ", ")
}
