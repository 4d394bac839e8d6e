package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"presenced/aggregator/journal"
	"presenced/aggregator/presence"
	"presenced/bridges/web/signin"
)

func TestPolicyPage(t *testing.T) {
	e := newEstate(t, office(), nil)
	page := parse(t, get(t, e.site(admin), "/policy").Body.String())
	var rows []string
	for _, n := range page.find(func(n *html.Node) bool { return n.Data == "tr" && n.Parent.Data == "tbody" }) {
		rows = append(rows, text(n))
	}
	if len(rows) < len(e.policy.Rules) {
		t.Fatalf("%d rows of %d rules", len(rows), len(e.policy.Rules))
	}
	for i, r := range e.policy.Rules {
		if !strings.HasPrefix(rows[i], fmt.Sprintf("%d %s %s", i+1, r.Title, r.Name)) || !strings.Contains(rows[i], r.Availability.Words()) {
			t.Errorf("row %d is %q, the rule %s", i, rows[i], r.Name)
		}
	}
	all := text(page.id(t, "main").Node)
	for _, want := range []string{
		"The built-in table, with 1 setting changed.", "tentative busy default is ignore configuration What a tentative entry means",
		"Lately within 15m0s", "Phone dialing counts after 2s", "any of phone dialing, phone connected",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	// How many a rule decides is for who sees everybody; the form, for who may try.
	for name, who := range map[string]signin.Identity{"anyone": {Role: signin.Anyone}, "operator": operator} {
		page := parse(t, get(t, e.site(who), "/policy").Body.String())
		counted := strings.Contains(text(page.id(t, "main").Node), "Decides now")
		if forms := len(page.find(func(n *html.Node) bool { return n.Data == "textarea" })); counted != (name == "operator") || forms != 0 {
			t.Errorf("%s: counted %t, %d forms", name, counted, forms)
		}
	}
	rec := get(t, e.site(operator), "/policy.yaml")
	if p, err := e.Parse(rec.Body.Bytes()); err != nil || len(p.Rules) != len(e.policy.Rules) || rec.Header().Get("Content-Disposition") != `attachment; filename="policy.yaml"` {
		t.Errorf("the file: %v, %v", err, rec.Header())
	}
	e.origin = PolicyOrigin{File: "/etc/presenced/policy.yaml"}
	if body := get(t, e.site(operator), "/policy").Body.String(); !strings.Contains(body, "The table is that of /etc/presenced/policy.yaml.") || strings.Contains(body, "h-knobs") {
		t.Error("a table of a file")
	}
}

const soundTable = "rules:\n- {rule: a, title: In a call, any: [phone-connected], availability: busy}\n- {rule: unknown, title: Nothing is known, availability: unknown}\n"

func TestPolicyTry(t *testing.T) {
	e := newEstate(t, office(), nil)
	s := e.site(admin)
	notes := func(page doc) (all []string) {
		for _, n := range page.class("note") {
			if attr(n, "id") != "lost" && attr(n, "id") != "newer" {
				all = append(all, text(n))
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		table, file string
		code        int
		note        string
	}{
		"nothing":      {"", "", 422, "rules"},
		"no YAML":      {"rules: [", "", 422, "The table is wrong"},
		"a fact":       {strings.Replace(soundTable, "phone-connected", "phone-conected", 1), "", 422, `Line 2 rules[0].any[0]: unknown fact "phone-conected" - {rule: a, title: In a call, any: [phone-conected], availability: busy}`},
		"HTML":         {"rules: <script>alert(1)</script>", "", 422, "Line 1"},
		"control":      {"rules: \x00\x1b[31m\xff", "", 422, "The table is wrong"},
		"many":         {"rules:\n" + strings.Repeat("- {rule: a}\n", 150), "", 422, "and "},
		"long":         {strings.Repeat("x", maxTableForm), "", 422, "at most 768 KiB"},
		"sound":        {soundTable, "", 200, "The table is right: 2 rules, and nothing is wrong with them."},
		"a file wins":  {"rubbish", soundTable, 200, "The table is right: 2 rules"},
		"as a browser": {strings.ReplaceAll(soundTable, "\n", "\r\n"), "", 200, "The table is right"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := postTable(t, s, c.table, c.file, "check")
			page := parse(t, rec.Body.String())
			if got := strings.Join(notes(page), "|"); rec.Code != c.code || !strings.Contains(got, c.note) {
				t.Errorf("%d, %q", rec.Code, got)
			}
			if n := len(page.find(func(n *html.Node) bool { return n.Data == "script" })); n != 1 {
				t.Errorf("%d scripts", n)
			}
		})
	}

	now := time.Now()
	private := presence.State{Availability: presence.Busy, Activity: presence.ActivityAppointment, Overlays: presence.OverlayPrivate, Why: presence.Reason{Rule: "meeting"}}
	for i := range 250 {
		e.differences = append(e.differences, journal.Difference{
			Person: presence.ID([]string{"21042", "21017", "21035"}[i%3]), From: now.Add(-time.Hour), Until: now.Add(-time.Duration(i) * time.Second),
			Was: presence.State{Availability: presence.Available, Why: presence.Reason{Rule: "phone-idle"}}, Would: presence.State{Availability: presence.Away, Why: presence.Reason{Rule: "a"}},
		})
	}
	e.differences[2] = journal.Difference{Person: "gone<i>", From: now.Add(-2 * time.Hour), Was: private, Would: presence.State{Availability: presence.Unknown, Why: presence.Reason{Rule: "unknown"}}}
	run := parse(t, postTable(t, s, soundTable, "", "run").Body.String()).id(t, "dry-run")
	got := text(run.Node)
	for _, want := range []string{
		"4 of 5 people would have been different, 250 times in all. 1 of them would be different right now.", "3 Available → Away 1 Busy → Unknown", "200 of 250 shown, longest first.",
		"gone<i>", "Busy Appointment becomes Unknown meeting → unknown",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the dry run does not say %q: %.600s", want, got)
		}
	}
	if rows := run.find(func(n *html.Node) bool { return n.Data == "tr" && n.Parent.Data == "tbody" }); len(rows) != maxDifferences || !strings.HasPrefix(text(rows[0]), "gone<i>") {
		t.Errorf("%d rows, the first %q", len(rows), text(rows[0]))
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"not remembered": {ErrNotRemembered, "Nothing is remembered"},
		"broken":         {errGone, "cannot be read just now: the disk is full."},
		"slow":           {context.DeadlineExceeded, "cannot be read just now"},
	} {
		e.tryErr = c.err
		if rec := postTable(t, s, soundTable, "", "run"); rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
}

// One dry run at a time; who goes away ends theirs.
func TestOneDryRun(t *testing.T) {
	e := newEstate(t, office(), nil)
	e.began, e.end = make(chan struct{}), make(chan struct{})
	s := e.site(admin)
	done := make(chan int)
	go func() { done <- postTable(t, s, soundTable, "", "run").Code }()
	<-e.began
	if rec := postTable(t, s, soundTable, "", "run"); rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), "Another dry run is under way") {
		t.Errorf("the second: %d", rec.Code)
	}
	close(e.end)
	if code := <-done; code != http.StatusOK {
		t.Errorf("the first: %d", code)
	}
	go func() { done <- postTable(t, s, soundTable, "", "run").Code }()
	<-e.began
	if code := <-done; code != http.StatusOK {
		t.Errorf("the third: %d", code)
	}
}
