package lps

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// A composer is a compositor in virtual time, and the hub as it tells it.
type composer struct {
	t fataler
	*Publications
	now time.Time
	hub map[string]string // "source subject" and the note of what is stated

	over []string // the sources of what expired
}

func newComposer(t fataler) *composer {
	c := &composer{t: t, now: epoch(), hub: map[string]string{}}
	c.Publications = NewPublications("lps", Life{time.Minute, 10 * time.Minute, time.Hour}, 20, 3, readNote)
	return c
}

// readNote reads a body that is a word; no document holds a bang.
func readNote(body []byte, at time.Time) ([]presence.Span, error) {
	if strings.Contains(string(body), "!") {
		return nil, errors.New("no document")
	}
	return []presence.Span{{Fact: presence.SessionActive, From: at, Note: string(body)}}, nil
}

func put(change ...func(*Publish)) *Publish {
	r := &Publish{
		Entity: "alice@example.test", Subject: presence.Subject{Scheme: "sip", Value: "alice@example.test"}, Event: "presence",
		Expires: unsaid, Type: "application/pidf+xml", Body: []byte("here"),
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func match(tags ...string) func(*Publish) { return func(r *Publish) { r.Match = tags } }
func lasts(s int) func(*Publish)          { return func(r *Publish) { r.Expires = s } }
func body(text string) func(*Publish)     { return func(r *Publish) { r.Body = []byte(text) } }

func (c *composer) publish(code int, change ...func(*Publish)) Published {
	c.t.Helper()
	p := c.Publish(put(change...), c.now)
	if p.Code != code {
		c.t.Fatalf("PUBLISH got %d, want %d", p.Code, code)
	}
	if p.Code == 200 {
		c.take(p.Report)
		c.Commit(&p)
	}
	return p
}

func (c *composer) take(r *presence.Report) {
	c.t.Helper()
	switch {
	case r == nil:
	case r.Check() != nil:
		c.t.Fatalf("unfit report: %v", r.Check())
	case len(r.Spans) > 0 && r.Expires.Equal(c.now):
		delete(c.hub, r.Source+" "+r.Subject.Value)
		c.over = append(c.over, r.Source)
	case len(r.Spans) == 0:
		delete(c.hub, r.Source+" "+r.Subject.Value)
	default:
		c.hub[r.Source+" "+r.Subject.Value] = r.Spans[0].Note
	}
}

func (c *composer) wait(long time.Duration) {
	c.now = c.now.Add(long)
	for _, r := range c.Expire(c.now, nil) {
		c.take(r)
	}
}

func (c *composer) holds(want string) {
	c.t.Helper()
	if got := fmt.Sprint(c.hub); got != want {
		c.t.Fatalf("the hub holds %s, want %s", got, want)
	}
}

// TestPublish is the table of the compositor, row by row.
func TestPublish(t *testing.T) {
	for name, play := range map[string]func(c *composer){
		"initial, refresh, modify, remove": func(c *composer) {
			first := c.publish(200)
			if first.Expires != 600 || first.Report == nil || first.Report.Grace != 10*time.Minute {
				c.t.Fatalf("%+v", first)
			}
			c.holds("map[lps/1 alice@example.test:here]")
			c.wait(9 * time.Minute)
			second := c.publish(200, match(first.Tag), body(""))
			if second.Report != nil || second.Tag == first.Tag {
				c.t.Fatalf("a refresh tells something, or has the tag again: %+v", second)
			}
			c.publish(412, match(first.Tag), body(""))
			c.wait(9 * time.Minute)
			third := c.publish(200, match(second.Tag), body("there"))
			c.holds("map[lps/1 alice@example.test:there]")
			c.publish(200, match(third.Tag), lasts(0), body(""))
			c.publish(412, match(third.Tag), lasts(0), body(""))
			c.holds("map[]")
		},
		"several devices": func(c *composer) {
			first := c.publish(200, body("a"))
			c.publish(200, body("b"))
			c.publish(200, body("c"))
			c.publish(503)
			c.publish(200, match(first.Tag), lasts(0))
			c.publish(200, body("d"))
			c.holds("map[lps/1 alice@example.test:d lps/2 alice@example.test:b lps/3 alice@example.test:c]")
		},
		"expiry": func(c *composer) {
			p := c.publish(200, lasts(60))
			c.wait(59 * time.Second)
			c.holds("map[lps/1 alice@example.test:here]")
			c.wait(time.Second)
			c.holds("map[]")
			if len(c.over) != 1 || c.over[0] != "lps/1" {
				c.t.Fatalf("the hub was told that %v expired", c.over)
			}
			c.publish(412, match(p.Tag), body(""))
		},
		"at the moment of expiry, before it is noticed": func(c *composer) {
			p := c.publish(200, lasts(60))
			c.now = c.now.Add(time.Minute)
			c.publish(412, match(p.Tag), body(""))
		},
		"at once over":          func(c *composer) { c.publish(200, lasts(0)) },
		"no package":            func(c *composer) { c.publish(489, func(r *Publish) { r.Event = "" }) },
		"another package first": func(c *composer) { c.publish(489, func(r *Publish) { r.Event, r.Match = "dialog", []string{"x"} }) },
		"two tags":              func(c *composer) { c.publish(400, match("a", "b")) },
		"an empty tag":          func(c *composer) { c.publish(400, match("")) },
		"a list of tags":        func(c *composer) { c.publish(400, match("a, b")) },
		"unknown tag first":     func(c *composer) { c.publish(412, match("a"), lasts(1)) },
		"too short":             func(c *composer) { c.publish(423, lasts(59)) },
		"short before unread":   func(c *composer) { c.publish(423, lasts(1), func(r *Publish) { r.Type = "text/plain" }) },
		"unread":                func(c *composer) { c.publish(415, func(r *Publish) { r.Type = "text/plain" }) },
		"nothing":               func(c *composer) { c.publish(400, body("")) },
		"malformed":             func(c *composer) { c.publish(400, body("!")) },
		"malformed, later": func(c *composer) {
			p := c.publish(200)
			c.publish(400, match(p.Tag), body("!"))
			c.holds("map[lps/1 alice@example.test:here]")
			c.publish(200, match(p.Tag), body(""))
		},
		"the tag of another": func(c *composer) {
			p := c.publish(200)
			c.publish(412, match(p.Tag), func(r *Publish) { r.Entity = "mallory@example.test" })
		},
		"not longer than the longest": func(c *composer) {
			if p := c.publish(200, lasts(1<<31-1)); p.Expires != 3600 {
				c.t.Fatalf("granted %d s", p.Expires)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newComposer(t)
			play(c)
			c.wait(2 * time.Hour)
			c.holds("map[]")
			if n := c.Len() + len(c.byName) + c.agenda.Len(); n > 0 {
				t.Errorf("%d things are left", n)
			}
		})
	}
}

// TestMostPublications bounds them over all entities.
func TestMostPublications(t *testing.T) {
	c := newComposer(t)
	c.most = 2
	other := func(r *Publish) { r.Entity = "bob@example.test" }
	first := c.publish(200)
	c.publish(200, other)
	c.publish(503, other)
	c.publish(200, match(first.Tag), lasts(0))
	c.publish(200, other)
}

// TestTagsOfBefore gives after a restart none of the tags that were given before it
// (RFC 3903 section 6): who refreshes by one would take the place of another.
func TestTagsOfBefore(t *testing.T) {
	before := newComposer(t).publish(200)
	c := newComposer(t)
	if after := c.publish(200); after.Tag == before.Tag {
		t.Errorf("the tag %s again", after.Tag)
	}
	c.publish(412, match(before.Tag), body(""))
}

// TestPublicationsApart is the law of the compositor: the hub holds what the
// publications of each entity are, as if each were alone; no tag is given twice,
// and what expires leaves nothing.
func TestPublicationsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newComposer(t)
		type kept struct {
			entity, tag, text string
			until             time.Time
		}
		var model []*kept
		seen := map[string]bool{}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			entity := rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "entity") + "@example.test"
			seconds := rapid.SampledFrom([]int{0, 30, 60, 300}).Draw(t, "expires")
			text := rapid.SampledFrom([]string{"", "!", fmt.Sprint("v", i)}).Draw(t, "body")
			r := put(lasts(seconds), body(text), func(r *Publish) { r.Entity, r.Subject.Value = entity, entity })
			var old *kept
			if len(model) > 0 && rapid.Bool().Draw(t, "known") {
				old = rapid.SampledFrom(model).Draw(t, "which")
				r.Match = []string{old.tag}
			}
			p := c.Publish(r, c.now)
			if p.Code == 200 {
				if seen[p.Tag] || old != nil && (old.entity != entity || !old.until.After(c.now)) {
					t.Fatalf("a tag that is not its own got 200, or was given twice")
				}
				seen[p.Tag] = true
				c.take(p.Report)
				c.Commit(&p)
				if old == nil {
					old = &kept{entity: entity}
					model = append(model, old)
				}
				old.tag, old.until = p.Tag, c.now.Add(time.Duration(p.Expires)*time.Second)
				if text != "" {
					old.text = text
				}
			}
			c.wait(time.Duration(rapid.IntRange(0, 100).Draw(t, "wait")) * time.Second)
			want, got := map[string]int{}, map[string]int{}
			for _, k := range model {
				if k.until.After(c.now) {
					want[k.entity+k.text]++
				}
			}
			for where, text := range c.hub {
				_, subject, _ := strings.Cut(where, " ")
				got[subject+text]++
			}
			if fmt.Sprint(want) != fmt.Sprint(got) {
				t.Fatalf("the hub holds %v, want %v", got, want)
			}
		}
	})
}

// FuzzPublications has a request changed byte by byte: the machine holds no more
// than its limits, and what is not granted changes nothing.
func FuzzPublications(f *testing.F) {
	f.Add("alice@example.test", "presence", "", 600, "application/pidf+xml", []byte("here"))
	f.Add("alice@example.test", "presence", "0.1", 0, "", []byte{})
	f.Fuzz(func(t *testing.T, entity, event, tag string, seconds int, mediaType string, text []byte) {
		c := newComposer(t)
		first := c.publish(200)
		before := c.Len()
		r := &Publish{Entity: entity, Subject: presence.Subject{Scheme: "sip", Value: "x"}, Event: event, Expires: max(seconds, unsaid), Type: mediaType, Body: text}
		if tag != "" {
			r.Match = []string{strings.ReplaceAll(tag, "0.", c.boot+".")}
		}
		p := c.Publish(r, c.now)
		if c.Len() != before || c.find("alice@example.test", first.Tag) == nil {
			t.Fatal("a request counts before it is committed")
		}
		if p.Code == 200 {
			c.Commit(&p)
		}
		c.wait(2 * time.Hour)
		if c.Len() != 0 || c.agenda.Len() != 0 {
			t.Fatal("something is left")
		}
	})
}
