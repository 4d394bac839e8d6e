package store_test

import (
	"encoding/base32"
	"encoding/json"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"presenced/aggregator"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/aggregator/store"
)

// fillFast fills a bucket of an embedded store without waiting for the disk, and
// stops the store.
func fillFast(t testing.TB, dir, bucket string, n int, each func(i int) (key string, value []byte)) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{ServerName: "presenced", DontListen: true, NoSigs: true, JetStream: true, StoreDir: dir, JetStreamMaxMemory: 16 << 20, JetStreamMaxStore: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const window = 2000
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(2*window))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: bucket, History: 1, Storage: jetstream.FileStorage}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if i%window == 0 {
			<-js.PublishAsyncComplete()
		}
		key, value := each(i)
		if _, err := js.PublishAsync("$KV."+bucket+"."+key, value); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

func id(i int) presence.ID { return presence.ID(fmt.Sprintf("person-%07d", i)) }

func extension(i int) presence.Subject {
	return presence.Subject{Scheme: "tel", Value: fmt.Sprint(1_000_000 + i)}
}

// report is one report as the recorder keeps it.
func report(i int) (key string, value []byte) { return reportOf(i, "aes-hq", presence.PhoneConnected) }

func reportOf(i int, source string, fact presence.Fact) (key string, value []byte) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	r := presence.Report{
		Source: source, Subject: extension(i), At: at, Grace: 24 * 365 * 10 * time.Hour,
		Spans: []presence.Span{{Fact: fact, From: at}},
	}
	enc := base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString
	value, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return enc([]byte(id(i))) + "." + enc([]byte(r.Source)) + "." + enc([]byte(r.Subject.String())), value
}

// state is the state of somebody as the recorder keeps it.
func state(i int) (key string, value []byte) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	value, err := json.Marshal(presence.State{Person: id(i), Availability: presence.Busy, Class: presence.Busy.Class(), Since: at, Revision: 7})
	if err != nil {
		panic(err)
	}
	return base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(id(i))), value
}

func BenchmarkLoad(b *testing.B) {
	const values = 100_000
	dir := b.TempDir()
	fillFast(b, dir, "reports", values, report)
	s, err := store.Open(b.Context(), embedded(dir), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	bucket, err := s.Bucket(b.Context(), "reports")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if all, err := bucket.Load(b.Context()); err != nil || len(all) != values {
			b.Fatalf("%d values, %v", len(all), err)
		}
	}
}

// BenchmarkRestartMillion restarts with a million reports in the store: from opening it
// to the states of everybody. It takes half a minute and 2 GB.
func BenchmarkRestartMillion(b *testing.B) {
	const people, each = 333_334, 3 // the phone, the calendar and the automatic reply of everybody
	dir := b.TempDir()
	fillFast(b, dir, "states", people, state)
	fillFast(b, dir, "reports", people*each, func(i int) (string, []byte) {
		switch i % each {
		case 0:
			return reportOf(i/each, "exchange-hq/calendar", presence.CalendarFree)
		case 1:
			return reportOf(i/each, "exchange-hq/replies", presence.CalendarFree)
		}
		return report(i / each)
	})
	var all []presence.Person
	for i := range people {
		all = append(all, presence.Person{ID: id(i), Name: string(id(i)), Subjects: []presence.Subject{extension(i)}})
	}
	quiet := slog.New(slog.DiscardHandler)
	c := embedded(dir)
	c.MaxBytes = 8 << 30
	var opening, restoring, used time.Duration
	for b.Loop() {
		began, cpuBefore := time.Now(), cpu(b)
		s := open(b, c)
		opened := time.Now()
		reports, err := s.Bucket(b.Context(), "reports")
		if err != nil {
			b.Fatal(err)
		}
		states, err := s.Bucket(b.Context(), "states")
		if err != nil {
			b.Fatal(err)
		}
		d, problems := directory.New(all)
		if problems != nil {
			b.Fatal(problems)
		}
		hub := aggregator.NewHub(presence.DefaultPolicy(), aggregator.NewRecorder(reports, states, quiet), quiet)
		hub.SetDirectory(d, time.Now())
		ready := time.Now()
		n, err := hub.Restore(b.Context(), time.Now())
		if err != nil || n != people {
			b.Fatalf("%d people, %v", n, err)
		}
		opening += opened.Sub(began)
		restoring += time.Since(ready)
		used += cpu(b) - cpuBefore
		b.StopTimer()
		if now, ok := hub.State(id(people / 2)); !ok || now.Availability != presence.Busy || now.Revision < 7 {
			b.Errorf("a state is %v", now)
		}
		s.Close()
		b.StartTimer()
	}
	n := float64(b.N)
	b.ReportMetric(opening.Seconds()/n, "open-s")
	b.ReportMetric(restoring.Seconds()/n, "restore-s")
	b.ReportMetric(used.Seconds()/n, "cpu-s")
	b.ReportMetric(b.Elapsed().Seconds()/n, "restart-s")
}

// cpu is the processor time that this process has used: what a busy machine does not change.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
