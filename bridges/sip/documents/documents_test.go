package documents

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"presenced/aggregator/presence"
	"presenced/fixtures/peers"
)

var update = flag.Bool("update", false, "write the golden files anew")

const hostile = "sip:\"><x/>&\x01@example.test"

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), go test -update writes it anew:\n%s", name, diff)
	}
}

// valid checks documents against a schema with xmllint.
func valid(t *testing.T, schema string, documents ...[]byte) {
	t.Helper()
	xmllint := peers.Find(t, "xmllint")
	dir := t.TempDir()
	args := []string{"--noout", "--nonet", "--schema", filepath.Join("testdata", "schema", schema)}
	for i, doc := range documents {
		file := filepath.Join(dir, fmt.Sprintf("%d.xml", i))
		if err := os.WriteFile(file, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	if out, err := exec.CommandContext(t.Context(), xmllint, args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%.2000s", err, out)
	}
}

// word is a text that a document can carry as it is.
var word = rapid.StringMatching(`[a-zü<>&"'\]:@.]{1,12}`)

func watchers() WatcherInfo {
	return WatcherInfo{Version: 2, Full: true, Lists: []WatcherList{
		{Resource: "sip:4750@example.test", Package: "presence", Watchers: []Watcher{
			{ID: "s1", URI: "sip:bob@example.test", Status: "active", Event: "subscribe", Expires: 599, Subscribed: 12},
			{ID: "s2", URI: "sip:eve@example.test", Name: "Eve <evil>", Status: "pending", Event: "subscribe"},
		}},
		{Resource: "sip:4751@example.test", Package: "presence"},
	}}
}

func TestWatcherInfo(t *testing.T) {
	full := watchers()
	partial := WatcherInfo{Version: 3, Lists: []WatcherList{{Resource: "sip:4750@example.test", Package: "presence", Watchers: []Watcher{{ID: "s2", URI: "sip:eve@example.test", Status: "terminated", Event: "rejected"}}}}}
	golden(t, "watchers.xml", full.Append(nil))
	golden(t, "watchers-partial.xml", partial.Append(nil))
	spoiled := WatcherInfo{Lists: []WatcherList{{Resource: "sip:x", Package: hostile, Watchers: []Watcher{{ID: hostile, URI: "sip:y", Name: hostile, Status: "waiting", Event: "timeout"}}}}}
	valid(t, "watcherinfo.xsd", full.Append(nil), partial.Append(nil), spoiled.Append(nil))
	rapid.Check(t, func(t *rapid.T) {
		watcher := rapid.Custom(func(t *rapid.T) Watcher {
			return Watcher{ID: word.Draw(t, "id"), URI: word.Draw(t, "uri"), Name: rapid.OneOf(rapid.Just(""), word).Draw(t, "name"), Status: "active", Event: "subscribe", Expires: rapid.Uint32().Draw(t, "expires")}
		})
		list := rapid.Custom(func(t *rapid.T) WatcherList {
			return WatcherList{Resource: word.Draw(t, "resource"), Package: "presence", Watchers: rapid.SliceOfN(watcher, 0, 3).Draw(t, "watchers")}
		})
		want := WatcherInfo{Version: rapid.Uint32().Draw(t, "version"), Full: rapid.Bool().Draw(t, "full"), Lists: rapid.SliceOfN(list, 0, 3).Draw(t, "lists")}
		got, err := ParseWatcherInfo(want.Append(nil))
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v (-written +read):\n%s", err, diff)
		}
	})
}

// What Kamailio sends is read.
func TestKamailioWatcherInfo(t *testing.T) {
	got, err := ParseWatcherInfo([]byte(`<?xml version="1.0"?>
<watcherinfo xmlns="urn:ietf:params:xml:ns:watcherinfo" version="2" state="partial">
  <watcher-list resource="sip:4750@example.test" package="presence">
    <watcher id="s1" event="subscribe" status="active">sip:bob@example.test</watcher>
  </watcher-list>
</watcherinfo>`))
	want := WatcherInfo{Version: 2, Lists: []WatcherList{{"sip:4750@example.test", "presence", []Watcher{{ID: "s1", URI: "sip:bob@example.test", Status: "active", Event: "subscribe"}}}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func channel(s presence.ChannelState) presence.Channel { return presence.Channel{State: s} }

func TestDialogs(t *testing.T) {
	call, ring := func(direction, state string, held bool) Dialog { return Dialog{callID, direction, state, held} }, Dialog{ringID, "recipient", "early", false}
	var documents [][]byte
	for s := presence.ChannelUnknown; s <= presence.ChannelOutOfOffice; s++ {
		want := map[presence.ChannelState][]Dialog{
			presence.ChannelRinging: {ring}, presence.ChannelDialing: {call("initiator", "trying", false)}, presence.ChannelHeld: {call("", "confirmed", true)},
			presence.ChannelInUse: {call("", "confirmed", false)}, presence.ChannelConference: {call("", "confirmed", false)},
			presence.ChannelInUseRinging: {call("", "confirmed", false), ring},
		}[s]
		got := Dialogs(channel(s))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", s, diff)
		}
		info := DialogInfo{Version: uint32(s), Full: true, Entity: "sip:4750@example.test", Dialogs: got}
		documents = append(documents, info.Append(nil))
		if len(got) > 0 || s == presence.ChannelIdle {
			golden(t, "dialogs-"+s.String()+".xml", info.Append(nil))
		}
	}
	spoiled := DialogInfo{Entity: "sip:x", Dialogs: []Dialog{{ID: hostile, State: "early"}}}
	valid(t, "dialog-info.xsd", append(documents, spoiled.Append(nil))...)
}

// Whoever has the dialogs of one state and gets the changes has those of the next.
func TestDialogChanges(t *testing.T) {
	for was := presence.ChannelUnknown; was <= presence.ChannelOutOfOffice; was++ {
		for is := presence.ChannelUnknown; is <= presence.ChannelOutOfOffice; is++ {
			have := map[string]Dialog{}
			for _, d := range Dialogs(channel(was)) {
				have[d.ID] = d
			}
			for _, d := range DialogChanges(channel(was), channel(is)) {
				if have[d.ID] == d {
					t.Errorf("%s, then %s: %s did not change", was, is, d.ID)
				}
				have[d.ID] = d
				if d.State == "terminated" {
					delete(have, d.ID)
				}
			}
			want := map[string]Dialog{}
			for _, d := range Dialogs(channel(is)) {
				want[d.ID] = d
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("%s, then %s:\n%s", was, is, diff)
			}
		}
	}
	info := DialogInfo{Version: 4, Entity: "sip:4750@example.test", Dialogs: DialogChanges(channel(presence.ChannelRinging), channel(presence.ChannelInUse))}
	golden(t, "dialogs-answered.xml", info.Append(nil))
	valid(t, "dialog-info.xsd", info.Append(nil))
}

func TestDialogRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dialog := rapid.Custom(func(t *rapid.T) Dialog {
			return Dialog{word.Draw(t, "id"), rapid.SampledFrom([]string{"", "initiator", "recipient"}).Draw(t, "direction"), rapid.SampledFrom([]string{"trying", "confirmed"}).Draw(t, "state"), rapid.Bool().Draw(t, "held")}
		})
		want := DialogInfo{rapid.Uint32().Draw(t, "version"), rapid.Bool().Draw(t, "full"), word.Draw(t, "entity"), rapid.SliceOfN(dialog, 0, 3).Draw(t, "dialogs")}
		got, err := ParseDialogInfo(want.Append(nil))
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v (-written +read):\n%s", err, diff)
		}
	})
}

func TestEntries(t *testing.T) {
	entries := []Entry{{"sip:alice@example.test", "Alice"}, {URI: "sip:bob@example.test"}}
	golden(t, "entries.xml", AppendEntries(nil, entries))
	valid(t, "resource-lists.xsd", AppendEntries(nil, entries), AppendEntries(nil, nil), AppendEntries(nil, []Entry{{"sip:x", hostile}}))
	got, err := ParseEntries([]byte(`<?xml version="1.0" encoding="UTF-8"?>
<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists" xmlns:cp="urn:ietf:params:xml:ns:copycontrol">
 <list name="friends"><display-name>not an entry</display-name>
  <entry uri="sip:alice@example.test" cp:copyControl="to"><display-name xml:lang="en">Alice</display-name></entry>
  <list><entry uri="sip:bob@example.test"/><list><entry uri="sip:alice@example.test"><display-name>again</display-name></entry></list></list>
 </list></resource-lists>`))
	if diff := cmp.Diff(entries, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Entry {
			return Entry{word.Draw(t, "uri"), rapid.OneOf(rapid.Just(""), word).Draw(t, "name")}
		}), 0, 5, func(e Entry) string { return e.URI }).Draw(t, "entries")
		got, err := ParseEntries(AppendEntries(nil, want))
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v (-written +read):\n%s", err, diff)
		}
	})
}

func many(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i].URI = fmt.Sprintf("sip:%d@example.test", i)
	}
	return entries
}

// What is refused is refused in words that say why, and quote nothing.
func TestRefusals(t *testing.T) {
	entries := func(doc string) func() error {
		return func() error { _, err := ParseEntries([]byte(doc)); return err }
	}
	list := func(contentType, body string) func() error {
		return func() error {
			_, err := ParseList(contentType, []byte(strings.ReplaceAll(body, "\n", "\r\n")))
			return err
		}
	}
	const related = `multipart/related;type="application/rlmi+xml";boundary=b`
	const meta = "Content-Type: application/rlmi+xml\n\n"
	for name, c := range map[string]struct {
		read func() error
		want string
	}{
		"another document":   {entries("<private/>"), "the root is not resource-lists"},
		"cut off":            {entries("<resource-lists>"), "not well-formed in line 1"},
		"a document type":    {entries("<!DOCTYPE a><resource-lists/>"), "a document type"},
		"an entry reference": {entries(`<resource-lists><list><entry-ref ref="private"/></list></resource-lists>`), "entry-ref refers to a list elsewhere, which is not supported: send its entries"},
		"an external list":   {entries(`<resource-lists><list><external anchor="private"/></list></resource-lists>`), "external refers to"},
		"an empty entry":     {entries(`<resource-lists><list><entry/></list></resource-lists>`), "an entry without a uri"},
		"too many entries":   {entries(string(AppendEntries(nil, many(MaxEntries+1)))), "more than 1000 entries"},
		"too large":          {entries(strings.Repeat(" ", MaxSize+1)), "the limit is 1048576"},
		"a version":          {func() error { _, err := ParseDialogInfo([]byte(`<dialog-info version="-1"/>`)); return err }, "version is not a number"},
		"an expiration": {func() error {
			_, err := ParseWatcherInfo([]byte(`<watcherinfo version="1"><watcher-list><watcher expiration="private"/></watcher-list></watcherinfo>`))
			return err
		}, "expiration is not a number"},
		"no parts":          {list("application/rlmi+xml", "<list/>"), "not multipart/related"},
		"no boundary":       {list("multipart/related", "--b--\n"), "not multipart/related"},
		"another boundary":  {list(related, "--c--\n"), "no part of application/rlmi+xml"},
		"a broken header":   {list(related, "--b\nprivate\n\n\n--b--\n"), "do not keep to their boundary"},
		"no root":           {list(related, "--b\nContent-Type: text/plain\n\nprivate\n--b--\n"), "no part of application/rlmi+xml"},
		"an encoded part":   {list(related, "--b\nContent-Transfer-Encoding: base64\n"+meta+"PGxpc3QvPg==\n--b--\n"), "Content-Transfer-Encoding"},
		"no end":            {list(related, "--b\n"+meta+"<list version='1'/>\n"), "cut off"},
		"broken meta":       {list(related, "--b\n"+meta+"<list version='1'>\n--b--\n"), "not well-formed"},
		"too many parts":    {list(related, strings.Repeat("--b\nContent-Type: a/b\n\n\n", MaxEntries+2)+"--b--\n"), "more than 1000 parts"},
		"too many":          {list(related, "--b\n"+meta+"<list version='1'>"+strings.Repeat("<resource uri='a'/>", MaxEntries+1)+"</list>\n--b--\n"), "more than 1000 resources"},
		"too many of one":   {list(related, "--b\n"+meta+"<list version='1'><resource>"+strings.Repeat("<instance/>", MaxEntries+1)+"</resource></list>\n--b--\n"), "more than 1000 resources"},
		"lists within list": {func() error { body, kind := nest(6); _, err := ParseList(kind, body); return err }, "deeper than 3"},
	} {
		if err := c.read(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "documents: ") || strings.Contains(err.Error(), "private") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// nest makes lists within lists without the bound that Append has.
func nest(n int) ([]byte, string) {
	body, kind := []byte("private"), "text/plain"
	for range n {
		l := List{Resources: []Resource{{URI: "sip:x", Instances: []Instance{{ID: "1", State: "active", ContentType: kind, Body: body}}}}}
		body, kind = l.Append(nil, "example.test")
	}
	return body, kind
}

func TestInflate(t *testing.T) {
	text := AppendEntries(nil, many(50))
	for name, writer := range map[string]func(io.Writer) io.WriteCloser{
		"zlib": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"raw":  func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 9); return f },
	} {
		deflate := func(text []byte) []byte {
			var buf bytes.Buffer
			w := writer(&buf)
			_, _ = w.Write(text)
			_ = w.Close()
			return buf.Bytes()
		}
		if got, err := Inflate(deflate(text)); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if _, err := Inflate(deflate(make([]byte, MaxSize))); err != nil {
			t.Errorf("%s: as much as may be: %v", name, err)
		}
		if _, err := Inflate(deflate(make([]byte, 2*MaxSize))); err == nil {
			t.Errorf("%s: a bomb is inflated", name)
		}
		if short := deflate(text); name == "zlib" {
			if _, err := Inflate(short[:len(short)-6]); err == nil {
				t.Errorf("%s: what is cut off is inflated", name)
			}
		}
	}
	if _, err := Inflate([]byte("plain text")); err == nil {
		t.Error("a text is inflated")
	}
}
