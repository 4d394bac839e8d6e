// Command bench runs the benchmarks several times, prints the medians as a table
// beside what they are to hold, and writes them to bench.json. It is run by
// "make bench", from the top of the repository; nothing imports it. "bench sip", run by
// "make bench-sip", does so for the figures of SIP; either leaves the rows of the other
// in bench.json. "bench load", "bench telephony" and "bench web" run one load program alone.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A figure is one line of the table: the median of a benchmark's runs, in the unit
// that the goal is written in. A goal of zero means that none is set.
type figure struct {
	name      string
	pkg       string
	benchmark string
	metric    string  // as go test prints it: ns/op, allocs/op
	scale     float64 // from the metric to the unit
	unit      string
	goal      float64
	over      string // the name of a figure before it that this one is to be divided by
	direction direction
}

// A direction tells on which side of its goal a figure is to be.
type direction bool

const (
	atMost  direction = false
	atLeast direction = true
)

func (f *figure) holds(value float64) bool {
	return f.goal == 0 || value == f.goal || (value > f.goal) == (f.direction == atLeast)
}

// The load programs of this command, which stand for packages; switchboard is the other
// process of phones, and crowding that of pages.
const (
	town        = "load"
	phones      = "telephony"
	switchboard = "exchange"
	pages       = "web"
	crowding    = "crowd"
)

// restart is the package whose benchmark restarts with a full store.
const restart = "./aggregator/store"

// publishing is the package whose benchmark keeps 100,000 publications alive.
const publishing = "./bridges/sip"

// kamailio is the package that compares with a Kamailio: this one.
const kamailio = "./cmd/bench"

// result is a figure as it is written to bench.json.
type result struct {
	Figure string  `json:"figure"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Goal   float64 `json:"goal"`
	Holds  bool    `json:"holds"`
}

func figures() []figure {
	return []figure{
		{"core.decide_ns", "./aggregator/presence", "BenchmarkDecide", "ns/op", 1, "ns", 1000, "", atMost},
		{"core.accept_10k_us", "./aggregator", "BenchmarkAccept/10000", "ns/op", 1e-3, "µs", 1, "", atMost},
		{"core.accept_1m_ratio", "./aggregator", "BenchmarkAccept/1000000", "ns/op", 1e-3, "times", 1.5, "core.accept_10k_us", atMost},
		{"core.accept_allocs", "./aggregator", "BenchmarkAccept/10000", "allocs/op", 1, "allocations", 3, "", atMost},
		{"core.bytes_per_person", town, "BenchmarkLoad", "B/person", 1, "bytes", 1024, "", atMost},
		{"core.directory_bytes", town, "BenchmarkLoad", "B/person/directory", 1, "bytes", 0, "", atMost},
		{"core.burst_300k_s", town, "BenchmarkLoad", "held-s", 1, "s", 2, "", atMost},
		{"core.burst_read_s", town, "BenchmarkLoad", "read-s", 1, "s", 0, "", atMost},
		{"core.burst_growth_pct", town, "BenchmarkLoad", "growth-%", 1, "%", 10, "", atMost},
		{"core.restart_1m_s", restart, "BenchmarkRestartMillion", "restart-s", 1, "s", 15, "", atMost},
		{"core.restart_open_s", restart, "BenchmarkRestartMillion", "open-s", 1, "s", 0, "", atMost},
		{"core.restart_cpu_s", restart, "BenchmarkRestartMillion", "cpu-s", 1, "s", 0, "", atMost},
		{"aes.event_us", "./aes", "BenchmarkReceive", "ns/op", 1e-3, "µs", 50, "", atMost},
		{"aes.events_per_s", phones, "BenchmarkTelephony", "events/s", 1, "events/s", 20_000, "", atLeast},
		{"aes.p99_ms_at_2000", phones, "BenchmarkTelephony", "p99-ms", 1, "ms", 5, "", atMost},
		{"aes.bytes_per_extension", phones, "BenchmarkTelephony", "B/extension", 1, "bytes", 3072, "", atMost},
		{"aes.start_10k_s", phones, "BenchmarkTelephony", "start-s", 1, "s", 20, "", atMost},
		{"aes.start_10k_window_ratio", "./cmd/presenced", "BenchmarkStartWindow", "ratio", 1, "times", 1.2, "", atMost},
		{"exchange.batch_ms", "./exchange/ews", "BenchmarkAvailability", "ns/op", 1e-6, "ms", 20, "", atMost},
		{"web.sse_p99_ms", pages, "BenchmarkWeb", "p99-ms", 1, "ms", 250, "", atMost},
		{"web.sse_server_cores", pages, "BenchmarkWeb", "server-cores", 1, "cores", 0, "", atMost},
		{"web.first_page_ms", pages, "BenchmarkWeb", "page-ms", 1, "ms", 100, "", atMost},
		{"web.first_page_kib", pages, "BenchmarkWeb", "page-KiB", 1, "KiB", 150, "", atMost},
		{"web.first_view_kib", pages, "BenchmarkWeb", "view-KiB", 1, "KiB", 0, "", atMost},
		{"web.interactive_s", pages, "BenchmarkWeb", "interactive-s", 1, "s", 1, "", atMost},
		{"road.us", "./cmd/presenced", "BenchmarkRoad", "ns/op", 1e-3, "µs", 1000, "", atMost},
		{"replay.day_ms", "./cmd/presenced", "BenchmarkDay", "ns/op", 1e-6, "ms", 1000, "", atMost},
	}
}

// sipFigures gives those of "bench sip": what our server takes as a share of what
// Kamailio does, both in microseconds of processor time, and what it keeps.
func sipFigures() []figure {
	var all []figure
	for _, f := range []struct {
		name, metric string
		goal         float64
	}{
		{"publish_initial", "initial", 0.75},
		{"publish_refresh", "refresh", 0.75},
		{"publish_modify", "modify", 0.75},
		{"subscribe", "subscribe", 0.6},
		{"notify_100", "notify", 0.5},
		{"pair_10k", "pair", 0.6},
	} {
		all = append(all,
			figure{"sip." + f.name + "_ratio", kamailio, "BenchmarkBesideKamailio", f.metric + "-ratio", 1, "times", f.goal, "", atMost},
			figure{"sip." + f.name + "_us", kamailio, "BenchmarkBesideKamailio", f.metric + "-µs", 1, "µs", 0, "", atMost},
			figure{"sip." + f.name + "_kamailio_us", kamailio, "BenchmarkBesideKamailio", f.metric + "-kamailio-µs", 1, "µs", 0, "", atMost})
	}
	return append(all,
		figure{"sip.bytes_per_publication", kamailio, "BenchmarkPresenceMemory", "B/publication", 1, "bytes", 1536, "", atMost},
		figure{"sip.bytes_per_subscription", kamailio, "BenchmarkPresenceMemory", "B/subscription", 1, "bytes", 1536, "", atMost},
		figure{"sip.keepalive_100k_core_share", publishing, "BenchmarkKeepAlive", "core-share", 1, "%", 25, "", atMost},
		figure{"sip.refresh_us", publishing, "BenchmarkKeepAlive", "cpu-us/refresh", 1, "µs", 0, "", atMost})
}

func main() {
	var err error
	switch ctx := context.Background(); strings.Join(os.Args[1:], " ") {
	case town:
		err = load(ctx, os.Stdout)
	case phones:
		err = telephony(ctx, os.Stdout)
	case switchboard:
		err = exchange(ctx, os.Stdin, os.Stdout)
	case pages:
		err = showing(ctx, os.Stdout)
	case crowding:
		err = crowd(ctx, os.Stdin, os.Stdout)
	case "sip":
		err = run(sipFigures())
	case "":
		err = run(figures())
	default:
		err = errors.New("usage: bench [sip | load | telephony | web]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// How often each benchmark runs; those that take long: the load programs, the restart,
// and the keeping alive; and the comparison, whose ratios jump.
const runs, loads, comparisons = 5, 3, 11

func run(figures []figure) error {
	measured := map[string][]float64{} // by package, benchmark and metric
	var packages []string
	for _, f := range figures {
		if !slices.Contains(packages, f.pkg) {
			packages = append(packages, f.pkg)
		}
	}
	for _, pkg := range packages {
		fmt.Fprintln(os.Stderr, "measuring", pkg)
		out, err := measure(pkg)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", pkg, err, out)
		}
		read(measured, pkg, out)
	}
	var results []result
	medians := map[string]float64{}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tmedian\tsmallest\tlargest\tunit\tgoal\tholds")
	for _, f := range figures {
		values := measured[f.pkg+" "+f.benchmark+" "+f.metric]
		if len(values) == 0 {
			return errors.New("no measurement of " + f.name)
		}
		slices.Sort(values)
		if f.over != "" {
			f.scale /= medians[f.over]
		}
		median := values[len(values)/2] * f.scale
		medians[f.name] = median
		r := result{f.name, median, f.unit, f.goal, f.holds(median)}
		results = append(results, r)
		fmt.Fprintf(t, "%s\t%.4g\t%.4g\t%.4g\t%s\t%.4g\t%v\n", f.name, median, values[0]*f.scale, values[len(values)-1]*f.scale, f.unit, f.goal, r.Holds)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return write("bench.json", results)
}

// write puts results into a file, in the place of what was there of the same figures.
func write(file string, results []result) error {
	var all []result
	data, err := os.ReadFile(file) //nolint:gosec // ours
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w; remove it", file, err)
	}
	all = slices.DeleteFunc(all, func(old result) bool {
		return slices.ContainsFunc(results, func(r result) bool { return r.Figure == old.Figure })
	})
	if data, err = json.MarshalIndent(append(all, results...), "", "  "); err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644) //nolint:gosec // figures are no secret
}

// measure runs what a package has to measure.
func measure(pkg string) (out []byte, err error) {
	bench := func(which string, count int, more ...string) ([]byte, error) {
		args := append([]string{"test", "-run", "^$", "-bench", which, "-count", strconv.Itoa(count)}, more...)
		return exec.Command("go", append(args, pkg)...).Output() //nolint:gosec // packages of this repository
	}
	switch pkg {
	case town, phones, pages:
	case restart:
		return bench(".", loads, "-benchmem")
	case publishing:
		return bench(".", loads, "-benchtime", "1x")
	case kamailio:
		if out, err = bench("BesideKamailio", comparisons, "-benchtime", "1x"); err != nil {
			return out, err
		}
		memory, err := bench("PresenceMemory", 1, "-benchtime", "1x") // the heap is counted, not timed
		return append(out, memory...), err
	default:
		return bench(".", runs, "-benchmem")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for range loads {
		one, err := exec.Command(self, pkg).Output() //nolint:gosec // this command
		out = append(out, one...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// read takes the lines that go test prints for benchmarks.
func read(into map[string][]float64, pkg string, out []byte) {
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := fields[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 { // the number of processors
			name = name[:i]
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				key := pkg + " " + name + " " + fields[i+1]
				into[key] = append(into[key], v)
			}
		}
	}
}
