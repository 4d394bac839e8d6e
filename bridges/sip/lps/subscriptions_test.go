package lps

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/aggregator/presence"
)

// TestChecks asks for everything that is refused.
func TestChecks(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		r    *Subscribe
	}{
		"unknown package":         {489, ask(event("message-summary"))},
		"no package":              {489, ask(event(""))},
		"nobody known":            {404, ask(to("zoe"))},
		"too short":               {423, ask(expires(59))},
		"least":                   {200, ask(expires(60))},
		"more than most":          {200, ask(expires(1 << 30))},
		"unreadable":              {406, ask(accept("application/xpidf+xml"))},
		"anything":                {200, ask(accept("*/*"))},
		"application":             {200, ask(accept("application/*"))},
		"dialog read as presence": {406, ask(event("dialog"), accept("application/pidf+xml"))},
		"watchers of others":      {403, ask(event("presence.winfo"))},
		"watchers read as such":   {406, ask(event("presence.winfo"), to("bob"), accept("application/pidf+xml"))},
		"list, unreadable":        {406, ask(to("team"), eventlist, accept("text/plain"))},
		"list, as it is sent":     {200, ask(to("team"), eventlist, accept("multipart/related"))},
		"own watchers":            {200, ask(event("presence.winfo"), to("bob"))},
		"watchers, administrator": {200, ask(event("presence.winfo"), func(r *Subscribe) { r.Admin = true })},
		"list unsupported":        {421, ask(to("team"))},
		"list":                    {200, ask(to("team"), eventlist)},
		"list of lamps":           {404, ask(to("team"), eventlist, event("dialog"))},
		"list in the body":        {200, ask(eventlist, func(r *Subscribe) { r.List = []string{"alice@example.test", "zoe@example.test"} })},
		"list of lamps, asked":    {489, ask(eventlist, event("dialog"), func(r *Subscribe) { r.List = []string{"alice@example.test"} })},
		"list too long":           {413, ask(eventlist, func(r *Subscribe) { r.List = make([]string, 11) })},
		"unknown dialog":          {481, ask(func(r *Subscribe) { r.New, r.Dialog = false, "nobody's" })},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.lists["team@example.test"] = []string{"alice@example.test", "bob@example.test"}
			a, out := d.Subscribe(c.r, d.now, nil)
			if a.Code != c.code {
				t.Errorf("got %d, want %d", a.Code, c.code)
			}
			if a.Code != 200 && (len(out) > 0 || len(d.dialogs)+len(d.targets)+len(d.watchers)+len(d.admitted)+d.entries > 0) {
				t.Error("what is refused leaves something")
			}
		})
	}
}

func TestLimits(t *testing.T) {
	d := newDesk(t)
	d.limits.PerPeer = 2
	d.subscribe(200)
	d.subscribe(200)
	d.subscribe(503)
	d.limits.Most = 2
	d.subscribe(503, from("carol"))

	d = newDesk(t)
	team := func(r *Subscribe) { r.Eventlist, r.List = true, []string{"alice@example.test", "carol@example.test"} }
	d.limits.PerPeer = 2
	d.subscribe(503, team) // counts three: itself, and its entries
	d.limits.PerPeer, d.limits.Most = 100, 5
	d.subscribe(200, team)
	d.subscribe(503, team, from("carol"))
	d.subscribe(200)
}

// TestCourse is the table of the notifier, row by row.
func TestCourse(t *testing.T) {
	busy, away := presence.Busy, presence.Away
	for name, play := range map[string]func(d *desk){
		"a subscription, a refresh, and its end": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(200, "1 active;expires=3600: alice@example.test available")
			d.wait(10 * time.Minute)
			d.subscribe(200, d.in(tag), expires(600))
			d.expect(200, "2 active;expires=600: alice@example.test available")
			d.subscribe(200, d.in(tag), expires(0))
			d.expect(200, "3 terminated;reason=timeout: alice@example.test available")
			d.subscribe(481, d.in(tag))
		},
		"a fetch": func(d *desk) {
			d.subscribe(200, expires(0))
			if len(d.admitted) > 0 {
				d.t.Fatalf("a look was told: %v", d.admitted)
			}
			d.expect(200, "1 terminated;reason=timeout: alice@example.test available")
		},
		"expiry": func(d *desk) {
			tag := d.subscribe(200, expires(60))
			d.expect(200, "1 active;expires=60: alice@example.test available")
			d.wait(61 * time.Second)
			d.expect(200, "2 terminated;reason=timeout: alice@example.test available")
			d.subscribe(481, d.in(tag))
		},
		"a change while a NOTIFY is out, and the pace": func(d *desk) {
			d.subscribe(200)
			first := d.sent[0]
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.tell("alice", busy)
			d.tell("alice", away)
			d.wait(time.Second)
			d.expect(0)
			d.sent = d.Answered(first.Dialog, 200, 0, d.now, nil)
			d.expect(200, "2 active;expires=3599: alice@example.test away")
			d.tell("alice", busy)
			d.expect(0)
			d.wait(time.Second)
			d.expect(200, "3 active;expires=3598: alice@example.test busy")
			d.tell("alice", busy)
			d.wait(time.Minute)
			d.expect(0)
		},
		"dropped by 481": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(481, "1 active;expires=3600: alice@example.test available")
			d.subscribe(481, d.in(tag))
		},
		"dropped by silence": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(408, "1 active;expires=3600: alice@example.test available")
			d.subscribe(481, d.in(tag))
		},
		"told to wait": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.sent = d.Answered(tag, 503, 10*time.Second, d.now, nil)
			d.tell("alice", busy)
			d.wait(9 * time.Second)
			d.expect(0)
			d.wait(time.Second)
			d.expect(200, "2 active;expires=3590: alice@example.test busy")
		},
		"told to wait, and nothing changes": func(d *desk) {
			d.subscribe(200)
			d.expect(503, "1 active;expires=3600: alice@example.test available")
			d.wait(30 * time.Second)
			d.expect(200, "2 active;expires=3570: alice@example.test available")
		},
		"no connection until the next SUBSCRIBE": func(d *desk) {
			tag := d.subscribe(200)
			first := d.sent[0]
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.sent = d.Answered(first.Dialog, 0, 0, d.now, nil)
			d.tell("alice", busy)
			d.wait(time.Minute)
			d.expect(0)
			d.subscribe(200, d.in(tag))
			d.expect(200, "2 active;expires=3600: alice@example.test busy")
		},
		"told to wait for an hour": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.sent = d.Answered(tag, 503, time.Hour, d.now, nil)
			d.wait(longestWait - time.Second)
			d.expect(0)
			d.wait(time.Second)
			d.expect(200, "2 active;expires=3300: alice@example.test available")
		},
		"told to wait, and the person leaves": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.sent = d.Answered(tag, 503, 10*time.Second, d.now, nil)
			d.tell("alice", presence.Unknown, func(s *presence.State) { s.Why.Rule = presence.RuleRemoved })
			d.wait(9 * time.Second)
			d.expect(0)
			d.wait(time.Second)
			d.expect(200, "2 terminated;reason=noresource: alice@example.test unknown")
		},
		"asked for a password": func(d *desk) {
			d.subscribe(200)
			d.expect(401, "1 active;expires=3600: alice@example.test available")
			d.wait(retryAfter)
			d.expect(200, "2 active;expires=3570: alice@example.test available")
		},
		"a condition after what did not arrive": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(200, "1 active;expires=3600: alice@example.test available")
			d.wait(time.Minute)
			d.tell("alice", busy)
			d.expect(0, "2 active;expires=3540: alice@example.test busy")
			d.sent = d.Answered(tag, 0, 0, d.now, nil)
			d.subscribe(200, d.in(tag), func(r *Subscribe) { r.Match = "*" })
			d.expect(200, "3 active;expires=3600: alice@example.test busy")
		},
		"given back, and the connection goes with a NOTIFY out": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.subscribe(200, d.in(tag), expires(0))
			d.sent = d.Answered(tag, 0, 0, d.now, nil)
			d.expect(200)
			if d.Len()["presence"] != 0 {
				d.t.Fatalf("%v", d.Len())
			}
		},
		"an answer that says nothing": func(d *desk) {
			d.subscribe(200)
			d.expect(500, "1 active;expires=3600: alice@example.test available")
			d.wait(time.Minute)
			d.expect(0)
			d.tell("alice", busy)
			d.expect(200, "2 active;expires=3540: alice@example.test busy")
		},
		"the person leaves": func(d *desk) {
			d.subscribe(200)
			d.subscribe(200, from("carol"), event("dialog"))
			d.expect(200, "1 active;expires=3600: alice@example.test available", "1 active;expires=3600: alice@example.test v0 unknown")
			d.tell("alice", presence.Unknown, func(s *presence.State) { s.Why.Rule = presence.RuleRemoved })
			delete(d.states, "alice")
			d.expect(200, "2 terminated;reason=noresource: alice@example.test v1 unknown", "2 terminated;reason=noresource: alice@example.test unknown")
			d.subscribe(404)
		},
		"pending, then granted": func(d *desk) {
			d.access["bob@example.test alice"] = level(presence.LevelConfirm)
			d.subscribe(200)
			d.expect(200, "1 pending;expires=3600: alice@example.test offline")
			d.wait(time.Minute)
			d.tell("alice", busy)
			d.wait(time.Minute)
			d.expect(0)
			d.access["bob@example.test alice"] = level(presence.LevelFull)
			d.sent = d.Subscriptions.State(d.states["alice"], d.now, d.sent)
			d.expect(200, "2 active;expires=3480: alice@example.test busy")
		},
		"pending, then blocked": func(d *desk) {
			d.access["bob@example.test alice"] = level(presence.LevelConfirm)
			d.subscribe(200)
			d.expect(200, "1 pending;expires=3600: alice@example.test offline")
			d.wait(time.Minute)
			d.access["bob@example.test alice"] = level(presence.LevelBlock)
			d.sent = d.Subscriptions.State(d.states["alice"], d.now, d.sent)
			d.expect(200, "2 active;expires=3540: alice@example.test offline")
		},
		"blocked is frozen": func(d *desk) {
			d.subscribe(200)
			d.expect(200, "1 active;expires=3600: alice@example.test available")
			d.wait(time.Minute)
			d.access["bob@example.test alice"] = level(presence.LevelBlock)
			d.tell("alice", busy)
			d.expect(200, "2 active;expires=3540: alice@example.test offline")
			d.wait(time.Minute)
			d.tell("alice", away)
			d.wait(time.Minute)
			d.expect(0)
		},
		"status hears no activity": func(d *desk) {
			d.access["bob@example.test alice"] = level(presence.LevelStatus)
			d.subscribe(200)
			d.expect(200, "1 active;expires=3600: alice@example.test available")
			d.wait(time.Minute)
			d.tell("alice", busy, func(s *presence.State) { s.Activity = presence.ActivityPhone })
			d.expect(200, "2 active;expires=3540: alice@example.test busy")
			d.wait(time.Minute)
			d.tell("alice", busy, func(s *presence.State) { s.Activity = presence.ActivityMeeting })
			d.wait(time.Minute)
			d.expect(0)
		},
		"a lamp": func(d *desk) {
			d.subscribe(200, event("dialog"))
			d.expect(200, "1 active;expires=3600: alice@example.test v0 unknown")
			d.wait(time.Minute)
			d.tell("alice", busy)
			d.expect(0)
			d.tell("alice", busy, func(s *presence.State) { s.Channels[presence.Phone].State = presence.ChannelRinging })
			d.expect(200, "2 active;expires=3540: alice@example.test v1 ringing")
			d.tell("alice", busy, func(s *presence.State) { s.Channels[presence.Phone].State = presence.ChannelInUse })
			d.wait(250 * time.Millisecond)
			d.expect(200, "3 active;expires=3540: alice@example.test v2 in-use")
		},
		"who watches": func(d *desk) {
			d.access["bob@example.test alice"] = level(presence.LevelConfirm)
			d.subscribe(200, from("alice"), event("presence.winfo"))
			d.expect(200, "1 active;expires=3600: alice@example.test v0")
			tag := d.subscribe(200)
			d.expect(200, "1 pending;expires=3600: alice@example.test offline")
			d.wait(4 * time.Second)
			d.expect(0)
			d.wait(time.Second)
			d.expect(200, "2 active;expires=3595: alice@example.test v1 bob@example.test?")
			d.access["bob@example.test alice"] = level(presence.LevelFull)
			d.sent = d.Subscriptions.State(d.states["alice"], d.now, d.sent)
			d.wait(5 * time.Second)
			d.expect(200, "2 active;expires=3595: alice@example.test available", "3 active;expires=3590: alice@example.test v2 bob@example.test")
			d.subscribe(200, d.in(tag), expires(0))
			d.wait(5 * time.Second)
			d.expect(200, "3 terminated;reason=timeout: alice@example.test available", "4 active;expires=3585: alice@example.test v3")
		},
		"a list": func(d *desk) {
			d.lists["team@example.test"] = []string{"alice@example.test", "carol@example.test", "zoe@example.test", "alice@example.test"}
			d.access["bob@example.test carol"] = level(presence.LevelConfirm)
			tag := d.subscribe(200, to("team"), eventlist)
			d.expect(200, "1 active;expires=3600: team@example.test v0 full [alice@example.test available] [carol@example.test offline pending] [zoe@example.test unknown]")
			d.wait(time.Minute)
			d.access["bob@example.test carol"] = level(presence.LevelFull)
			d.tell("alice", busy)
			d.tell("carol", away)
			d.expect(0)
			d.wait(250 * time.Millisecond)
			d.expect(200, "2 active;expires=3540: team@example.test v1 [alice@example.test busy] [carol@example.test away]")
			d.wait(time.Minute)
			d.tell("carol", busy)
			d.wait(time.Second)
			d.expect(200, "3 active;expires=3480: team@example.test v2 [carol@example.test busy]")
			d.subscribe(200, d.in(tag), expires(0))
			d.expect(200, "4 terminated;reason=timeout: team@example.test v3 full [alice@example.test busy] [carol@example.test busy] [zoe@example.test unknown]")
		},
		"a group that changes": func(d *desk) {
			d.lists["team@example.test"] = []string{"alice@example.test"}
			tag := d.subscribe(200, to("team"), eventlist)
			d.expect(200, "1 active;expires=3600: team@example.test v0 full [alice@example.test available]")
			d.lists["team@example.test"] = []string{"carol@example.test"}
			d.subscribe(200, d.in(tag))
			d.expect(200, "2 active;expires=3600: team@example.test v1 full [carol@example.test available]")
			if fmt.Sprint(d.admitted) != "map[bob@example.test carol:1]" {
				d.t.Fatalf("admitted: %v", d.admitted)
			}
			d.wait(time.Minute)
			d.tell("alice", busy)
			d.wait(time.Minute)
			d.expect(0)
		},
		"a group that grows too large": func(d *desk) {
			d.lists["team@example.test"] = []string{"alice@example.test"}
			tag := d.subscribe(200, to("team"), eventlist)
			d.expect(200, "1 active;expires=3600: team@example.test v0 full [alice@example.test available]")
			d.lists["team@example.test"] = slices.Repeat([]string{"carol@example.test"}, d.limits.PerList+1)
			d.subscribe(200, d.in(tag))
			d.expect(200, "2 active;expires=3600: team@example.test v1 full [alice@example.test available]")
		},
		"who watches by a list": func(d *desk) {
			d.access["bob@example.test alice"] = level(presence.LevelConfirm)
			d.subscribe(200, from("alice"), event("presence.winfo"))
			d.expect(200, "1 active;expires=3600: alice@example.test v0")
			d.wait(time.Minute)
			tag := d.subscribe(200, eventlist, func(r *Subscribe) { r.List = []string{"alice@example.test"} })
			d.expect(200, "1 active;expires=3600: alice@example.test v0 full [alice@example.test offline pending]")
			d.wait(0)
			d.expect(200, "2 active;expires=3540: alice@example.test v1 bob@example.test?")
			d.wait(time.Minute)
			d.access["bob@example.test alice"] = level(presence.LevelFull)
			d.sent = d.Subscriptions.State(d.states["alice"], d.now, d.sent)
			d.wait(time.Second)
			d.expect(200, "3 active;expires=3480: alice@example.test v2 bob@example.test", "2 active;expires=3540: alice@example.test v1 [alice@example.test available]")
			d.wait(time.Minute)
			d.subscribe(200, d.in(tag), expires(0))
			d.wait(time.Second)
			d.expect(200, "3 terminated;reason=timeout: alice@example.test v2 full [alice@example.test available]", "4 active;expires=3419: alice@example.test v3")
		},
		"who does not watch": func(d *desk) {
			d.subscribe(200, from("alice"), event("presence.winfo"))
			d.expect(200, "1 active;expires=3600: alice@example.test v0")
			d.wait(time.Minute)
			d.subscribe(200, from("carol"), event("dialog")) // a lamp
			tag := d.subscribe(200)
			out := d.sent
			d.expect(0, "1 active;expires=3600: alice@example.test v0 unknown", "1 active;expires=3600: alice@example.test available")
			d.subscribe(200, d.in(tag), expires(0)) // with its first NOTIFY out
			d.wait(0)
			d.expect(200, "2 active;expires=3540: alice@example.test v1")
			for _, n := range out {
				d.sent = d.Answered(n.Dialog, 200, 0, d.now, d.sent)
			}
		},
		"one look is nobody who watches": func(d *desk) {
			d.subscribe(200, from("alice"), event("presence.winfo"))
			d.expect(200, "1 active;expires=3600: alice@example.test v0")
			d.wait(time.Minute)
			d.subscribe(200, expires(0))
			d.expect(200, "1 terminated;reason=timeout: alice@example.test available")
			d.wait(time.Minute)
			d.expect(0)
		},
		"watched twice": func(d *desk) {
			d.subscribe(200)
			tag := d.subscribe(200, func(r *Subscribe) { r.Call = "another" })
			d.expect(200, "1 active;expires=3600: alice@example.test available", "1 active;expires=3600: alice@example.test available")
			d.subscribe(200, d.in(tag), expires(0), func(r *Subscribe) { r.Call = "another" })
			d.expect(200, "2 terminated;reason=timeout: alice@example.test available")
			if d.admitted["bob@example.test alice"] == 0 {
				d.t.Fatalf("who watches still is nobody: %v", d.admitted)
			}
		},
		"a state that is older": func(d *desk) {
			old := d.states["alice"]
			d.states["alice"] = stateOf("alice", away, 2)
			d.subscribe(200)
			d.expect(200, "1 active;expires=3600: alice@example.test away")
			d.wait(time.Minute)
			d.sent = d.Subscriptions.State(old, d.now, d.sent) // was on its way
			d.expect(0)
		},
		"given back without a way": func(d *desk) {
			tag := d.subscribe(200)
			first := d.sent[0]
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.sent = d.Answered(first.Dialog, 0, 0, d.now, nil)
			d.subscribe(200, d.in(tag), expires(0))
			d.expect(200, "2 terminated;reason=timeout: alice@example.test available")
		},
		"in part": func(d *desk) {
			tag := d.subscribe(200, accept("application/pidf+xml", "application/pidf-diff+xml"))
			d.expect(200, "1 active;expires=3600: alice@example.test v1 full available")
			d.wait(time.Minute)
			d.tell("alice", busy)
			d.expect(200, "2 active;expires=3540: alice@example.test v2 available to busy")
			d.subscribe(200, d.in(tag))
			d.expect(200, "3 active;expires=3600: alice@example.test v3 full busy")
		},
		"a condition": func(d *desk) {
			tag := d.subscribe(200)
			match := func(r *Subscribe) { r.Match = EntityTag(d.dialogs[tag].told) }
			d.expect(200, "1 active;expires=3600: alice@example.test available")
			d.wait(time.Minute)
			d.subscribe(204, d.in(tag), match)
			d.expect(0)
			d.tell("alice", busy)
			d.expect(200, "2 active;expires=3600: alice@example.test busy")
			d.subscribe(200, d.in(tag), func(r *Subscribe) { r.Match = "1" })
			d.expect(200, "3 active;expires=3600: alice@example.test busy")
			d.wait(time.Minute)
			d.subscribe(204, d.in(tag), func(r *Subscribe) { r.Match = "*" })
			d.expect(0)
			d.tell("alice", away)
			first := d.sent[0]
			d.expect(0, "4 active;expires=3600: alice@example.test away")
			d.tell("alice", busy) // has yet to be told
			d.subscribe(200, d.in(tag), match)
			d.sent = d.Answered(first.Dialog, 200, 0, d.now, nil)
			d.expect(200, "5 active;expires=3600: alice@example.test busy")
		},
		"rates that were asked for": func(d *desk) {
			d.subscribe(200, func(r *Subscribe) { r.Least, r.Often = 10*time.Second, 30*time.Second })
			d.expect(200, "1 active;expires=3600: alice@example.test available")
			d.tell("alice", busy)
			d.wait(9 * time.Second)
			d.expect(0)
			d.wait(time.Second)
			d.expect(200, "2 active;expires=3590: alice@example.test busy")
			d.wait(30 * time.Second)
			d.expect(200, "3 active;expires=3560: alice@example.test busy")
		},
		"an older request": func(d *desk) {
			tag := d.subscribe(200)
			d.subscribe(500, func(r *Subscribe) { r.New, r.Dialog, r.CSeq = false, tag, 1 })
			d.subscribe(481, d.in(tag), func(r *Subscribe) { r.Tag = "another" })
			d.subscribe(403, d.in(tag), func(r *Subscribe) { r.Watcher.Value = "mallory@example.test" })
			d.subscribe(423, d.in(tag), expires(1))
			d.subscribe(406, d.in(tag), accept("application/xpidf+xml"))
			d.subscribe(481, d.in(tag), event("dialog"))
			d.expect(200, "1 active;expires=3600: alice@example.test available")
		},
		"given back while a NOTIFY is out": func(d *desk) {
			tag := d.subscribe(200)
			first := d.sent[0]
			d.expect(0, "1 active;expires=3600: alice@example.test available")
			d.subscribe(200, d.in(tag), expires(0))
			d.subscribe(481, d.in(tag)) // is no way back
			d.sent = d.Answered(first.Dialog, 200, 0, d.now, nil)
			d.expect(200, "2 terminated;reason=timeout: alice@example.test available")
		},
		"refreshed too late, before the clock noticed": func(d *desk) {
			tag := d.subscribe(200, expires(60))
			d.expect(200, "1 active;expires=60: alice@example.test available")
			d.now = d.now.Add(61 * time.Second)
			d.subscribe(481, d.in(tag))
			d.wait(0)
			d.expect(200, "2 terminated;reason=timeout: alice@example.test available")
		},
		"an administrator no more": func(d *desk) {
			tag := d.subscribe(200, event("presence.winfo"), func(r *Subscribe) { r.Admin = true })
			d.expect(200, "1 active;expires=3600: alice@example.test v0")
			d.subscribe(403, d.in(tag), event("presence.winfo"))
		},
		"a refresh is kept": func(d *desk) {
			tag := d.subscribe(200)
			d.expect(200, "1 active;expires=3600: alice@example.test available")
			d.wait(30 * time.Minute)
			d.subscribe(200, d.in(tag))
			d.expect(200, "2 active;expires=3600: alice@example.test available")
			if r := d.kept[tag]; !r.Expires.Equal(d.now.Add(time.Hour)) || r.Theirs != 1+d.next {
				d.t.Fatalf("kept: %+v", r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			play(d)
			d.wait(3 * time.Hour)
			for len(d.sent) > 0 {
				n := d.sent[0]
				d.sent = d.Answered(n.Dialog, 200, 0, d.now, d.sent[1:])
				d.wait(3 * time.Hour)
			}
			d.empty()
		})
	}
}

// TestAnswers has a NOTIFY be answered by each code: those of RFC 6665 section 4.2.2
// end the subscription, all others leave it.
func TestAnswers(t *testing.T) {
	ends := map[int]bool{404: true, 405: true, 408: true, 410: true, 416: true, 489: true, 501: true, 604: true}
	for code := 480; code <= 485; code++ {
		ends[code] = true
	}
	for code := 200; code < 700; code++ {
		d := newDesk(t)
		d.subscribe(200)
		d.expect(code, "1 active;expires=3600: alice@example.test available")
		if over := len(d.dialogs) == 0; over != ends[code] {
			t.Errorf("%d: over is %v", code, over)
		}
	}
}

// empty wants that nothing is left.
func (d *desk) empty() {
	d.t.Helper()
	if n := len(d.dialogs) + len(d.targets) + len(d.persons) + len(d.watchers) + len(d.admitted) + len(d.kept) + d.entries; n > 0 {
		d.t.Fatalf("left: dialogs %d, targets %d, persons %d, watchers %d, admitted %v, kept %d, entries %d",
			len(d.dialogs), len(d.targets), len(d.persons), len(d.watchers), d.admitted, len(d.kept), d.entries)
	}
}

// TestEncodedOnce has a thousand watchers at two levels, and counts documents.
func TestEncodedOnce(t *testing.T) {
	d := newDesk(t)
	d.limits.Most = 10000
	for i := range 1000 {
		name := fmt.Sprint("w", i)
		if i%2 == 0 {
			d.access[name+"@example.test alice"] = level(presence.LevelStatus)
		}
		d.subscribe(200, from(name))
	}
	for _, n := range d.sent {
		d.Answered(n.Dialog, 200, 0, d.now, nil)
	}
	d.now, d.sent, d.presences = d.now.Add(time.Minute), nil, 0
	d.tell("alice", presence.Busy)
	if len(d.sent) != 1000 || d.presences != 2 {
		t.Errorf("%d NOTIFYs of %d documents", len(d.sent), d.presences)
	}
}

// TestStorm has many subscribe in one second: their expiries are spread.
func TestStorm(t *testing.T) {
	d := newDesk(t)
	d.limits.StormPer = 10
	seen := map[int]bool{}
	for i := range 100 {
		a, _ := d.Subscribe(ask(from(fmt.Sprint("w", i))), d.now, nil)
		if i < 10 && a.Expires != 3600 || a.Expires < 2880 || a.Expires > 3600 {
			t.Fatalf("the %dth got %d s", i, a.Expires)
		}
		seen[a.Expires] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 subscriptions end in %d different seconds", len(seen))
	}
	clear(seen)
	d.now = d.now.Add(time.Minute)
	for tag, dialog := range d.dialogs { // they come back together
		r := ask(from(strings.TrimSuffix(dialog.by.Value, "@example.test")), d.in(tag))
		a, _ := d.Subscribe(r, d.now, nil)
		if a.Code != 200 || a.Expires < 2880 || a.Expires > 3600 {
			t.Fatalf("a refresh got %+v", a)
		}
		seen[a.Expires] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 refreshed subscriptions end in %d different seconds", len(seen))
	}
	if a, _ := d.Subscribe(ask(from("late"), expires(60)), d.now, nil); a.Expires != 60 {
		t.Errorf("the shortest that is granted was shortened to %d", a.Expires)
	}
}

// TestRestart keeps subscriptions: the CSeq goes on above what was used, and the
// state comes; what expired meanwhile is gone.
func TestRestart(t *testing.T) {
	d := newDesk(t)
	d.lists["team@example.test"] = []string{"alice@example.test", "carol@example.test"}
	d.subscribe(200)
	d.subscribe(200, from("carol"), expires(60))
	d.subscribe(200, to("team"), eventlist)
	for range 2500 { // more than what is kept ahead
		d.wait(time.Second)
		for _, n := range d.sent {
			d.Answered(n.Dialog, 200, 0, d.now, nil)
		}
		d.sent = nil
		d.tell("alice", presence.Availability(int(d.states["alice"].Revision)%2)+presence.Busy)
	}
	last := map[string]uint32{}
	for tag, dialog := range d.dialogs {
		last[tag] = dialog.cseq
	}
	kept := maps.Clone(d.kept)
	d.Subscriptions, d.sent, d.admitted = d.notifier(limits()), nil, map[string]int{}
	for _, r := range kept {
		if !d.Restore(r, false, d.now) {
			t.Errorf("not restored: %+v", r)
		}
	}
	d.wait(time.Second)
	if len(d.sent) != 2 || len(d.admitted) != 2 {
		t.Fatalf("%d NOTIFYs after the restart, %v", len(d.sent), d.admitted)
	}
	for _, n := range d.sent {
		if n.CSeq <= last[n.Dialog] || n.CSeq > last[n.Dialog]+4*2500+reserve {
			t.Errorf("CSeq %d after %d", n.CSeq, last[n.Dialog])
		}
		d.Answered(n.Dialog, 200, 0, d.now, nil)
	}
	d.sent = nil
	d.wait(time.Hour)
	for _, n := range d.sent {
		d.Answered(n.Dialog, 200, 0, d.now, nil)
	}
	d.empty()
}

// TestRestartGoesOn has subscriptions be after a restart, and after the next, what they
// were: their rates, their lists, what they read, and which requests they have seen. The
// first NOTIFYs do not leave all at once.
func TestRestartGoesOn(t *testing.T) {
	d := newDesk(t)
	rates := func(r *Subscribe) { r.Least, r.Often = 10*time.Second, time.Minute }
	tag := d.subscribe(200, accept("application/pidf+xml", "application/pidf-diff+xml"), rates)
	list := d.subscribe(200, eventlist, func(r *Subscribe) { r.ID, r.List = "7", []string{"carol@example.test"} })
	d.subscribe(200, d.in(tag), rates)
	for range 2 {
		kept := d.kept
		d.Subscriptions, d.sent, d.kept = d.notifier(limits()), nil, map[string]*Record{}
		for _, dialog := range []string{tag, list} {
			if !d.Restore(kept[dialog], false, d.now) {
				t.Fatalf("not restored: %+v", kept[dialog])
			}
		}
	}
	d.subscribe(500, func(r *Subscribe) { r.New, r.Dialog, r.CSeq = false, tag, 1+d.next }) // was taken before
	d.wait(time.Millisecond)
	d.expect(200, "2002 active;expires=3600: alice@example.test v2002 full available")
	d.wait(time.Millisecond)
	d.expect(200, "2001 active;expires=3600: alice@example.test v2000 full [carol@example.test available]")
	d.subscribe(200, d.in(list), func(r *Subscribe) { r.ID = "7" })
	d.expect(200, "2002 active;expires=3600: alice@example.test v2001 full [carol@example.test available]")
	d.tell("alice", presence.Busy)
	d.wait(9 * time.Second)
	d.expect(200)
	d.wait(time.Second)
	d.expect(200, "2003 active;expires=3590: alice@example.test v2003 available to busy")
	d.wait(time.Minute)
	d.expect(200, "2004 active;expires=3530: alice@example.test v2004 busy to busy")
}

// TestRestartWithoutWay holds a subscription whose connection went with the
// restart until it is refreshed.
func TestRestartWithoutWay(t *testing.T) {
	d := newDesk(t)
	tag := d.subscribe(200)
	d.expect(200, "1 active;expires=3600: alice@example.test available")
	r := d.kept[tag]
	d.Subscriptions = d.notifier(limits())
	d.Restore(r, true, d.now)
	d.tell("alice", presence.Busy)
	d.wait(time.Minute)
	d.expect(0)
	d.subscribe(200, d.in(tag))
	d.expect(200, "1001 active;expires=3600: alice@example.test busy")
	d.Subscriptions = d.notifier(limits())
	for _, change := range []func(*Record){
		func(r *Record) { r.Expires = d.now },
		func(r *Record) { r.Expires = d.now.Add(3 * time.Hour) }, // longer than any that is granted
		func(r *Record) { r.Event = "message-summary" },
		func(r *Record) { r.Entity = "zoe@example.test" },
		func(r *Record) { r.Entity, r.IsList = "team@example.test", true },
	} {
		r := *d.kept[tag]
		if change(&r); d.Restore(&r, true, d.now) || len(d.dialogs) > 0 {
			t.Errorf("restored: %+v", r)
		}
	}
	if !d.Restore(d.kept[tag], true, d.now) || d.Restore(d.kept[tag], true, d.now) {
		t.Error("not restored once")
	}
	d.wait(3 * time.Hour)
	d.expect(0)
	delete(d.kept, tag)
	d.empty()
}

// TestQuiet is the law of the notifier: whatever happens, at most one NOTIFY of a
// dialog is out, its CSeq rises by one, a NOTIFY is never sooner than the pace
// allows, and after quiet each watcher holds the newest view.
func TestQuiet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDesk(t)
		d.lists["team@example.test"] = []string{"alice@example.test", "carol@example.test"}
		w := &witness{desk: d, out: map[string]Notify{}, cseq: map[string]uint32{}, shows: map[string]string{}, over: map[string]bool{}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(rapid.IntRange(0, 99).Draw(t, "what"), rapid.IntRange(0, 1<<20).Draw(t, "how"))
		}
		w.settle()
	})
}

// FuzzSubscriptions is the same law with inputs from bytes.
func FuzzSubscriptions(f *testing.F) {
	f.Add([]byte{0, 1, 40, 2, 60, 0, 80, 9})
	f.Add([]byte{0, 0, 0, 1, 0, 2, 50, 1, 50, 2, 70, 0, 90, 255, 30, 1, 65, 4})
	f.Fuzz(func(t *testing.T, steps []byte) {
		d := newDesk(t)
		d.lists["team@example.test"] = []string{"alice@example.test", "carol@example.test"}
		w := &witness{desk: d, out: map[string]Notify{}, cseq: map[string]uint32{}, shows: map[string]string{}, over: map[string]bool{}}
		for i := 0; i+1 < min(len(steps), 400); i += 2 {
			w.step(int(steps[i])%100, int(steps[i+1])*7919)
		}
		w.settle()
	})
}

// A witness is what all watchers saw.
type witness struct {
	*desk
	out   map[string]Notify // without an answer
	cseq  map[string]uint32
	shows map[string]string
	over  map[string]bool // terminated, or dropped
	tags  []string
}

func (w *witness) step(what, how int) {
	pick := func(of []string) string { return of[how%len(of)] }
	switch {
	case what < 20:
		r := ask(from(pick([]string{"bob", "carol", "dave"})))
		r.Call = fmt.Sprint(len(w.tags))
		r.Event = []string{"presence", "dialog", "presence"}[how/3%3]
		if how/9%3 == 0 && r.Event == "presence" {
			r.Entity, r.Eventlist = "team@example.test", true
		}
		r.Expires = []int{unsaid, 60, 0, 600}[how/27%4]
		var a Subscribed
		if a, w.sent = w.Subscribe(r, w.now, w.sent); a.Code == 200 {
			w.tags = append(w.tags, r.Dialog)
		}
	case what < 30 && len(w.tags) > 0:
		if dialog := w.dialogs[pick(w.tags)]; dialog != nil {
			r := ask(w.in(dialog.tag), event(dialog.about.String()))
			r.Call, r.Watcher, r.Expires = strings.Split(dialog.peer, "\n")[0], dialog.by.Subject, []int{unsaid, 60, 0}[how/100%3]
			if how/1000%2 == 0 {
				r.Match = EntityTag(dialog.told)
			}
			_, w.sent = w.Subscribe(r, w.now, w.sent)
		}
	case what < 55:
		who := presence.ID(pick([]string{"alice", "carol"}))
		w.tell(who, []presence.Availability{presence.Available, presence.Busy, presence.Away}[how/2%3], func(s *presence.State) {
			s.Channels[presence.Phone].State = []presence.ChannelState{presence.ChannelIdle, presence.ChannelRinging, presence.ChannelInUse}[how/6%3]
		})
	case what < 65:
		w.access[pick([]string{"bob", "carol", "dave"})+"@example.test alice"] = level(presence.Level(how / 3 % 5)) //nolint:gosec // below 5
		w.sent = w.Subscriptions.State(w.states["alice"], w.now, w.sent)
	case what < 85:
		if waiting := slices.Sorted(maps.Keys(w.out)); len(waiting) > 0 {
			w.answer(pick(waiting), []int{200, 200, 200, 503, 500, 481, 408, 0}[how/50%8])
		}
	default:
		w.wait(time.Duration(how) * time.Millisecond / 4)
	}
	w.see()
}

func (w *witness) answer(tag string, code int) {
	n := w.out[tag]
	delete(w.out, tag)
	if code == 481 || code == 408 {
		w.over[tag] = true
	} else if code != 503 && code != 0 {
		w.shows[tag] = string(n.Document.Body)
	}
	w.sent = w.Answered(tag, code, time.Second, w.now, w.sent)
}

func (w *witness) see() {
	w.t.Helper()
	for _, n := range w.sent {
		if _, twice := w.out[n.Dialog]; twice {
			w.t.Fatalf("two NOTIFYs of %s are out", n.Dialog)
		}
		if w.over[n.Dialog] {
			w.t.Fatalf("a NOTIFY of %s after its end", n.Dialog)
		}
		if n.CSeq != w.cseq[n.Dialog]+1 {
			w.t.Fatalf("CSeq %d after %d", n.CSeq, w.cseq[n.Dialog])
		}
		w.cseq[n.Dialog], w.out[n.Dialog] = n.CSeq, n
		if n.State[0] == 't' {
			w.over[n.Dialog] = true
		}
	}
	w.sent = w.sent[:0]
}

// settle answers all until nothing is sent any more, and compares.
func (w *witness) settle() {
	w.t.Helper()
	for range 100 {
		w.wait(2 * time.Second)
		w.see()
		for tag := range w.out {
			w.answer(tag, 200)
		}
		w.see()
	}
	for tag, d := range w.dialogs {
		if d.held {
			continue
		}
		if d.list != nil || d.about == aboutPhone { // whose documents have versions
			if d.news || d.out {
				w.t.Fatalf("%s has something to tell: %+v", tag, d.course)
			}
			for _, e := range d.listEntries() {
				if e.told != w.view(e.of, e.access).Tag {
					w.t.Fatalf("an entry of %s is old", tag)
				}
			}
			continue
		}
		v := presence.View(w.states[d.of.person], w.Access(presence.Watcher{Subject: d.by.Subject}, d.of.person))
		if want := string((&scribe{}).Presence(&v, d.of.address)); w.shows[tag] != want {
			w.t.Fatalf("%s shows %q, want %q", tag, w.shows[tag], want)
		}
	}
	w.wait(3 * time.Hour)
	w.see()
	for tag := range w.out {
		w.answer(tag, 200)
	}
	w.empty()
}

func (d *dialog) listEntries() []*entry {
	if d.list == nil {
		return nil
	}
	return d.list.entries
}
