package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"presenced/aggregator/store"
)

// storeFile writes a configuration with an embedded store of its own.
func storeFile(t *testing.T) (file, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	people := write(t, "people.yaml", "people: [{id: ann, name: Ann, tel: ['1']}]\n")
	return write(t, "presenced.yaml", fmt.Sprintf("directory: {files: [%s]}\nstore: {directory: %s}\n", people, dir)), dir
}

func put(t *testing.T, dir string, n int) {
	t.Helper()
	c := store.DefaultConfig()
	c.Directory = dir
	s, err := store.Open(t.Context(), c, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range []string{"reports", "manual", "access"} {
		b, err := s.Bucket(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := b.Put(t.Context(), fmt.Sprint("key", i), []byte(name+fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range n {
		if err := s.Log("audit", time.Hour, 1<<20).Append(t.Context(), "ann", fmt.Append(nil, "line ", i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBackupCommand backs a store up and restores it into another one.
func TestBackupCommand(t *testing.T) {
	file, dir := storeFile(t)
	target := filepath.Join(t.TempDir(), "backup")
	if code, _, errs := command(t, "backup", target, "-c", file); code != 1 || !strings.Contains(errs, "there is no store in "+dir) {
		t.Errorf("without a store: exit %d, %s", code, errs)
	}
	put(t, dir, 7)
	code, out, errs := command(t, "backup", target, "-c", file)
	if code != 0 || out != target+" written: 28 values (access 7, log:audit 7, manual 7, reports 7)\n" {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(target), ".*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	_, piped, _ := command(t, "backup", "-", "-c", file)

	other, otherDir := storeFile(t)
	data, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][]byte{"truncated": data[:len(data)-20], "corrupted": bytes.Replace(data, []byte(`"value":"b`), []byte(`"value":"c`), 1)} {
		if code, _, errs := command(t, "restore", write(t, "bad", string(bad)), "-c", other); code != 1 || !strings.Contains(errs, "no complete backup") || !strings.Contains(errs, "nothing was changed") {
			t.Errorf("%s: exit %d, %s", what, code, errs)
		}
		if _, err := os.Stat(otherDir); err == nil {
			t.Errorf("%s: a store was made", what)
		}
	}
	if code, out, errs := command(t, "restore", target, "-c", other); code != 0 || !strings.Contains(out, "28 values (access 7, log:audit 7, manual 7, reports 7)") {
		t.Errorf("restore: exit %d\n%s%s", code, out, errs)
	}
	_, again, _ := command(t, "backup", "-", "-c", other)
	if body(piped) == "" || sorted(body(piped)) != sorted(body(again)) {
		t.Errorf("- backed up, + restored\n%s", lineDiff(sorted(body(piped)), sorted(body(again))))
	}
	if code, _, errs := command(t, "restore", target, "-c", other); code != 1 || !strings.Contains(errs, "not empty") || !strings.Contains(errs, "--force") {
		t.Errorf("over something: exit %d, %s", code, errs)
	}
	if code, _, errs := command(t, "restore", target, "-c", other, "--force"); code != 0 {
		t.Errorf("by force: exit %d, %s", code, errs)
	}

	third, _ := storeFile(t)
	cfg := RestoreCommand{File: "-", Config: third, in: strings.NewReader(piped)}
	var s screen
	if err := cfg.Run(t.Context(), s.terminal()); err != nil {
		t.Errorf("from the standard input: %v", err)
	}
}

// body is a backup without its header.
func body(backup string) string {
	_, rest, _ := strings.Cut(backup, "\n")
	return rest
}

// TestBackupOfRunningService says what to do while the service holds the store.
func TestBackupOfRunningService(t *testing.T) {
	s := newSite(t, "")
	s.serve()
	s.await("alder", "available/")
	for _, args := range [][]string{{"backup", filepath.Join(t.TempDir(), "b")}, {"restore", write(t, "b", emptyBackup)}} {
		code, _, errs := command(t, append(args, "-c", s.file)...)
		if code != 1 || !strings.Contains(errs, "in use") || !strings.Contains(errs, "stop the service") {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
}

const emptyBackup = `{"format":"presenced backup","version":1,"program":"","created":"2026-11-20T10:00:00Z","counts":{},"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}` + "\n"

// TestServeWithoutStore starts the service with a cluster that is not there: presence
// goes on in memory and health says so; it is kept when the cluster comes.
func TestServeWithoutStore(t *testing.T) {
	s := newSite(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("store: {directory: %s/store}", s.dir)
	if !strings.Contains(string(config), own) {
		t.Fatal("the configuration is not as this test knows it")
	}
	s.write("presenced.yaml", strings.Replace(string(config), own, fmt.Sprintf("store: {url: 'nats://%s', lease: 0s}\naccess: {unread: default}", address), 1))
	_, stopService := s.serve()
	s.await("alder", "available/")
	if phase, _ := s.health("store"); phase != "degraded" {
		t.Errorf("the store is %s without a server", phase)
	}
	s.do("aes", "call", "247", "4711", "4750")
	s.do("aes", "answer", "247", "4750")
	eventually(t, "presence goes on", func() bool {
		_, state := s.state("alder")
		return state.Availability.String() == "busy"
	})

	stop := serveNATS(t, address)
	eventually(t, "the store is live", func() bool {
		phase, _ := s.health("store")
		return phase == "live"
	})
	stop()
	eventually(t, "the store is degraded", func() bool {
		phase, text := s.health("store")
		return phase == "degraded" && strings.Contains(text, address)
	})
	s.do("aes", "hangup", "247", "4750")
	s.await("alder", "available/")

	serveNATS(t, address) // with nothing in it: what is known now is kept there
	eventually(t, "the store is live again", func() bool {
		phase, _ := s.health("store")
		return phase == "live"
	})
	stopService() // before the server: it writes what is left
}

// health asks the page how a part fares.
func (s *site) health(part string) (phase, text string) {
	var health struct {
		Parts []struct {
			Name      string
			Phase     string
			LastError string `json:"last_error"`
		}
	}
	if body := s.get("/api/health"); body == nil || json.Unmarshal(body, &health) != nil {
		return "", ""
	}
	for _, p := range health.Parts {
		if p.Name == part {
			return p.Phase, p.LastError
		}
	}
	return "", ""
}

// serveNATS runs a server with JetStream until the test, or stop, ends it.
func serveNATS(t *testing.T, address string) (stop func()) {
	t.Helper()
	to, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: to.Port, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	stop = sync.OnceFunc(func() { srv.Shutdown(); srv.WaitForShutdown() })
	t.Cleanup(stop)
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	return stop
}

// sorted brings lines into an order: that of the entries of a backup means nothing.
func sorted(text string) string {
	return strings.Join(slices.Sorted(strings.Lines(text)), "")
}
