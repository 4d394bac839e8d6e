package main

import (
	"bufio"
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// TestWhoMayImportWhom proves rule R6 of docs/architecture.md over everything that
// a package depends on, not only over what it imports itself.
func TestWhoMayImportWhom(t *testing.T) {
	// For each part: what it may depend on among our packages and NATS. A name
	// ending in /... covers what is below it. Everything may depend on internal
	// and on presence.
	rules := []struct {
		part string
		may  []string
	}{
		{"presenced/docs", nil},
		{"presenced/aggregator/presence", nil},
		{"presenced/aggregator/directory", nil},
		{"presenced/aggregator/journal", nil},
		{"presenced/aggregator/policy", nil},
		{"presenced/aggregator/audit", nil},
		{"presenced/aggregator/lease", nil},
		{"presenced/aggregator/access", []string{"presenced/aggregator/audit", "presenced/aggregator/directory"}},
		{"presenced/aggregator/services", nil},
		{"presenced/aggregator/store", []string{"nats"}},
		{"presenced/aggregator", []string{"presenced/aggregator/directory", "presenced/aggregator/journal", "presenced/aggregator/lease"}},
		{"presenced/aes", []string{"presenced/aes/csta"}},
		{"presenced/aes/csta", nil},
		{"presenced/aes/optim", nil},
		{"presenced/exchange", []string{"presenced/exchange/..."}},
		{"presenced/exchange/ews", nil},
		{"presenced/domino", []string{"presenced/domino/..."}},
		{"presenced/domino/das", nil},
		{"presenced/bridges/pidf", nil},
		{"presenced/bridges/sip", []string{"presenced/bridges/pidf", "presenced/bridges/sip/digest", "presenced/bridges/sip/documents", "presenced/bridges/sip/entity", "presenced/bridges/sip/lookup", "presenced/bridges/sip/wire"}},
		{"presenced/bridges/sip/digest", nil},
		{"presenced/bridges/sip/documents", nil},
		{"presenced/bridges/sip/entity", nil},
		{"presenced/bridges/sip/lookup", nil},
		{"presenced/bridges/sip/network", []string{"presenced/bridges/pidf", "presenced/bridges/sip/digest", "presenced/bridges/sip/documents", "presenced/bridges/sip/entity", "presenced/bridges/sip/lookup", "presenced/bridges/sip/wire"}},
		{"presenced/bridges/sip/wire", nil},
		{"presenced/bridges/sip/lps", []string{"presenced/bridges/pidf", "presenced/bridges/sip/documents", "presenced/bridges/sip/wire"}},
		{"presenced/bridges/xmpp", nil},
		{"presenced/bridges/outbox", nil},
		{"presenced/bridges/webhook", []string{"presenced/bridges/outbox"}},
		{"presenced/bridges/mqtt", []string{"presenced/bridges/outbox"}},
		{"presenced/bridges/web", []string{
			"presenced/aggregator", "presenced/aggregator/access", "presenced/aggregator/audit", "presenced/aggregator/directory", "presenced/aggregator/journal",
			"presenced/aggregator/lease", "presenced/aggregator/services", "presenced/bridges/web/...", "presenced/docs",
		}},
		{"presenced/bridges/web/api", []string{"presenced/aggregator", "presenced/aggregator/access", "presenced/aggregator/audit", "presenced/aggregator/directory", "presenced/aggregator/journal", "presenced/aggregator/lease", "presenced/aggregator/services", "presenced/bridges/web", "presenced/bridges/web/...", "presenced/docs"}},
		{"presenced/bridges/web/certificate", nil},
		{"presenced/bridges/web/signin", nil},
		{"presenced/fixtures/sim/simaes", []string{"presenced/aes/csta", "presenced/fixtures/sim/..."}},
		{"presenced/fixtures/sim/simexchange", []string{"presenced/fixtures/sim/..."}},
		{"presenced/fixtures/sim/simdomino", []string{"presenced/fixtures/sim/..."}},
	}
	covered := map[string]bool{"presenced/cmd/presenced": true, "presenced/cmd/bench": true, "presenced/fixtures": true, "presenced/fixtures/nameserver": true, "presenced/fixtures/peers": true, "presenced/fixtures/sipload": true}
	for _, r := range rules {
		covered[r.part] = true
		for _, dep := range list(t, "-deps", r.part) {
			if !ours(dep) || dep == r.part || dep == "presenced/aggregator/presence" && r.part != dep || strings.HasPrefix(dep, "presenced/internal/") && r.part != "presenced/aggregator/presence" {
				continue
			}
			if !allowed(dep, r.may) {
				t.Errorf("%s depends on %s", r.part, dep)
			}
		}
	}
	for _, p := range list(t, "presenced/...") {
		if !covered[p] && !strings.HasPrefix(p, "presenced/internal/") && !strings.HasPrefix(p, "presenced/fixtures/sim/internal/") {
			t.Errorf("%s is in no rule: add it here and to docs/architecture.md", p)
		}
	}
	for _, dep := range list(t, "-deps", "presenced/aggregator/presence") {
		if strings.Contains(strings.Split(dep, "/")[0], ".") {
			t.Errorf("presence depends on %s; it is to need the standard library only", dep)
		}
	}
}

func ours(dep string) bool {
	return strings.HasPrefix(dep, "presenced/") || strings.HasPrefix(dep, "github.com/nats-io/")
}

func allowed(dep string, may []string) bool {
	for _, m := range may {
		if below, tree := strings.CutSuffix(m, "/..."); tree && strings.HasPrefix(dep, below) || m == dep || m == "nats" && strings.HasPrefix(dep, "github.com/nats-io/") {
			return true
		}
	}
	return false
}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var lines []string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}
