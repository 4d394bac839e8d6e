package sip

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	icholy "github.com/icholy/digest"
	"pgregory.net/rapid"

	"presenced/bridges/sip/digest"
)

var epoch = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// trace plays a script against a publication and gives what it sends, with the
// second at which it does. The lines of a script are "second input":
//
//	0 want A            0 200 tag=x expires=60     5 timeout     9 stop     2 tick
//
// Between two inputs the publication may send whatever becomes due.
func trace(t *testing.T, p *publication, script string) []string {
	t.Helper()
	var out []string
	now := epoch
	send := func() {
		for {
			r, ok := p.Send(now)
			if !ok {
				return
			}
			line := fmt.Sprintf("%.0f %s", now.Sub(epoch).Seconds(), r.op)
			if r.tag != "" {
				line += " if=" + r.tag
			}
			if r.body != nil {
				line += " body=" + string(r.body)
			}
			line += fmt.Sprintf(" expires=%.0f", r.expires.Seconds())
			if r.answer != nil {
				line += " answer=" + r.answer.Nonce
			}
			out = append(out, line)
		}
	}
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var second float64
		if _, err := fmt.Sscan(words[0], &second); err != nil {
			t.Fatal(err)
		}
		until := epoch.Add(time.Duration(second * float64(time.Second)))
		for due := p.Due(); !due.IsZero() && due.Before(until); due = p.Due() {
			now = due
			send()
		}
		now = until
		switch words[1] {
		case "want":
			p.Want([]byte(words[2]), now)
		case "stop":
			p.Stop(now, removalTries)
		case "leave":
			p.Stop(now, 1)
		case "resend":
			p.Resend(now)
		case "doubt":
			p.Doubt(now)
		case "orphan":
			p.Orphan(now)
		case "inherit":
			p.Inherit(words[2], now.Add(300*time.Second), now)
		case "timeout":
			p.Fail(now)
		case "tick":
		default:
			r, want := parseAnswer(t, words[1:])
			if got := p.Response(r, now); got != want {
				t.Errorf("%s: verdict %d, want %d", line, got, want)
			}
		}
		send()
	}
	return out
}

func parseAnswer(t *testing.T, words []string) (response, verdict) {
	t.Helper()
	r := response{expires: -1}
	if _, err := fmt.Sscan(words[0], &r.code); err != nil {
		t.Fatal(err)
	}
	want := fine
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		var n int
		_, _ = fmt.Sscan(value, &n)
		d := time.Duration(n) * time.Second
		switch name {
		case "tag":
			r.tag = value
		case "expires":
			r.expires = d
		case "min":
			r.minExpires = d
		case "after":
			r.retryAfter = d
		case "nonce":
			r.challenge = &digest.Challenge{Challenge: icholy.Challenge{Nonce: value, Stale: r.challenge != nil}}
		case "stale":
			r.challenge = &digest.Challenge{Challenge: icholy.Challenge{Nonce: value, Stale: true}}
		case "is":
			want = map[string]verdict{"refused": refused, "malformed": malformed, "failing": failing, "denied": denied}[value]
		default:
			t.Fatalf("what is %q?", w)
		}
	}
	return r, want
}

func TestPublication(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"initial, refresh, modify, remove": {`
			0   want A
			0   200 tag=1 expires=100
			1   want A
			73  200 tag=2 expires=100
			80  want B
			80  200 tag=3 expires=100
			90  stop
			90  200 tag=3 expires=0
			500 tick`, `
			0 initial body=A expires=600
			72 refresh if=1 expires=600
			80 modify if=2 body=B expires=600
			90 remove if=3 expires=0`},
		"the life counts from the sending": {`
			0  want A
			4  200 tag=1 expires=100
			80 tick`, `
			0 initial body=A expires=600
			72 refresh if=1 expires=600`},
		"newer states are merged while a request is out": {`
			0   want A
			0.1 want B
			0.2 want C
			2   200 tag=1 expires=600
			2   200 tag=2 expires=600
			9   tick`, `
			0 initial body=A expires=600
			2 modify if=1 body=C expires=600`},
		"a state that came back is not sent": {`
			0   want A
			0.1 want B
			0.2 want A
			2   200 tag=1 expires=600
			9   tick`, `
			0 initial body=A expires=600`},
		"sent again, though the server holds it": {`
			0   want A
			0   200 tag=1 expires=600
			5   resend
			5.5 resend
			5.6 200 tag=2 expires=600
			7   200 tag=3 expires=600
			9   tick`, `
			0 initial body=A expires=600
			5 modify if=1 body=A expires=600
			6 modify if=2 body=A expires=600`},
		"changes keep a second apart": {`
			0   want A
			0   200 tag=1
			0.5 want B
			0.6 want C
			1   200 tag=2
			9   tick`, `
			0 initial body=A expires=600
			1 modify if=1 body=C expires=600`},
		"412: initial at once, one time; then a pause": {`
			0  want A
			0  200 tag=1
			5  want B
			5  412
			5  412
			8  200 tag=2 expires=600
			20 tick`, `
			0 initial body=A expires=600
			5 modify if=1 body=B expires=600
			5 initial body=B expires=600
			7 initial body=B expires=600`},
		"412 again within a minute: a pause": {`
			0  want A
			0  200 tag=1
			5  want B
			5  412
			5  200 tag=2
			20 want C
			20 412
			21 tick
			23 200 tag=3
			30 tick`, `
			0 initial body=A expires=600
			5 modify if=1 body=B expires=600
			5 initial body=B expires=600
			20 modify if=2 body=C expires=600
			22 initial body=C expires=600`},
		"412 to a refresh": {`
			0  want A
			0  200 tag=1 expires=100
			73 412
			80 tick`, `
			0 initial body=A expires=600
			72 refresh if=1 expires=600
			73 initial body=A expires=600`},
		"500 to a request with a tag is as 412": {`
			0 want A
			0 200 tag=1
			5 want B
			5 500
			6 tick`, `
			0 initial body=A expires=600
			5 modify if=1 body=B expires=600
			5 initial body=B expires=600`},
		"423 is obeyed, also by a refresh": {`
			0 want A
			0 423 min=900
			0 200 tag=1 expires=900
			649 423 min=1800
			700 tick`, `
			0 initial body=A expires=600
			0 initial body=A expires=900
			648 refresh if=1 expires=900
			649 refresh if=1 expires=1800`},
		"423 that asks for no more than it got": {`
			0 want A
			0 423 min=600 is=malformed
			299 tick`, `
			0 initial body=A expires=600`},
		"423 without Min-Expires": {`
			0 want A
			0 423 is=malformed
			299 tick`, `
			0 initial body=A expires=600`},
		"401 is answered": {`
			0 want A
			0 401 nonce=n
			0 200 tag=1
			9 tick`, `
			0 initial body=A expires=600
			0 initial body=A expires=600 answer=n`},
		"401 again: the nonce was stale": {`
			0 want A
			0 401 nonce=n
			0 401 stale=m
			0 200 tag=1
			9 tick`, `
			0 initial body=A expires=600
			0 initial body=A expires=600 answer=n
			0 initial body=A expires=600 answer=m`},
		"401 again: the password is wrong": {`
			0 want A
			0 401 nonce=n
			0 401 nonce=m is=denied
			299 tick`, `
			0 initial body=A expires=600
			0 initial body=A expires=600 answer=n`},
		"stale for ever": {`
			0 want A
			0 401 stale=n
			0 401 stale=m
			0 401 stale=o is=denied
			299 tick`, `
			0 initial body=A expires=600
			0 initial body=A expires=600 answer=n
			0 initial body=A expires=600 answer=m`},
		"407 with nothing that can be answered": {`
			0 want A
			0 407 is=denied
			299 tick`, `
			0 initial body=A expires=600`},
		"refused: again after five minutes, with the newest state": {`
			0 want A
			0 489 is=refused
			9 want B
			301 200 tag=1
			310 tick`, `
			0 initial body=A expires=600
			300 initial body=B expires=600`},
		"503 with Retry-After": {`
			0 want A
			0 503 after=7
			9 tick`, `
			0 initial body=A expires=600
			7 initial body=A expires=600`},
		"503 with a long Retry-After": {`
			0 want A
			0 503 after=300 is=failing
			299 tick`, `
			0 initial body=A expires=600`},
		"503 without": {`
			0 want A
			0 503 is=failing
			40 tick`, `
			0 initial body=A expires=600
			30 initial body=A expires=600`},
		"no answer: longer pauses, and the tag while it lives": {`
			0 want A
			0 200 tag=1 expires=20
			2 want B
			7 timeout
			14 timeout
			30 timeout
			99 tick`, `
			0 initial body=A expires=600
			2 modify if=1 body=B expires=600
			9 modify if=1 body=B expires=600
			18 modify if=1 body=B expires=600
			38 initial body=B expires=600`},
		"after silence the state is sent again, even if it is the old one": {`
			0 want A
			0 200 tag=1
			2 want B
			7 timeout
			8 want A
			10 tick`, `
			0 initial body=A expires=600
			2 modify if=1 body=B expires=600
			9 modify if=1 body=A expires=600`},
		"a tag dies while nobody answers": {`
			0 want A
			0 200 tag=1 expires=10
			12 timeout
			20 tick`, `
			0 initial body=A expires=600
			7 refresh if=1 expires=600
			14 initial body=A expires=600`},
		"200 without a tag": {`
			0 want A
			0 200 is=malformed
			3 tick`, `
			0 initial body=A expires=600
			2 initial body=A expires=600`},
		"200 that grants nothing": {`
			0 want A
			0 200 tag=1 expires=0 is=malformed
			3 tick`, `
			0 initial body=A expires=600
			2 initial body=A expires=600`},
		"200 that grants more than was asked": {`
			0 want A
			0 200 tag=1 expires=99999
			500 tick`, `
			0 initial body=A expires=600
			432 refresh if=1 expires=600`},
		"stop while a request is out": {`
			0 want A
			0.5 stop
			1 200 tag=1
			1 200
			9 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0`},
		"stop, then 412: it is gone anyway": {`
			0 want A
			0 200 tag=1
			1 stop
			1 412
			9 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0`},
		"stop, and no answer: again after a pause": {`
			0  want A
			0  200 tag=1
			1  stop
			3  timeout
			6  503 after=4
			10 200
			99 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0
			5 remove if=1 expires=0
			10 remove if=1 expires=0`},
		"stop, and never an answer: it is given up": {`
			0   want A
			0   200 tag=1
			1   stop
			3   timeout
			6   timeout
			11  timeout
			20  timeout
			500 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0
			5 remove if=1 expires=0
			10 remove if=1 expires=0
			19 remove if=1 expires=0`},
		"stop, and the server forgets before it can be asked again": {`
			0   want A
			0   200 tag=1 expires=60
			1   stop
			1   503 after=60
			500 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0`},
		"stop in a hurry: one time": {`
			0  want A
			0  200 tag=1
			1  leave
			3  timeout
			99 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0`},
		"stop in a hurry while a removal waits": {`
			0  want A
			0  200 tag=1
			1  stop
			2  500
			3  leave
			4  500
			99 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0
			3 remove if=1 expires=0`},
		"stop, a passing trouble, and wanted again": {`
			0  want A
			0  200 tag=1
			1  stop
			1.1  want A
			2  503 after=3
			5  200 tag=2
			99 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0
			5 modify if=1 body=A expires=600`},
		"stop, no answer, and wanted again": {`
			0 want A
			0 200 tag=1
			1 stop
			3 timeout
			4 want A
			9 412
			9 200 tag=2
			99 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0
			5 modify if=1 body=A expires=600
			9 initial body=A expires=600`},
		"stop is authorized too": {`
			0 want A
			0 200 tag=1
			1 stop
			1 401 nonce=n
			1 200
			9 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0
			1 remove if=1 expires=0 answer=n`},
		"wanted again while it is removed": {`
			0 want A
			0 200 tag=1
			1 stop
			1.2 want B
			2 200
			9 tick`, `
			0 initial body=A expires=600
			1 remove if=1 expires=0
			2 initial body=B expires=600`},
		"stop before anything was sent": {`
			0 stop
			9 tick`, ``},
		"after a restart: modify with the stored tag": {`
			0 inherit 7
			1 want A
			1 200 tag=8
			9 tick`, `
			1 modify if=7 body=A expires=600`},
		"after a restart, and the server forgot": {`
			0 inherit 7
			1 want A
			1 412
			9 tick`, `
			1 modify if=7 body=A expires=600
			1 initial body=A expires=600`},
		"after a restart nobody wants it": {`
			0 inherit 7
			61 200
			70 tick`, `
			60 remove if=7 expires=0`},
		"after a lost server: what the server has is not sent again": {`
			0 want A
			0 200 tag=1
			9 orphan
			10 want A
			100 tick`, `
			0 initial body=A expires=600`},
		"doubt: a refresh, and all of it where the server forgot": {`
			0 want A
			0 200 tag=1
			9 doubt
			9 200 tag=2
			20 doubt
			20 412
			20 200 tag=3
			100 tick`, `
			0 initial body=A expires=600
			9 refresh if=1 expires=600
			20 refresh if=2 expires=600
			20 initial body=A expires=600`},
		"doubt while nothing is published": {`
			0 doubt
			1 want A
			2 doubt
			3 503 after=4
			4 doubt
			8 tick`, `
			1 initial body=A expires=600
			7 initial body=A expires=600`},
		"answers that nobody asked for": {`
			0 200 tag=1
			1 timeout
			2 want A
			2 200 tag=2
			3 200 tag=9
			4 412
			4 want B`, `
			2 initial body=A expires=600
			4 modify if=2 body=B expires=600`},
	} {
		t.Run(name, func(t *testing.T) {
			terms := usualTerms(600 * time.Second)
			p := &publication{terms: &terms}
			var want []string
			for line := range strings.Lines(c.want) {
				if line = strings.TrimSpace(line); line != "" {
					want = append(want, line)
				}
			}
			if diff := cmp.Diff(want, trace(t, p, c.script)); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}

// An esc is an event state compositor (RFC 3903 section 6) for one resource, as
// simple as can be.
type esc struct {
	records map[string]held
	next    int
}

type held struct {
	body string
	dies time.Time
}

func (s *esc) take(r request, now time.Time) response {
	for tag, h := range s.records {
		if !now.Before(h.dies) {
			delete(s.records, tag)
		}
	}
	old, ok := s.records[r.tag]
	if r.tag != "" && !ok {
		return response{code: 412, expires: -1}
	}
	delete(s.records, r.tag)
	if r.expires == 0 {
		return response{code: 200, tag: r.tag}
	}
	if r.body != nil {
		old.body = string(r.body)
	}
	s.next++
	tag := fmt.Sprint(s.next)
	s.records[tag] = held{old.body, now.Add(r.expires)}
	return response{code: 200, tag: tag, expires: r.expires}
}

// Whatever the server and the network do: at most one request is out, each is one
// of table 1 of RFC 3903, and after quiet the server holds the newest state, once.
func TestPublicationLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms := usualTerms(600 * time.Second)
		p := &publication{entity: "sip:a@b", terms: &terms, spread: rapid.Float64Range(0, 0.999).Draw(t, "spread")}
		server := &esc{records: map[string]held{}}
		now := epoch
		var out *request
		newest := ""
		send := func() {
			r, ok := p.Send(now)
			if !ok {
				return
			}
			if out != nil {
				t.Fatal("two requests are out")
			}
			if (r.op == opInitial) != (r.tag == "") || (r.op == opInitial || r.op == opModify) != (r.body != nil) || (r.op == opRemove) != (r.expires == 0) {
				t.Fatalf("not in table 1: %+v", r)
			}
			out = &r
		}
		answer := func(how string) {
			if out == nil {
				return
			}
			r := *out
			out = nil
			switch how {
			case "right":
				p.Response(server.take(r, now), now)
			case "lost answer":
				server.take(r, now)
				p.Fail(now)
			case "lost request":
				p.Fail(now)
			case "refused":
				p.Response(response{code: rapid.SampledFrom([]int{199, 302, 400, 401, 403, 404, 407, 408, 413, 415, 423, 489, 501, 503, 600, 999}).Draw(t, "code"), expires: -1}, now)
			}
		}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"want", "want", "answer", "answer", "wait", "restart", "resend", "doubt", "stop"}).Draw(t, "step") {
			case "want":
				newest = rapid.StringMatching("[A-D]").Draw(t, "doc")
				p.Want([]byte(newest), now)
			case "answer":
				answer(rapid.SampledFrom([]string{"right", "right", "lost answer", "lost request", "refused"}).Draw(t, "how"))
			case "wait":
				now = now.Add(time.Duration(rapid.IntRange(0, 700).Draw(t, "seconds")) * time.Second)
			case "restart":
				clear(server.records)
			case "resend":
				p.Resend(now)
			case "doubt":
				p.Doubt(now)
			case "stop":
				p.Stop(now, removalTries)
				newest = ""
			}
			send()
		}
		// Quiet: the server works, and the time is long enough for every pause and
		// for the records that a lost answer left behind.
		end := now.Add(2 * time.Hour)
		for {
			answer("right")
			send()
			if out != nil {
				continue
			}
			if p.Due().IsZero() || p.Due().After(end) {
				break
			}
			now = p.Due()
			send()
		}
		now = end
		var bodies []string
		for _, h := range server.records {
			if now.Before(h.dies) {
				bodies = append(bodies, h.body)
			}
		}
		switch {
		case newest == "" && len(bodies) != 0 || newest == "" && p.stopping && !p.Done():
			t.Fatalf("stopped, and the server holds %q", bodies)
		case newest != "" && (len(bodies) != 1 || bodies[0] != newest || !p.Settled()):
			t.Fatalf("the server holds %q, the newest is %q", bodies, newest)
		}
	})
}
