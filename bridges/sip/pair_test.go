package sip

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/fixtures/peers"
)

// moods are the states that the crowd goes through, and what a document says of them.
//
//nolint:gochecknoglobals // a table, never changed
var moods = []struct {
	availability presence.Availability
	activity     presence.Activity
	says         string
}{
	{presence.Available, presence.NoActivity, "open Available"},
	{presence.Busy, presence.ActivityPhone, "open On the phone"},
	{presence.Busy, presence.ActivityMeeting, "open In a meeting"},
	{presence.Offline, presence.NoActivity, "closed Offline"},
}

// A crowd is many people who change, and what the newest of each is.
type crowd struct {
	*testHub
	newest map[string]string
}

func newCrowd() *crowd { return &crowd{newHub(), map[string]string{}} }

// enter has so many people come; somebody is to watch.
func (c *crowd) enter(people int) {
	for i := range people {
		c.change(fmt.Sprint(4000 + i))
	}
}

func (c *crowd) change(id string) {
	m := moods[rand.IntN(len(moods))] //nolint:gosec // not a secret
	c.newest[id] = m.says
	c.tell(presence.ID(id), m.availability, m.activity)
}

// some lets so many of them change.
func (c *crowd) some(n int) {
	for range n {
		c.change(fmt.Sprint(4000 + rand.IntN(len(c.newest)))) //nolint:gosec // not a secret
	}
}

// await waits until server holds want. There never are two publications of a person.
func await(t *testing.T, server *peers.Server, want map[string]string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	wrong := ""
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		held := server.Publications(t.Context())
		wrong = ""
		for id, bodies := range held {
			if len(bodies) > 1 {
				t.Fatalf("%d publications of %s", len(bodies), id)
			}
			d, err := pidf.Parse([]byte(bodies[0]))
			if err != nil {
				t.Fatalf("%v\n%s", err, bodies[0])
			}
			says := string(d.Basic()) + " " + strings.Join(d.Tuples[0].Notes, " ")
			if says != want[id] {
				wrong = fmt.Sprintf("%s is %q instead of %q", id, says, want[id])
			}
		}
		if len(held) != len(want) {
			wrong = fmt.Sprintf("%d people instead of %d", len(held), len(want))
		}
		if wrong == "" {
			return
		}
	}
	t.Fatalf("at %s: %s", server.Address, wrong)
}

// The first server is killed while people change: the second one holds the newest of
// everybody, the first one again when it is back, with nothing kept of before, and
// the second one nothing then. Nobody is there twice.
func TestKamailioPair(t *testing.T) {
	t.Parallel()
	const people = 200
	a, b := peers.KamailioPair(t)
	cfg := testConfig(t, a.Address)
	cfg.Secondary, cfg.Transport, cfg.Rate = b.Address, "tcp", 500
	cfg.Body = "plain" // kamcmd takes no more than 128 KB
	everybody := newCrowd()
	p := run(t, watchful(newPublisher(t, cfg, folder(t.TempDir()))), everybody)
	everybody.enter(people)
	await(t, a, everybody.newest)
	everybody.some(50)
	a.Kill()
	everybody.some(100)
	await(t, b, everybody.newest)
	a.Restart()
	everybody.some(20) // most stay as they are
	await(t, a, everybody.newest)
	await(t, b, nil)
	p.stop()
	await(t, a, nil)
}

// A folder is a Memory of files.
type folder string

func (f folder) Load(context.Context) (map[string][]byte, error) {
	files, err := os.ReadDir(string(f))
	if err != nil {
		return nil, err
	}
	values := map[string][]byte{}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(string(f), file.Name()))
		if err == nil && json.Valid(data) {
			values[file.Name()] = data
		}
	}
	return values, nil
}

func (f folder) Put(_ context.Context, key string, value []byte) error {
	return os.WriteFile(filepath.Join(string(f), key), value, 0o600)
}

func (f folder) Delete(_ context.Context, key string) error {
	return os.RemoveAll(filepath.Join(string(f), key)) // it need not be there
}

// tags gives the tags that a memory holds.
func tags(t *testing.T, values map[string][]byte) map[place]string {
	t.Helper()
	var pages []*page
	for key, value := range values {
		pg, err := readPage(key, value)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, pg)
	}
	held := map[place]string{}
	l := newLedger(pages)
	for _, pg := range l.pages {
		for _, r := range l.current(pg) {
			held[r.place()] = r.Tag
		}
	}
	return held
}

// The environment of a process that publishes until it is killed: where, and the
// folder of its memory.
const (
	publishAt = "PRESENCED_TEST_PUBLISH_AT"
	keepIn    = "PRESENCED_TEST_KEEP_IN"
)

// publishUntilKilled is what such a process does.
func publishUntilKilled(address string) {
	cfg := DefaultConfig()
	cfg.Address, cfg.Transport, cfg.Entity = address, "tcp", "sip:{tel}@example.test"
	hub := newCrowd()
	go hub.enter(killed)
	p := New(cfg, folder(os.Getenv(keepIn)), openGate{}, slog.New(slog.DiscardHandler))
	_ = p.Run(context.Background(), hub)
}

const killed = 40 // people

// The process is killed, and the next one changes what it published, with the tags
// that were kept: nobody is there twice.
func TestKamailioKilled(t *testing.T) {
	t.Parallel()
	server := peers.Kamailio(t)
	kept := folder(t.TempDir())
	process := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test
	process.Env = append(os.Environ(), publishAt+"="+server.Address, keepIn+"="+string(kept))
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		if values, err := kept.Load(t.Context()); err != nil || len(tags(t, values)) == killed {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the tags are not kept")
		}
	}
	_ = process.Process.Kill()
	_ = process.Wait()
	if held := server.Publications(t.Context()); len(held) != killed {
		t.Fatalf("%d people are left behind", len(held))
	}
	cfg := testConfig(t, server.Address)
	cfg.Transport = "tcp"
	hub := newCrowd()
	p := run(t, newPublisher(t, cfg, kept), hub)
	hub.enter(killed)
	await(t, server, hub.newest)
	p.stop()
	if s := p.Status(); len(s.Problems) != 0 {
		t.Errorf("problems %v", s.Problems)
	}
	await(t, server, nil)
}
