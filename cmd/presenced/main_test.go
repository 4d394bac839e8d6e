package main

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"presenced/aes"
	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
	"presenced/aggregator/store"
	"presenced/bridges/mqtt"
	"presenced/bridges/sip"
	"presenced/bridges/sip/lps"
	"presenced/bridges/web"
	"presenced/bridges/webhook"
	"presenced/bridges/xmpp"
	"presenced/docs"
	"presenced/domino"
	"presenced/exchange"
	"presenced/fixtures"
	"presenced/internal/config"
)

// TestMain lets the test binary be the program: a test that must kill it runs
// itself with PRESENCED_TEST_MAIN set.
func TestMain(m *testing.M) {
	if os.Getenv("PRESENCED_TEST_MAIN") != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(run(ctx, os.Args[1:], &Terminal{os.Stdout, os.Stderr}))
	}
	// nats-server now and then leaves the file of a stream open when it is shut down
	// right after it began to read or make it; what ends with the process does no harm.
	// The tests of the store see to it that the store itself leaves nothing behind.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"))
}

// screen is a terminal that remembers.
type screen struct {
	mu       sync.Mutex
	out, err bytes.Buffer
}

type screenPart struct {
	s *screen
	b *bytes.Buffer
}

func (p screenPart) Write(data []byte) (int, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.b.Write(data)
}

func (s *screen) terminal() *Terminal { return &Terminal{screenPart{s, &s.out}, screenPart{s, &s.err}} }

func (s *screen) read() (out, err string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String(), s.err.String()
}

func command(t *testing.T, args ...string) (code int, out, err string) {
	t.Helper()
	var s screen
	code = run(t.Context(), args, s.terminal())
	out, err = s.read()
	return code, out, err
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestScenarios replays every scenario.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("../../fixtures/scenarios/*.txtar")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			s, err := fixtures.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := replay(t.Context(), s, quiet())
			if err != nil {
				t.Fatal(err)
			}
			if diff := lineDiff(s.Expect, got); diff != "" {
				t.Errorf("- expected, + replayed:\n%s", diff)
			}
			if again, err := replay(t.Context(), s, quiet()); err != nil || again != got {
				t.Errorf("a second replay differs: %v\n%s", err, cmp.Diff(got, again))
			}
		})
	}
}

// TestPrivateSubjectIsNowhere looks for the subject of the private entry in all
// that a replay prints and logs.
func TestPrivateSubjectIsNowhere(t *testing.T) {
	code, out, errs := command(t, "replay", "-v", "../../fixtures/scenarios/private-busy.txtar")
	if code != 0 || strings.Contains(out+errs, "Doctor") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestReplayShowsDifferences(t *testing.T) {
	data, err := os.ReadFile("../../fixtures/scenarios/call-in-a-meeting.txtar")
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(data), "10:05:00 alice busy/on-the-phone", "10:05:00 alice busy/on-hold", 1)
	if changed == string(data) {
		t.Fatal("the scenario is not as this test knows it")
	}
	file := write(t, "changed.txtar", changed)
	code, out, _ := command(t, "replay", file)
	if code != 1 || !strings.Contains(out, "\n- 10:05:00 alice busy/on-hold") || !strings.Contains(out, "\n+ 10:05:00 alice busy/on-the-phone") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, _, _ := command(t, "replay", "--update", "--quiet", file); code != 0 {
		t.Errorf("update: exit %d", code)
	}
	if code, out, _ := command(t, "replay", "--quiet", file); code != 0 || out != "ok   changed.txtar\n" {
		t.Errorf("after the update: exit %d\n%s", code, out)
	}
}

func TestExampleIsRight(t *testing.T) {
	if _, err := loadConfig("../../docs/example.yaml"); err != nil {
		t.Error(err)
	}
}

// TestWrongConfiguration wants every mistake of a file, with line and key, and exit 2.
func TestWrongConfiguration(t *testing.T) {
	file := write(t, "wrong.yaml", `log: {level: loud}
directory:
  files: []
  intervall: 5m
policy:
  phone_dnd: sometimes
aes:
- name: one
  address: nowhere
  rate: many
- name: one
  priority: [board]
web:
  listen: 99
`)
	code, _, errs := command(t, "serve", "-c", file)
	if code != exitInvalid {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{
		":1: log.level: ", ":3: directory.files: ", ":4: directory.intervall: unknown key", ":6: policy.phone_dnd: ", ":11: aes[1].address: ",
		":10: aes[0].rate: ", ":11: aes[1].name: \"one\" is the name of aes[0] already", "aes[1].user: ", ":12: aes[1].priority: differs from that of aes[0]", ":14: web.listen: ",
	} {
		if !strings.Contains(errs, want) {
			t.Errorf("missing %q in\n%s", want, errs)
		}
	}
	for line := range strings.Lines(errs) {
		if !regexp.MustCompile(`^\S+wrong\.yaml:\d+: [\w\[\].]+: .+`).MatchString(line) {
			t.Errorf("a line without file, line and key: %s", line)
		}
	}
	if code, _, errs := command(t, "check", "-c", "/nowhere.yaml"); code != exitFailed || !strings.Contains(errs, "/nowhere.yaml") {
		t.Errorf("a missing file: exit %d, %s", code, errs)
	}
	if code, _, _ := command(t, "serve"); code != exitInvalid {
		t.Errorf("without a file: exit %d", code)
	}
	if code, _, _ := command(t, "nonsense"); code != exitInvalid {
		t.Errorf("an unknown command: exit %d", code)
	}
	if code, out, _ := command(t, "--help"); code != exitOK || !strings.Contains(out, "explain") {
		t.Errorf("help: exit %d", code)
	}
}

// TestDefaultsAgree compares the defaults that the parts have in code with those
// that stand in their tags, which a configuration file gets.
func TestDefaultsAgree(t *testing.T) {
	var c lenient
	if err := config.Parse("x", []byte("{aes: [{}], exchange: [{}], domino: [{}], sip: [{}], lps: [{}], xmpp: [{}], webhooks: [{}], mqtt: [{}]}"), &c); err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct{ code, tags any }{
		{aes.DefaultConfig(), c.AES[0]},
		{exchange.DefaultConfig(), c.Exchange[0]},
		{domino.DefaultConfig(), c.Domino[0]},
		{sip.DefaultConfig(), c.SIP[0]},
		{lps.DefaultConfig(), c.LPS[0]},
		{xmpp.DefaultConfig(), c.XMPP[0]},
		{webhook.DefaultConfig(), c.Webhooks[0]},
		{mqtt.DefaultConfig(), c.MQTT[0]},
		{web.DefaultConfig(), c.Web},
		{store.DefaultConfig(), c.Store},
		{presence.DefaultSetting(), c.Policy},
	} {
		if d := cmp.Diff(part.code, part.tags); d != "" {
			t.Errorf("%T: - in code, + in tags\n%s", part.code, d)
		}
	}
}

// lenient is a configuration with which nothing is wrong.
type lenient struct {
	AES      []aes.Config      `yaml:"aes"`
	Exchange []exchange.Config `yaml:"exchange"`
	Domino   []domino.Config   `yaml:"domino"`
	SIP      []sip.Config      `yaml:"sip"`
	LPS      []lps.Config      `yaml:"lps"`
	XMPP     []xmpp.Config     `yaml:"xmpp"`
	Webhooks []webhook.Config  `yaml:"webhooks"`
	MQTT     []mqtt.Config     `yaml:"mqtt"`
	Web      web.Config        `yaml:"web"`
	Store    store.Config      `yaml:"store"`
	Policy   presence.Setting  `yaml:"policy"`
}

// Check implements config.Checker.
func (*lenient) Check() []config.Problem { return nil }

// TestReferenceIsCurrent fails when a key was changed without "make docs".
func TestReferenceIsCurrent(t *testing.T) {
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(data), reference()); d != "" {
		t.Errorf("run make docs:\n%s", d)
	}
}

// TestPolicyIsDocumented wants every rule in docs/policy.md, in the order in which
// the rules are tried.
func TestPolicyIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(data), "## The rules")
	at := 0
	for _, r := range presence.DefaultPolicy().Rules {
		i := strings.Index(table[at:], "`"+r.Name+"`")
		if i < 0 {
			t.Errorf("rule %s is missing, or not in its place", r.Name)
			continue
		}
		at += i
	}
	for f := range reflect.TypeFor[presence.Setting]().Fields() {
		if key := f.Tag.Get("yaml"); !strings.Contains(table, "`"+key+"`") {
			t.Errorf("knob %s is missing", key)
		}
	}
}

// TestDocumentedFiles: what the operator's guide shows of a configuration is right, and so
// are the people beside it.
func TestDocumentedFiles(t *testing.T) {
	guide, _ := docs.Read("operating")
	blocks := strings.Split(guide, "```yaml\n")[1:]
	if len(blocks) < 4 {
		t.Errorf("%d blocks of YAML: are they written otherwise now?", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(block, "directory:") {
			block = "directory: {files: [people.yaml]}\n" + block
		}
		if err := config.Parse("operating.md", []byte(block), new(Config)); err != nil {
			t.Errorf("%v in\n%s", err, block)
		}
	}
	data, err := os.ReadFile("../../docs/people.yaml")
	if err != nil {
		t.Fatal(err)
	}
	people, err := directory.ParseFile("people.yaml", data)
	if err != nil || len(people) != 2 || len(people[0].Subjects) != 6 {
		t.Errorf("%+v, %v", people, err)
	}
}

// TestCheckOfFiles: every secret and certificate that is not there is named at once.
func TestCheckOfFiles(t *testing.T) {
	file := write(t, "files.yaml", "directory: {files: [people.yaml], ldap: [{url: 'ldaps://x', base: dc=x, bind_dn: cn=x, password_file: /nowhere/ldap, tls: {ca_file: /nowhere/ca}}]}\n"+
		"aes: [{name: a, address: 'x:1', user: u, switch: S, password_file: /nowhere/aes}]\nxmpp: [{name: x, address: 'x:1', host: p.example.com, secret_file: "+write(t, "secret", "s")+"}]")
	code, out, errs := command(t, "check", "-c", file)
	for _, want := range []string{"failed  directory.ldap[0].password_file: ", "failed  directory.ldap[0].tls: ", "failed  aes[0].password_file: ", "ok      xmpp[0].secret_file: can be read"} {
		if !strings.Contains(out, want) {
			t.Errorf("check of files that are not there does not say %q:\n%s", want, out)
		}
	}
	if code != exitFailed || !strings.Contains(errs, "3 of 5 checks failed") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// TestDemo lives through some minutes of the office.
func TestDemo(t *testing.T) {
	var s screen
	if code := run(t.Context(), []string{"demo", "--for", "4s", "--speed", "1200", "--listen", "127.0.0.1:0"}, s.terminal()); code != 0 {
		_, errs := s.read()
		t.Fatalf("exit %d: %s", code, errs)
	}
	out, _ := s.read()
	for _, want := range []string{"The page: http://127.0.0.1:", "its administrator: http://127.0.0.1:", "board --socket ", "Busy, on the phone", "phone ringing", "The demonstration is over."} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %q in\n%s", want, out)
		}
	}
	if strings.Index(out, "its administrator: ") > strings.Index(out, "07:30") {
		t.Errorf("the day begins before it is said where to look:\n%s", out)
	}
}

func TestNoCommand(t *testing.T) {
	if code, out, errs := command(t); code != exitOK || !strings.Contains(out, "serve --config=FILE") || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := command(t, "version"); code != 0 || !strings.HasPrefix(out, "presenced ") {
		t.Errorf("exit %d, %q", code, out)
	}
}

// eventually waits until the condition holds, and fails the test after ten seconds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within ten seconds: %s", what)
		}
		<-tick.C
	}
}
