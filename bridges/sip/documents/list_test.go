package documents

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

const pidfType = `application/pidf+xml;charset="UTF-8"`

func friends() List {
	pidf := []byte("<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:alice@example.test\"/>\n")
	return List{URI: "sip:friends@example.test", Full: true, Resources: []Resource{
		{URI: "sip:alice@example.test", Name: "Alice", Instances: []Instance{{ID: "i1", State: "active", ContentType: pidfType, Body: pidf}}},
		{URI: "sip:bob@example.test", Instances: []Instance{{ID: "i2", State: "pending"}}},
		{URI: "sip:carol@example.test", Instances: []Instance{{ID: "i3", State: "terminated", Reason: "noresource"}}},
		{URI: "sip:dave@example.test"},
		{URI: "sip:team@example.test", Instances: []Instance{{ID: "i5", State: "active", List: &List{URI: "sip:team@example.test", Version: 3, Resources: []Resource{
			{URI: "sip:erin@example.test", Instances: []Instance{{ID: "i1", State: "active", ContentType: pidfType, Body: pidf}}},
		}}}}},
	}}
}

func TestListGolden(t *testing.T) {
	l := friends()
	body, contentType := l.Append(nil, "rls.test")
	golden(t, "list.mime", append([]byte("Content-Type: "+contentType+"\r\n\r\n"), body...))
	got, err := ParseList(contentType, body)
	want := friends() // of a nested list, the parts tell
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Errorf("%v (-written +read):\n%s", err, diff)
	}
	spoiled := List{URI: "sip:x", Resources: []Resource{{URI: "sip:y", Name: hostile, Instances: []Instance{{ID: hostile, State: "active", Reason: hostile, Body: []byte(hostile)}}}}}
	var metas [][]byte
	for _, l := range []List{l, spoiled} {
		body, _ := l.Append(nil, "rls.test")
		start := bytes.Index(body, []byte("<?xml"))
		metas = append(metas, body[start:start+bytes.Index(body[start:], []byte("</list>"))+len("</list>")])
	}
	valid(t, "rlmi.xsd", metas...)
}

// The example of the protocol paper is read: a resource with a part, and one that
// waits.
func TestListOfOthers(t *testing.T) {
	body := strings.ReplaceAll(`preamble
--xYzZy
Content-Transfer-Encoding: binary
Content-ID: <alice@rls.test>
Content-Type: application/pidf+xml;charset="UTF-8"

<presence/>
--xYzZy
Content-ID: <root@rls.test>
Content-Type: application/rlmi+xml;charset="UTF-8"

<list xmlns="urn:ietf:params:xml:ns:rlmi" uri="sip:friends@example.test" version="7" fullState="1"><name>Friends</name><resource uri="sip:alice@example.test"><name>Alice</name><instance id="i1" state="active" cid="alice@rls.test"/></resource><resource uri="sip:bob@example.test"><instance id="i2" state="active" cid="gone@rls.test"/><instance id="i3" state="pending" cid="alice@rls.test"/></resource></list>
--xYzZy--
epilogue
`, "\n", "\r\n")
	got, err := ParseList(`multipart/related;type="application/rlmi+xml";start="<root@rls.test>";boundary="xYzZy"`, []byte(body))
	want := List{URI: "sip:friends@example.test", Version: 7, Full: true, Resources: []Resource{
		{URI: "sip:alice@example.test", Name: "Alice", Instances: []Instance{{ID: "i1", State: "active", ContentType: pidfType, Body: []byte("<presence/>")}}},
		{URI: "sip:bob@example.test", Instances: []Instance{{ID: "i2", State: "active"}, {ID: "i3", State: "pending"}}},
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// Whatever the parts hold, boundaries too, they are read as they were given.
func TestListProperty(t *testing.T) {
	content := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"--presenced-0000000000", "\r\n--presenced-0000000001--\r\n", "--presenced-", "presenced-", "000000000", "2", "0", "\r\n", "--", "<a/>", "\x00"}), 0, 8),
		func(s []string) []byte { return []byte(strings.Join(s, "")) })
	var lists func(depth int) *rapid.Generator[List]
	lists = func(depth int) *rapid.Generator[List] {
		instance := rapid.Custom(func(t *rapid.T) Instance {
			n := Instance{ID: word.Draw(t, "id"), State: rapid.SampledFrom([]string{"active", "pending", "terminated"}).Draw(t, "state"), Reason: rapid.OneOf(rapid.Just(""), word).Draw(t, "reason")}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0, 1:
				n.ContentType, n.Body = pidfType, content.Draw(t, "body")
			case 2:
				if depth > 1 {
					l := lists(depth-1).Draw(t, "list")
					n.List = &l
				}
			}
			return n
		})
		resource := rapid.Custom(func(t *rapid.T) Resource {
			return Resource{URI: word.Draw(t, "uri"), Name: rapid.OneOf(rapid.Just(""), word).Draw(t, "name"), Instances: rapid.SliceOfN(instance, 0, 2).Draw(t, "instances")}
		})
		return rapid.Custom(func(t *rapid.T) List {
			return List{URI: word.Draw(t, "list"), Version: rapid.Uint32().Draw(t, "version"), Full: rapid.Bool().Draw(t, "full"), Resources: rapid.SliceOfN(resource, 0, 3).Draw(t, "resources")}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		want := lists(maxNested).Draw(t, "list")
		body, contentType := want.Append(nil, "rls.test")
		got, err := ParseList(contentType, body)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v (-written +read):\n%s\n%s", err, diff, body)
		}
	})
}

// No body makes a reader panic, or a list that is larger than allowed.
func FuzzParseList(f *testing.F) {
	l := friends()
	body, contentType := l.Append(nil, "rls.test")
	f.Add(contentType, body)
	body, contentType = nest(4)
	f.Add(contentType, body)
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		l, err := ParseList(contentType, body)
		if err != nil {
			return
		}
		if n := count(&l, 1); n > MaxEntries {
			t.Fatalf("a list of %d", n)
		}
		if again, kind := l.Append(nil, "rls.test"); len(again) < MaxSize {
			if _, err := ParseList(kind, again); err != nil {
				t.Fatalf("what was read cannot be written and read: %v", err)
			}
		}
	})
}

func count(l *List, depth int) int {
	n := len(l.Resources)
	for i := range l.Resources {
		for j := range l.Resources[i].Instances {
			if nested := l.Resources[i].Instances[j].List; nested != nil {
				if depth == maxNested {
					return MaxEntries + 1
				}
				n += count(nested, depth+1)
			}
		}
	}
	return n
}

// FuzzParse gives the same bytes to every reader of one document.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"watchers.xml", "entries.xml", "dialogs-held.xml"} {
		data, err := os.ReadFile("testdata/golden/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if info, err := ParseWatcherInfo(data); err == nil {
			if _, err := ParseWatcherInfo(info.Append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := ParseDialogInfo(data); err == nil {
			if _, err := ParseDialogInfo(info.Append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if entries, err := ParseEntries(data); err == nil {
			if again, err := ParseEntries(AppendEntries(nil, entries)); err != nil || len(again) != len(entries) {
				t.Fatalf("%d entries, then %d: %v", len(entries), len(again), err)
			}
		}
		if text, err := Inflate(data); err == nil && len(text) > MaxSize {
			t.Fatalf("%d bytes", len(text))
		}
	})
}

func BenchmarkListAppend(b *testing.B) {
	pidf := bytes.Repeat([]byte("<presence/>"), 60)
	l := List{URI: "sip:friends@example.test", Full: true}
	for _, e := range many(100) {
		l.Resources = append(l.Resources, Resource{URI: e.URI, Instances: []Instance{{ID: "1", State: "active", ContentType: pidfType, Body: pidf}}})
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = l.Append(dst[:0], "rls.test")
	}
}
