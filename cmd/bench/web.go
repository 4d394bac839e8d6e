package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"presenced/aggregator"
	"presenced/aggregator/access"
	"presenced/aggregator/audit"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/bridges/web"
	"presenced/bridges/web/signin"
)

// The board is that of a smaller town. Everybody in it picks up once while it is
// watched, one after the other.
const (
	townspeople  = 10_000
	pickUps      = townspeople
	pickUpGap    = time.Second / 500
	firstPages   = 50
	navigations  = 5
	waitForBoard = time.Minute // for anything that is to happen in moments
)

// showing measures the page: a hub with a town, the page with its sign-in and its
// rules on a port, and who looks in other processes: a browser, and many streams.
func showing(ctx context.Context, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	hub, err := smallTown(ctx)
	if err != nil {
		return err
	}
	keys := newKeyring()
	site, err := newSite(ctx, hub, keys)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- site.Run(ctx, hub) }()
	for site.Addr() == nil {
		select {
		case err := <-served:
			return err
		case <-time.After(time.Millisecond):
		}
	}
	base := "http://" + site.Addr().String()

	cursor, err := cursorOfAll(ctx, base)
	if err != nil {
		return err
	}
	first, size, err := firstPage(ctx, base)
	if err != nil {
		return err
	}
	interactive, view, err := browse(ctx, base)
	if err != nil {
		return err
	}
	told, cores, err := watched(ctx, hub, site.Addr().String(), cursor, keys.tokens)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "BenchmarkWeb 1 %s %.2f server-cores %.2f page-ms %.1f page-KiB %.3f interactive-s %.1f view-KiB\n",
		told, cores, first.Seconds()*1000, float64(size)/1024, interactive.Seconds(), float64(view)/1024)
	return err
}

// smallTown gives a hub in which everybody has the three reports of an inhabitant. What
// the policy holds back on purpose is not to be measured.
func smallTown(ctx context.Context) (*aggregator.Hub, error) {
	var people []presence.Person
	for i := range townspeople {
		p := inhabitant(i)
		p.Groups = []string{"Group " + strconv.Itoa(i%40)}
		people = append(people, p)
	}
	d, problems := directory.New(people)
	if problems != nil {
		return nil, errors.New(problems[0])
	}
	atOnce := presence.DefaultSetting()
	atOnce.HangupLinger, atOnce.MinDwell, atOnce.FlapLimit = 0, 0, 0
	hub := aggregator.NewHub(atOnce.Policy(), nil, slog.New(slog.DiscardHandler))
	at := time.Now().Truncate(time.Second)
	hub.SetDirectory(d, at)
	for i := range townspeople {
		for _, r := range []presence.Report{phone(i, at), calendar(i, at, at.Add(3*time.Hour)), replies(i, at)} {
			if err := hub.Report(ctx, r); err != nil {
				return nil, err
			}
		}
	}
	go hub.Run(ctx) //nolint:errcheck // it ends with the process
	return hub, nil
}

// newSite gives the page as the service makes it, with rules that nobody set.
func newSite(ctx context.Context, hub *aggregator.Hub, keys *keyring) (*web.Site, error) {
	log := slog.New(slog.DiscardHandler)
	trail := audit.New(nil, log) // nothing changes
	gate := access.New(access.Config{Default: "full", Calendar: "open", BlockView: "offline", Unread: "hide"}, hub, memory{}, trail, hub.Again, log)
	if err := gate.Restore(ctx); err != nil {
		return nil, err
	}
	cfg := web.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	door, err := signin.New(cfg.SignIn, signin.Deps{
		Title: cfg.Title, Origin: "http://127.0.0.1:8080", Loopback: true, Accounts: keys.accounts, Tokens: keys.kept, People: hub,
		Audit: func(context.Context, signin.Note) error { return nil }, Log: log,
	})
	if err != nil {
		return nil, err
	}
	go door.Run(ctx) //nolint:errcheck // it ends with the process
	<-door.Loaded()
	return web.New(cfg, desk{hub, aggregator.NewSupervisor(hub, log)}, gate, web.Parts{SignIn: door, Access: gate}, nil, log), nil
}

// desk is what the page needs of the aggregator.
type desk struct {
	*aggregator.Hub
	*aggregator.Supervisor
}

// cursorOfAll gives the cursor of a page that is loaded when the streams know everybody.
func cursorOfAll(ctx context.Context, base string) (string, error) {
	cursor := regexp.MustCompile(`data-cursor="([^"]*-(\d+))"`)
	for limit := time.Now().Add(waitForBoard); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		body, _, err := get(ctx, base, "identity")
		if err != nil {
			return "", err
		}
		found := cursor.FindSubmatch(body)
		if found == nil {
			return "", errors.New("the board has no cursor")
		}
		if n, _ := strconv.Atoi(string(found[2])); n >= townspeople {
			return string(found[1]), nil
		}
	}
	return "", errors.New("the page does not get to know everybody")
}

// get loads the first page of the board, as it is sent.
func get(ctx context.Context, base, encoding string) (body []byte, took time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/", nil)
	if err != nil {
		return nil, 0, err
	}
	r.Header.Set("Accept-Encoding", encoding)
	began := time.Now()
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer a.Body.Close()
	if body, err = io.ReadAll(a.Body); err == nil && a.StatusCode != http.StatusOK {
		err = errors.New("the board: " + a.Status)
	}
	return body, time.Since(began), err
}

// firstPage gives how long the first page takes from the request to its last byte, the
// median of several one after the other, and its bytes as they are sent to a browser.
func firstPage(ctx context.Context, base string) (median time.Duration, size int, err error) {
	var all []time.Duration
	for range firstPages {
		body, took, err := get(ctx, base, "gzip, deflate, br, zstd")
		if err != nil {
			return 0, 0, err
		}
		all, size = append(all, took), len(body)
	}
	slices.Sort(all)
	return all[len(all)/2], size, nil
}

// noteLive notes when a page says that it is live: with the first event of its stream,
// or by a clock a second after its script began, so that more than a second is not exact.
const noteLive = `new MutationObserver((_, observer) => {
  const live = document.getElementById('live');
  if (!live || live.hidden) return;
  window.wentLive = performance.now();
  observer.disconnect();
}).observe(document, { subtree: true, childList: true, attributes: true });`

// browse gives how long Chromium takes with an empty cache from the beginning of the
// navigation until the board takes input and is live, the median of several, and the
// bytes that it loads for that, with their headers.
func browse(ctx context.Context, base string) (median time.Duration, size int, err error) {
	profile, err := os.MkdirTemp("", "presenced-bench")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(profile)
	path, err := exec.LookPath("chromium")
	if err != nil {
		return 0, 0, errors.New(`chromium is not installed: run "make peers"`)
	}
	alloc, stop := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(profile), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-background-networking", true), chromedp.NoFirstRun)...)
	defer stop()
	tab, leave := chromedp.NewContext(alloc)
	defer leave()
	defer chromedp.Cancel(tab) //nolint:errcheck // waits for it; what it says is of no use
	if err := chromedp.Do(tab, chromedp.Navigate("about:blank")); err != nil {
		return 0, 0, fmt.Errorf("chromium: %w", err)
	}
	if _, err := chromedp.Call(tab, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: noteLive}); err != nil {
		return 0, 0, err
	}
	var all []time.Duration
	for range 1 + navigations {
		if _, err := chromedp.Call(tab, network.ClearBrowserCache, cdp.Empty{}); err != nil {
			return 0, 0, err
		}
		took, loaded, err := navigate(tab, base)
		if err != nil {
			return 0, 0, fmt.Errorf("chromium: %w", err)
		}
		all, size = append(all, took), loaded
	}
	all = all[1:] // the first one starts processes
	slices.Sort(all)
	return all[len(all)/2], size, nil
}

func navigate(tab context.Context, base string) (took time.Duration, size int, err error) {
	if err := chromedp.Do(tab, chromedp.Navigate("about:blank"), chromedp.Navigate(base+"/")); err != nil {
		return 0, 0, err
	}
	for limit := time.Now().Add(waitForBoard); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		// The time in ms and the bytes, once all is there.
		now, err := chromedp.Run(tab, chromedp.Evaluate[[]float64](`(() => {
			const [nav] = performance.getEntriesByType('navigation');
			if (!window.wentLive || !nav.loadEventEnd) return [];
			return [Math.max(window.wentLive, nav.domInteractive), [nav, ...performance.getEntriesByType('resource')].reduce((sum, e) => sum + e.transferSize, 0)];
		})()`))
		if err != nil {
			return 0, 0, err
		}
		if len(now) == 2 {
			return time.Duration(now[0] * float64(time.Millisecond)), int(now[1]), nil
		}
	}
	return 0, 0, errors.New("the board is not live")
}

// watched has many look at the board of everybody, each with an account of their own,
// and everybody pick up, and gives what the lookers tell, and how many processors this
// process kept busy meanwhile.
func watched(ctx context.Context, hub *aggregator.Hub, address, cursor string, tokens []string) (told string, cores float64, err error) {
	crowd, err := startCrowd(ctx, address, cursor, tokens)
	if err != nil {
		return "", 0, err
	}
	defer crowd.stop()
	if _, err := crowd.hear(); err != nil { // all are there
		return "", 0, err
	}
	before, begin := processorTime(), time.Now()
	var reported bytes.Buffer // until all is said, so that nobody reads it meanwhile
	for n := range pickUps {
		time.Sleep(time.Until(begin.Add(time.Duration(n) * pickUpGap)))
		fmt.Fprintln(&reported, time.Now().UnixNano())
		if err := hub.Report(ctx, inCall(n)); err != nil {
			return "", 0, err
		}
	}
	cores = (processorTime() - before).Seconds() / time.Since(begin).Seconds()
	if _, err := reported.WriteTo(crowd.orders); err != nil {
		return "", 0, err
	}
	told, err = crowd.hear()
	return told, cores, err
}

// inCall is the phone of somebody who picks up.
func inCall(i int) presence.Report {
	now := time.Now()
	return presence.Report{Source: "aes/hq", Subject: extension(i), At: now, Grace: 30 * time.Second, Spans: []presence.Span{{Fact: presence.PhoneConnected, From: now, Contact: extension(i).String()}}}
}

// processorTime gives what this process took.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for this process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
