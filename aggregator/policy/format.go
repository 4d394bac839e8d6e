package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// Format writes p as a file that Parse reads back to an equal policy, provided
// that p is one that Parse would accept.
func Format(p *presence.Policy) []byte {
	var b bytes.Buffer
	b.WriteString("# A policy of presenced. The first rule that fits decides; docs/policy.md says what the words mean.\n\n")
	fmt.Fprintf(&b, "recent: %s\n", Duration(p.Recent))
	fmt.Fprintf(&b, "min_dwell: %s\nflap_limit: %d\nflap_window: %s\n", Duration(p.MinDwell), p.FlapLimit, Duration(p.FlapWindow))
	formatTimes(&b, p)
	b.WriteString("\nrules:\n")
	for i := range p.Rules {
		r := &p.Rules[i]
		fmt.Fprintf(&b, "- rule: %s\n  title: %s\n", scalar(r.Name), scalar(r.Title))
		for _, c := range []struct {
			key   string
			facts presence.FactSet
		}{{"any", r.Any}, {"all", r.All}, {"none", r.None}, {"not_recent", r.NotRecent}} {
			if c.facts != 0 {
				fmt.Fprintf(&b, "  %s: %s\n", c.key, list(c.facts))
			}
		}
		fmt.Fprintf(&b, "  availability: %s\n", r.Availability)
		if r.Class != 0 {
			fmt.Fprintf(&b, "  class: %d\n", r.Class)
		}
	}
	if len(p.Shown) > 0 {
		b.WriteString("\nactivities:\n")
	}
	for _, s := range p.Shown {
		var classes []string
		for _, w := range s.Windows {
			classes = append(classes, fmt.Sprintf(`"%d-%d"`, w.Min, w.Max))
		}
		fmt.Fprintf(&b, "- {fact: %s, shows: %s, classes: [%s]}\n", s.Fact, s.Activity, strings.Join(classes, ", "))
	}
	return b.Bytes()
}

func formatTimes(b *bytes.Buffer, p *presence.Policy) {
	begun := false
	for i := range p.Delay {
		var parts []string
		if p.Delay[i] != 0 {
			parts = append(parts, "delay: "+Duration(p.Delay[i]))
		}
		if p.Linger[i] != 0 {
			parts = append(parts, "linger: "+Duration(p.Linger[i]))
		}
		if p.Meanwhile[i] != 0 {
			parts = append(parts, "meanwhile: "+list(p.Meanwhile[i]))
		}
		if p.Gap[i] != 0 {
			parts = append(parts, "gap: "+Duration(p.Gap[i]))
		}
		if len(parts) == 0 {
			continue
		}
		if !begun {
			b.WriteString("\ntimes:\n")
			begun = true
		}
		fmt.Fprintf(b, "  %s: {%s}\n", presence.Fact(i), strings.Join(parts, ", ")) //nolint:gosec // bounded by the number of facts
	}
}

func list(facts presence.FactSet) string {
	return "[" + strings.ReplaceAll(facts.String(), " ", ", ") + "]"
}

// Duration writes d as tables do, shorter than String: 15m instead of 15m0s.
func Duration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// plain is a text that means itself in YAML without quotes.
var plain = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9 ,().-]*[A-Za-z0-9)])?$`) //nolint:gochecknoglobals // a pattern, never changed

// scalar writes a text for the block style, in quotes where it needs them: JSON's are YAML's.
func scalar(text string) string {
	if plain.MatchString(text) && !slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(text)) {
		return text
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // of a string does not fail
	return strings.TrimSuffix(b.String(), "\n")
}
