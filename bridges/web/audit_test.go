package web

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"presenced/aggregator/audit"
)

func TestAuditPage(t *testing.T) {
	e := newEstate(t, office(), nil)
	now := time.Now()
	write := func(age time.Duration, who, what, whom, detail string) {
		t.Helper()
		if err := e.trail.Write(t.Context(), audit.Line{At: now.Add(-age), Who: who, From: "192.0.2.7", What: what, Whom: whom, Detail: detail}); err != nil {
			t.Fatal(err)
		}
	}
	write(30*24*time.Hour, "local:ann", "access set", "21042", "old")
	for i := range 250 {
		write(48*time.Hour-time.Duration(i)*time.Second, "local:ann", "presence set", "21017", fmt.Sprint("dnd ", i))
	}
	write(time.Hour, "=HYPERLINK(1)", "access set", "21042", "<script>alert(1)</script>\r\nX-Evil: 1")
	write(time.Minute, "uid 1000", "service delete", "21042", "200 people")
	s := e.site(admin)
	rows := func(target string) (rows []string, links map[string]string) {
		t.Helper()
		page := parse(t, get(t, s, target).Body.String())
		links = map[string]string{}
		for _, n := range page.find(func(n *html.Node) bool { return n.Data == "tr" && n.Parent.Data == "tbody" }) {
			rows = append(rows, strings.Join(strings.Fields(text(n))[1:], " "))
		}
		for _, n := range page.find(func(n *html.Node) bool { return n.Data == "a" && strings.Contains(attr(n, "class"), "btn") }) {
			links[text(n)] = attr(n, "href")
		}
		if n := len(page.find(func(n *html.Node) bool { return n.Data == "script" })); n != 2 {
			t.Errorf("%s: %d scripts", target, n)
		}
		return rows, links
	}
	first, links := rows("/audit")
	if len(first) != auditRows || !strings.HasPrefix(first[0], "uid 1000 192.0.2.7 service delete 21042 200 people") ||
		!strings.HasPrefix(first[1], "=HYPERLINK(1) 192.0.2.7 access set Marta Lindqvist 21042 <script>alert(1)</script> X-Evil: 1") {
		t.Errorf("%d rows: %.2q", len(first), first)
	}
	last, again := rows(strings.Replace(links["Older"], "page=2", "page=3", 1))
	if len(last) != 52 || again["Older"] != "" || again["Newer"] == "" {
		t.Errorf("the last page: %d rows, %v", len(last), again)
	}
	for query, want := range map[string]int{
		"what=service": 1, "who=UID+1000": 1, "who=192.0.2.7+ann": 100, "whom=21042": 2, "whom=DND+249": 1, "what=nothing": 0,
		"since=" + now.Add(-90*24*time.Hour).Format("2006-01-02") + "&what=access": 2, "since=" + url.QueryEscape(now.Add(-2*time.Minute).Format(time.RFC3339)): 1,
		"until=" + url.QueryEscape(now.Add(-2*time.Minute).UTC().Format(time.RFC3339)) + "&what=service": 0,
	} {
		if got, _ := rows("/audit?" + query); len(got) != want {
			t.Errorf("%s: %d rows, want %d", query, len(got), want)
		}
	}
	for _, query := range []string{"since=yesterday", "until=%00%1b", "since=2026-11-20T10:00&until=2026-11-19T10:00", "since=" + strings.Repeat("9", 5000)} {
		if rec := get(t, s, "/audit?"+query); rec.Code != http.StatusUnprocessableEntity {
			t.Errorf("%.30s: %d", query, rec.Code)
		}
		if rec := get(t, s, "/audit.csv?"+query); rec.Code != http.StatusUnprocessableEntity {
			t.Errorf("%.30s as a file: %d", query, rec.Code)
		}
	}

	rec := get(t, s, links["As CSV"])
	table, err := csv.NewReader(rec.Body).ReadAll()
	if err != nil || len(table) != 253 || table[2][1] != "'=HYPERLINK(1)" || table[2][5] != "<script>alert(1)</script>  X-Evil: 1" {
		t.Errorf("%d rows, %v: %q", len(table), err, table[2])
	}
	if h := rec.Header(); h.Get("Content-Type") != "text/csv; charset=utf-8" || h.Get("Content-Disposition") != `attachment; filename="audit.csv"` || h.Get("X-Evil") != "" {
		t.Errorf("headers %v", h)
	}
	var file struct {
		Lines   []audit.Line `json:"lines"`
		LeftOut int          `json:"left_out"`
	}
	rec = get(t, s, links["As JSON"]+"&what=service")
	if err := json.Unmarshal(rec.Body.Bytes(), &file); err != nil || rec.Header().Get("Content-Disposition") != `attachment; filename="audit.json"` {
		t.Errorf("%v, %v", err, rec.Header())
	}
	if diff := cmp.Diff([]string{"uid 1000"}, []string{file.Lines[0].Who}); diff != "" || len(file.Lines) != 1 {
		t.Errorf("as JSON: %+v", file)
	}

	e.lines.fail(errGone)
	for _, target := range []string{"/audit", "/audit.csv", "/audit.json"} {
		if rec := get(t, s, target); rec.Code != http.StatusServiceUnavailable {
			t.Errorf("%s while the store is away: %d", target, rec.Code)
		}
	}
}

// More lines than a page may look through are told of.
func TestAuditLeavesOut(t *testing.T) {
	e := newEstate(t, office(), nil)
	for i := range audit.MaxLines + 7 {
		if err := e.trail.Write(t.Context(), audit.Line{Who: "local:ann", What: "presence set", Whom: "21042", Detail: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	page := get(t, e.site(admin), "/audit").Body.String()
	if !strings.Contains(page, "the newest 5,000 lines of 5,007; ask for a shorter time") {
		t.Error("nothing says that lines are left out")
	}
	if body := get(t, e.site(admin), "/audit.json").Body.String(); !strings.Contains(body, `"left_out":7}`) {
		t.Errorf("the file ends in %s", body[len(body)-40:])
	}
}
