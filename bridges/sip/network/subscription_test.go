package network

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"presenced/bridges/sip/digest"
	"presenced/bridges/sip/documents"
)

var epoch = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func numbered() terms {
	n := 0
	return terms{expires: 100 * time.Second, pause: shortBackoff, id: func() string { n++; return "id" + strconv.Itoa(n) }}
}

// trace plays a script against a subscription and gives what comes out: SUBSCRIBEs
// with their second, and what each NOTIFY came to. The lines of a script are "second
// input":
//
//	0 200 expires=60    0 notify 1 active expires=60 tag=a    9 stop    2 tick    5 timeout
func trace(t *testing.T, script string) []string {
	t.Helper()
	shared := numbered()
	s := &subscription{terms: &shared}
	var out []string
	now := epoch
	at := func() string { return strconv.Itoa(int(now.Sub(epoch).Seconds())) }
	run := func(until time.Time) {
		for range 50 {
			due := s.Due()
			if due.IsZero() || due.After(until) {
				break
			}
			now = later(now, due)
			if r, ok := s.Send(now); ok {
				out = append(out, fmt.Sprintf("%s SUBSCRIBE %s/%s %d for %d", at(), r.callID, r.remote, r.seq, int(r.expires.Seconds())))
				if r.answer != nil {
					out[len(out)-1] += " authorized"
				}
			}
		}
		now = later(now, until)
	}
	s.Start(now)
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		f := strings.Fields(line)
		second, err := strconv.Atoi(f[0])
		if err != nil {
			t.Fatal(err)
		}
		run(epoch.Add(time.Duration(second) * time.Second))
		values := map[string]string{}
		for _, v := range f[2:] {
			key, value, _ := strings.Cut(v, "=")
			values[key] = value
		}
		duration := func(key string, unsaid int) time.Duration {
			if n, err := strconv.Atoi(values[key]); err == nil {
				unsaid = n
			}
			return time.Duration(unsaid) * time.Second
		}
		switch f[1] {
		case "tick":
		case "stop":
			s.Stop(now)
		case "look":
			s.Look(now, now)
		case "abandon":
			s.Abandon(now)
		case "timeout":
			s.Fail(now)
		case "notify":
			seq, _ := strconv.Atoi(f[2])
			n := notice{local: s.local, remote: "a", seq: uint32(seq), expires: duration("expires", -1), reason: values["reason"], retryAfter: duration("retry-after", 0)}
			if len(f) > 3 {
				n.state = f[3]
			}
			if v := values["tag"]; v != "" {
				n.remote = v
			}
			if v := values["to"]; v != "" {
				n.local = v
			}
			read := s.Notify(n, now)
			line := fmt.Sprintf("%s %d", at(), read.code)
			if read.content {
				line += fmt.Sprintf(" until %d", int(s.expires.Sub(epoch).Round(time.Second).Seconds()))
			}
			if read.over != "" {
				line += " " + read.over
			}
			out = append(out, line)
		default:
			code, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(line)
			}
			r := response{code: code, expires: duration("expires", -1), minExpires: duration("min", 0), retryAfter: duration("retry-after", 0)}
			if code == 401 {
				r.challenge = digest.Choose([]string{`Digest realm="r", nonce="n"`}, false)
			}
			if v := s.Response(r, now); v != fine {
				out = append(out, at()+" "+map[verdict]string{refused: "refused", failing: "failing", denied: "denied"}[v])
			}
		}
		run(now)
	}
	if s.Done() {
		out = append(out, at()+" done")
	}
	return out
}

// Every row of the table of RFC 6665 practice.
func TestSubscription(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"subscribes and refreshes in the dialog": {
			"0 200 expires=60\n0 notify 1 active expires=60\n44 200 expires=60\n44 notify 2 active expires=60\n90 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 60; 43 SUBSCRIBE id1/a 2 for 100; 44 200 until 103; 86 SUBSCRIBE id1/a 3 for 100",
		},
		"NOTIFY before the 200": {
			"0 notify 1 active expires=50\n1 200 expires=60\n37 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 50; 36 SUBSCRIBE id1/a 2 for 100",
		},
		"no NOTIFY: Timer N": {
			"0 200 expires=60\n36 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 34 SUBSCRIBE id3/ 1 for 100",
		},
		"pending is no less": {
			"0 200 expires=60\n0 notify 1 pending expires=60\n5 notify 2 active expires=55",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 60; 5 200 until 60",
		},
		"NOTIFY may shorten the life and not lengthen it": {
			"0 200 expires=60\n0 notify 1 active\n10 notify 2 active expires=20\n12 notify 3 active expires=600\n25 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 60; 10 200 until 30; 12 200 until 30; 24 SUBSCRIBE id1/a 2 for 100",
		},
		"out of order, again, forked, of another dialog, without a state": {
			"0 200 expires=60\n0 notify 5 active\n1 notify 5 active\n1 notify 4 terminated\n1 notify 9 active tag=b\n1 notify 9 active to=x\n1 notify 9\n2 notify 7 active",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 60; 1 500; 1 500; 1 481; 1 481; 1 400; 2 200 until 60",
		},
		"481 to a refresh: anew, in another dialog, with a CSeq of its own": {
			"0 200 expires=100\n0 notify 90 active\n72 481\n73 200\n73 notify 1 active",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 72 SUBSCRIBE id1/a 2 for 100; 72 SUBSCRIBE id3/ 1 for 100; 73 200 until 172",
		},
		"a dialog that ends at once is begun again later and later": {
			"0 481\n0 tick\n1 200\n1 notify 1 terminated reason=deactivated\n4 200\n4 notify 1 terminated reason=timeout\n9 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 refused; 1 481; 4 481",
		},
		"deactivated after a while: anew at once": {
			"0 200\n0 notify 1 active\n70 notify 2 terminated reason=deactivated\n71 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 70 200; 70 SUBSCRIBE id3/ 1 for 100",
		},
		"deactivated soon: later": {
			"0 200\n0 notify 1 active\n1 notify 2 terminated reason=deactivated\n4 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 1 200; 3 SUBSCRIBE id3/ 1 for 100",
		},
		"probation waits": {
			"0 200\n0 notify 1 active\n9 notify 2 terminated reason=probation retry-after=40\n60 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 9 200; 49 SUBSCRIBE id3/ 1 for 100",
		},
		"giveup waits": {
			"0 200\n9 notify 2 terminated reason=giveup\n60 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 9 200; 39 SUBSCRIBE id3/ 1 for 100",
		},
		"rejected ends it":   {"0 200\n9 notify 2 terminated reason=rejected\n9999 tick", "0 SUBSCRIBE id1/ 1 for 100; 9 200 rejected"},
		"noresource ends it": {"0 200\n9 notify 2 terminated reason=noresource\n9999 tick", "0 SUBSCRIBE id1/ 1 for 100; 9 200 noresource"},
		"a refresh that fails is repeated until the end, then all begins anew": {
			"0 200 expires=100\n0 notify 1 active\n77 timeout\n80 500\n90 403\n99 tick\n101 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 72 SUBSCRIBE id1/a 2 for 100; 79 SUBSCRIBE id1/a 3 for 100; 84 SUBSCRIBE id1/a 4 for 100; 90 refused; 100 SUBSCRIBE id3/ 1 for 100",
		},
		"no answer at all": {
			"5 timeout\n12 timeout\n17 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 7 SUBSCRIBE id3/ 1 for 100; 16 SUBSCRIBE id5/ 1 for 100",
		},
		"423": {
			"0 423 min=300\n1 200\n1 notify 1 active",
			"0 SUBSCRIBE id1/ 1 for 100; 0 SUBSCRIBE id1/ 2 for 300; 1 200 until 300",
		},
		"423 without a reason": {"0 423 min=50\n100 tick", "0 SUBSCRIBE id1/ 1 for 100; 0 refused"},
		"digest":               {"0 401\n0 200", "0 SUBSCRIBE id1/ 1 for 100; 0 SUBSCRIBE id1/ 2 for 100 authorized"},
		"a wrong password":     {"0 401\n0 401\n200 tick", "0 SUBSCRIBE id1/ 1 for 100; 0 SUBSCRIBE id1/ 2 for 100 authorized; 0 denied"},
		"503":                  {"0 503 retry-after=40\n41 503", "0 SUBSCRIBE id1/ 1 for 100; 40 SUBSCRIBE id3/ 1 for 100; 41 failing"},
		"not wanted":           {"0 489\n301 tick", "0 SUBSCRIBE id1/ 1 for 100; 0 refused; 300 SUBSCRIBE id3/ 1 for 100"},
		"stop": {
			"0 200\n0 notify 1 active\n9 stop\n9 200\n9 notify 2 terminated reason=timeout",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 9 SUBSCRIBE id1/a 2 for 0; 9 200; 9 done",
		},
		"stop, and the last NOTIFY is lost": {
			"0 200\n0 notify 1 active\n9 stop\n9 200\n12 tick",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 9 SUBSCRIBE id1/a 2 for 0; 12 done",
		},
		"stop while trying": {"0 tick\n1 stop\n2 200", "0 SUBSCRIBE id1/ 1 for 100; 2 done"},
		"another server": {
			"0 200\n0 notify 1 active\n9 abandon\n9 200\n9 notify 1 active",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 9 SUBSCRIBE id3/ 1 for 100; 9 200 until 109",
		},
		"a look": {
			"0 200\n0 notify 1 active\n9 look\n9 200\n9 notify 2 active",
			"0 SUBSCRIBE id1/ 1 for 100; 0 200 until 100; 9 SUBSCRIBE id1/a 2 for 100; 9 200 until 109",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(trace(t, c.script), "; "); got != c.want {
				t.Errorf("\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// Whatever a server answers and notifies, in whatever order: at most one SUBSCRIBE is
// out, what is known never outlives the subscription by which it is known, a NOTIFY that
// is not newer changes nothing, and there is always something to come.
func TestSubscriptionLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shared := numbered()
		s := &subscription{terms: &shared, spread: rapid.Float64Range(0, 0.99).Draw(t, "spread")}
		var a account
		now := epoch
		s.Start(now)
		body := []byte(`<presence entity="sip:a@b"><tuple id="t"><status><basic>open</basic></status></tuple></presence>`)
		var promised time.Time // the end of the subscription, as the server has told it last, at the latest
		ended := false
		for range rapid.IntRange(1, 60).Draw(t, "inputs") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "pause")) * time.Second)
			if r, ok := s.Send(now); ok {
				if s.out == nil || r.callID == "" {
					t.Fatal("a request without a dialog")
				}
				if _, again := s.Send(now); again {
					t.Fatal("two requests are out")
				}
			}
			before, heard := a, s.heard
			switch rapid.IntRange(0, 7).Draw(t, "input") {
			case 0, 1:
				s.Response(response{
					code:       rapid.SampledFrom([]int{200, 200, 202, 401, 403, 404, 423, 481, 489, 500, 503, 600}).Draw(t, "code"),
					expires:    time.Duration(rapid.IntRange(-1, 200).Draw(t, "expires")) * time.Second,
					minExpires: time.Duration(rapid.IntRange(0, 300).Draw(t, "min")) * time.Second,
				}, now)
			case 2:
				s.Fail(now)
			case 3:
				s.Look(now, now)
			case 4, 5, 6:
				n := notice{
					local: s.local, remote: rapid.SampledFrom([]string{"a", "a", "a", "b", ""}).Draw(t, "tag"),
					seq:     uint32(rapid.IntRange(0, 20).Draw(t, "seq")),
					state:   rapid.SampledFrom([]string{"active", "active", "pending", "terminated", "x", ""}).Draw(t, "state"),
					reason:  rapid.SampledFrom([]string{"", "timeout", "deactivated", "probation", "rejected"}).Draw(t, "reason"),
					expires: time.Duration(rapid.IntRange(-1, 500).Draw(t, "expires")) * time.Second,
				}
				known := s.remote != ""
				read := s.Notify(n, now)
				switch {
				case read.content:
					if known && n.seq <= heard {
						t.Fatal("an old NOTIFY counts")
					}
					a.last(s.expires)
					if n.expires >= 0 && s.expires.After(now.Add(n.expires+time.Second)) {
						t.Fatalf("lives until %v, the server said %v", s.expires, now.Add(n.expires))
					}
					if rapid.Bool().Draw(t, "body") {
						if _, err := a.learn([][]byte{body}, s.expires, now); err != nil {
							t.Fatal(err)
						}
					}
					promised = s.expires
				case read.over != "":
					a.retract()
					ended = true
				case fmt.Sprint(a) != fmt.Sprint(before):
					t.Fatal("what does not count changes something")
				}
			case 7:
				s.Abandon(now)
			}
			if a.until.After(promised) || a.until.After(now.Add(shared.expires)) {
				t.Fatalf("known until %v, subscribed until %v", a.until, promised)
			}
			if !ended && s.out == nil && s.Due().IsZero() {
				t.Fatal("nothing will ever happen")
			}
			if ended != (s.over != "") {
				t.Fatal("it goes on after its end")
			}
		}
	})
}

// A roll asks for the full state where something was missed.
func TestRoll(t *testing.T) {
	var got []bool
	var r roll
	for _, l := range []struct {
		dialog  string
		version uint32
		full    bool
	}{
		{"a", 0, false}, {"a", 4, true}, {"a", 5, false}, {"a", 7, false}, {"a", 5, false}, {"a", 6, false}, {"b", 7, false}, {"b", 0, true}, {"b", 1, false},
	} {
		list := documents.List{Version: l.version, Full: l.full}
		got = append(got, r.follow(l.dialog, &list) == nil)
	}
	if want := []bool{false, true, true, false, false, true, false, true, true}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
