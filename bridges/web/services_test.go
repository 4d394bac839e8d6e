package web

import (
	"context"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/web/signin"
	"presenced/internal/config"
)

// drawer keeps services in memory, and can be told to fail.
type drawer struct {
	mu     sync.Mutex
	values map[string][]byte
	at     map[string]uint64
	last   uint64
	broken error
}

func (d *drawer) Load(context.Context) (map[string][]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.values), d.broken
}

func (d *drawer) Get(_ context.Context, key string) ([]byte, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.values[key], d.at[key], d.broken
}

func (d *drawer) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return d.Update(ctx, key, value, 0)
}

func (d *drawer) Update(_ context.Context, key string, value []byte, last uint64) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return 0, d.broken
	}
	if d.at[key] != last {
		return 0, errors.New("another revision")
	}
	d.last++
	d.values[key], d.at[key] = value, d.last
	return d.last, nil
}

func (d *drawer) Delete(_ context.Context, key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken == nil {
		delete(d.values, key)
		delete(d.at, key)
	}
	return d.broken
}

// A rack is presence services without bridges: a real catalog in memory, and what a
// test says of the servers.
type rack struct {
	*services.Catalog

	drawer  *drawer
	mu      sync.Mutex
	deeds   []string
	peers   map[string][]Server
	network *presence.Status
	trials  []Trial
	failed  error  // of Sync and Try
	first   func() // is done before a change, once
}

func (k *rack) Apply(ctx context.Context, o services.Order) ([]services.Outcome, error) {
	if first := k.first; first != nil && !o.DryRun {
		k.first = nil
		first()
	}
	return k.Catalog.Apply(ctx, o)
}

func newRack(t *testing.T, w *world, fixed ...services.Service) *rack {
	t.Helper()
	k := &rack{drawer: &drawer{values: map[string][]byte{}, at: map[string]uint64{}}, peers: map[string][]Server{}}
	k.Catalog = services.NewCatalog(services.Terms{
		Memory: k.drawer, People: w.People, Fixed: fixed, File: "/etc/presenced.yaml", Taken: map[string]string{"aes-cm1": "a source"}, Log: quiet(),
		Audit: func(_ context.Context, d services.Deed, do func() error) error {
			k.note(d.Who + " from " + d.From + ": " + d.What + " " + d.Service)
			return do()
		},
		Fit: func(s services.Service) []config.Problem {
			if s.Entity == "{mail}" {
				return []config.Problem{config.Wrong("entity", "does not fit")}
			}
			return nil
		},
	})
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *rack) note(deed string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deeds = append(k.deeds, deed)
}

func (k *rack) told() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	told := k.deeds
	k.deeds = nil
	return told
}

func (k *rack) fares(id string, servers ...Server) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.peers[id] = servers
}

func (k *rack) Services() ([]Service, error) {
	all, err := k.List()
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Service
	for _, r := range all {
		out = append(out, Service{Record: r, Network: k.network, Servers: k.peers[r.ID]})
	}
	return out, err
}

func (k *rack) Try(_ context.Context, draft services.Service, by audit.Actor) ([]Trial, error) {
	k.note(by.Who + " from " + by.From + ": try " + draft.Primary.Address())
	return k.trials, k.failed
}

func (k *rack) Sync(_ context.Context, id string, by audit.Actor) error {
	k.note(by.Who + " from " + by.From + ": sync " + id)
	return k.failed
}

// put has the catalog keep a service, whatever the pages say.
func (k *rack) put(t *testing.T, changes ...string) services.Service {
	t.Helper()
	s, err := services.Set(nil, changes)
	if err != nil {
		t.Fatal(err)
	}
	var revision uint64
	if old, err := k.Find(s.ID); err == nil {
		revision = old.Revision
	}
	if _, err := k.Apply(t.Context(), services.Order{Edits: []services.Edit{{ID: s.ID, Service: &s, Revision: revision}}, Force: true, Who: "test"}); err != nil {
		t.Fatal(err)
	}
	k.told()
	return s
}

var (
	admin    = signin.Identity{Account: "local:greta", Name: "Greta Hoffmann", Role: signin.Administrator}
	operator = signin.Identity{Account: "local:oskar", Name: "Oskar Nyman", Role: signin.Operator}
	visitor  = signin.Identity{Role: signin.Anyone}
)

// desktop is the pages of services, as seen by whoever a test says.
type desktop struct {
	t    *testing.T
	w    *world
	rack *rack
	site *Site
	mux  *http.ServeMux
}

func newDesktop(t *testing.T, fixed ...services.Service) *desktop {
	t.Helper()
	w := newWorld(person("ann", "Ann Able", "4001", "sales"), person("bob", "Bob Best", "4002", "sales"), person("cyd", "Cyd Cole", "4003"),
		presence.Person{ID: "dee", Name: "Dee <b>Dent</b>", Groups: []string{"sales"}})
	d := &desktop{t: t, w: w, rack: newRack(t, w, fixed...), mux: http.NewServeMux()}
	d.site = New(DefaultConfig(), w, w, Parts{Services: d.rack}, nil, quiet())
	d.site.zone = time.UTC
	d.site.places = nil
	d.site.servicesRoutes(d.mux)
	return d
}

func (d *desktop) ask(who signin.Identity, method, target string, form url.Values) *httptest.ResponseRecorder {
	d.t.Helper()
	r := httptest.NewRequestWithContext(signin.With(d.t.Context(), who), method, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.RemoteAddr = "192.0.2.9:1234"
	rec := httptest.NewRecorder()
	d.mux.ServeHTTP(rec, r)
	return rec
}

func (d *desktop) get(target string) string {
	d.t.Helper()
	rec := d.ask(admin, http.MethodGet, target, nil)
	if rec.Code != http.StatusOK {
		d.t.Fatalf("GET %s: %d\n%s", target, rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// fill gives what a browser sends of a page's form, with values changed.
func fill(page string, changes ...string) url.Values {
	form := url.Values{}
	for _, m := range regexp.MustCompile(`<input ([^>]*)>`).FindAllStringSubmatch(page, -1) {
		attr := func(name string) string {
			if v := regexp.MustCompile(name + `="([^"]*)"`).FindStringSubmatch(m[1]); v != nil {
				return html.UnescapeString(v[1])
			}
			return ""
		}
		if attr("name") != "" && (attr("type") != "checkbox" || strings.Contains(m[1], " checked")) {
			form.Set(attr("name"), attr("value"))
		}
	}
	for _, m := range regexp.MustCompile(`(?s)<select id="[^"]*" name="([^"]*)".*?<option selected>([^<]*)<`).FindAllStringSubmatch(page, -1) {
		form.Set(m[1], m[2])
	}
	for _, m := range regexp.MustCompile(`(?s)<textarea id="[^"]*" name="([^"]*)"[^>]*>\n(.*?)</textarea>`).FindAllStringSubmatch(page, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	for _, c := range changes {
		key, value, _ := strings.Cut(c, "=")
		if form.Set(key, value); value == "-" {
			form.Del(key)
		}
	}
	return form
}

// mainOf gives the words of a page.
func mainOf(body string) string {
	_, body, _ = strings.Cut(body, "<main")
	return regexp.MustCompile(`(?s)<[^>]*>|\s*\n\s*`).ReplaceAllString(body, " ")
}

// shown tells what of want a page lacks.
func (d *desktop) shown(about string, rec *httptest.ResponseRecorder, code int, want ...string) string {
	d.t.Helper()
	body := rec.Body.String()
	if rec.Code != code {
		d.t.Fatalf("%s: %d %s, want %d\n%s", about, rec.Code, rec.Header().Get("Location"), code, mainOf(body))
	}
	for _, text := range want {
		if !strings.Contains(body, text) {
			d.t.Errorf("%s: lacks %q\n%s", about, text, mainOf(body))
		}
	}
	return body
}

// Every key of a service stands in the form, once.
func TestServiceFormIsWhole(t *testing.T) {
	var in, keys []string
	for _, g := range serviceForm() {
		for _, f := range g.Fields {
			in = append(in, f.Key)
		}
	}
	for _, f := range services.Fields(new(services.Service)) {
		keys = append(keys, f.Key)
		if f.Doc == "" {
			t.Errorf("%s says nothing", f.Key)
		}
	}
	slices.Sort(in)
	slices.Sort(keys)
	if !slices.Equal(in, keys) {
		t.Errorf("the form has\n%v\na service has\n%v", in, keys)
	}
}

// Who may do what: of all pages and forms.
func TestServicesPermissions(t *testing.T) {
	d := newDesktop(t)
	d.rack.put(t, "id=hq", "primary.host=p1.example.com", "entity=sip:{tel}@example.com", "user=presenced", "password_file=/run/secret", "users=ann")
	patterns := map[string][3]int{ // administrator, operator, visitor
		"GET /services":                     {200, 200, 200},
		"GET /services/add":                 {200, 403, 403},
		"POST /services/add":                {422, 403, 403},
		"POST /services/check":              {200, 403, 403},
		"GET /services/presence/hq":         {200, 200, 200},
		"POST /services/presence/hq":        {422, 403, 403},
		"POST /services/presence/hq/sync":   {303, 403, 403},
		"GET /services/presence/hq/delete":  {200, 403, 403},
		"POST /services/presence/hq/delete": {409, 403, 403},
	}
	for pattern, codes := range patterns {
		method, target, _ := strings.Cut(pattern, " ")
		for i, who := range []signin.Identity{admin, operator, visitor} {
			form := url.Values{"primary.host": {""}}
			if rec := d.ask(who, method, target, form); rec.Code != codes[i] {
				t.Errorf("%s as %s: %d, want %d", pattern, who.Role, rec.Code, codes[i])
			}
		}
	}
	token := admin
	token.Token, token.Scopes = "t", signin.ReadHealth
	if rec := d.ask(token, "POST", "/services/presence/hq/sync", nil); rec.Code != 403 {
		t.Errorf("a token without the scope: %d", rec.Code)
	}
	for who, words := range map[*signin.Identity]string{&operator: "Only an administrator changes presence services; your role is operator.", &visitor: "Sign in to change this."} {
		for _, target := range []string{"/services", "/services/presence/hq"} {
			page := d.shown(target, d.ask(*who, "GET", target, nil), 200, words)
			for _, secret := range []string{"/run/secret", "Password file", "Add service", "/delete", "Test connection", "savebar"} {
				if strings.Contains(page, secret) {
					t.Errorf("%s as %s shows %s", target, who.Role, secret)
				}
			}
		}
	}
	if page := d.get("/services/presence/hq"); !strings.Contains(page, "/run/secret") {
		t.Error("an administrator does not see where the password is")
	}
	for _, target := range []string{"/services/presence/none", "/services/presence/none/delete"} {
		if rec := d.ask(admin, "GET", target, nil); rec.Code != 404 {
			t.Errorf("%s: %d", target, rec.Code)
		}
	}
	for _, target := range []string{"/services/presence/none", "/services/presence/none/sync", "/services/presence/none/delete", "/services/check?edit=none"} {
		if rec := d.ask(admin, "POST", target, nil); rec.Code != 404 {
			t.Errorf("POST %s: %d", target, rec.Code)
		}
	}
}

// A service is added, edited and deleted, each after its preview.
func TestServicesByForms(t *testing.T) {
	d := newDesktop(t)
	d.shown("nothing yet", d.ask(admin, "GET", "/services", nil), 200, "No presence service yet", "Add service")
	empty := d.get("/services/add")
	d.shown("empty", d.ask(admin, "POST", "/services/add", fill(empty, "do=preview")), 422,
		"3 things are not right", `<a href="#f-primary-host">Primary Host</a>: a host is needed`, `<span>a host is needed</span>`, `aria-invalid="true"`)
	form := fill(empty, "id=hq", "primary.name=Headquarters", "primary.host=p1.example.com", "entity=sip:{tel}@example.com", "users=ann\r\ngroup:sales\r\nstranger", "publish_interval=90", "do=preview", "cisco=true")
	seen := d.shown("preview", d.ask(admin, "POST", "/services/add", form), 200,
		"Saving overwrites what p1.example.com:5060 shows of 2 people", "<b>2</b> added", "<b>0</b> removed", "sip:4001@example.com", "Bob Best",
		"1 person is named and has no such address", "Nobody in the directory is: <code>stranger</code>", "Overwrite the data of 2 people at p1.example.com:5060")
	if got := d.rack.told(); len(got) > 0 {
		t.Fatalf("a preview did %v", got)
	}
	save := fill(seen, "do=save")
	if save.Get("users") != "ann\ngroup:sales\nstranger" || save.Get("cisco") != "true" || save.Get("publish_interval") != "90" {
		t.Errorf("what was typed is lost: %v", save)
	}
	d.shown("without the box", d.ask(admin, "POST", "/services/add", save), 422, "tick the box below")
	save.Set("overwrite", "yes")
	changed := maps.Clone(save)
	changed.Set("users", "everyone")
	d.shown("another form than was previewed", d.ask(admin, "POST", "/services/add", changed), 409, "does not do what the page said any more", "<b>3</b> added")
	d.w.join(person("eve", "Eve East", "4005", "sales"))
	again := d.shown("another directory", d.ask(admin, "POST", "/services/add", save), 409, "does not do what the page said any more", "<b>3</b> added")
	d.rack.first = func() { d.w.join(person("fay", "Fay Ford", "4006", "sales")) } // in the very last moment
	again = d.shown("another directory", d.ask(admin, "POST", "/services/add", fill(again, "do=save", "overwrite=yes")), 409, "does not do what the page said any more", "<b>4</b> added")
	rec := d.ask(admin, "POST", "/services/add", fill(again, "do=save", "overwrite=yes"))
	if rec.Code != 303 || rec.Header().Get("Location") != "/services/presence/hq" {
		t.Fatalf("save: %d %s", rec.Code, rec.Body)
	}
	if got := d.rack.told(); !slices.Equal(got, []string{"local:greta from page: service add hq"}) {
		t.Errorf("the audit trail has %q", got)
	}
	one, err := d.rack.Find("hq")
	if err != nil || one.PublishInterval != 90*time.Second || !one.Cisco || !one.DisplayName || one.Primary.Name != "Headquarters" || len(one.Users) != 3 {
		t.Fatalf("%+v %v", one, err)
	}
	d.shown("a second one of that name", d.ask(admin, "POST", "/services/add", form), 422, "there is a presence service hq already")
	d.shown("list", d.ask(admin, "GET", "/services", nil), 200, `<th scope="row"><a id="open-hq" href="/services/presence/hq">hq</a><small>Headquarters, UDP</small>`, "90 s", "1 service, 4 users, 0 publications held.")

	page := d.get("/services/presence/hq")
	d.shown("nothing changed", d.ask(admin, "POST", "/services/presence/hq", fill(page, "do=preview")), 303)
	d.shown("no data touched", d.ask(admin, "POST", "/services/presence/hq", fill(page, "do=preview", "publish_interval=600")), 200, "Saving changes nobody's data")
	seen = d.shown("fewer", d.ask(admin, "POST", "/services/presence/hq", fill(page, "do=preview", "users=ann", "id=other", "display_name=-")), 200,
		"<b>3</b> removed", "<b>1</b> overwritten", "Remove 3 of 4 people, more than the 20 % that this service allows at once")
	d.shown("not forced", d.ask(admin, "POST", "/services/presence/hq", fill(seen, "do=save", "overwrite=yes")), 422, "More people would be removed")
	seen = d.shown("moved", d.ask(admin, "POST", "/services/presence/hq", fill(seen, "do=preview", "primary.host=p2.example.com")), 200,
		"Everybody is withdrawn from p1.example.com:5060", "p2.example.com:5060 shows of 4 people")
	d.rack.put(t, "id=hq", "primary.host=p3.example.com", "entity=sip:{tel}@example.com", "users=ann")
	d.shown("changed meanwhile", d.ask(admin, "POST", "/services/presence/hq", fill(seen, "do=save", "overwrite=yes", "force=yes")), 409,
		"Somebody else changed hq since you opened this page", `value="p2.example.com"`)
	page = d.get("/services/presence/hq")
	seen = d.shown("again", d.ask(admin, "POST", "/services/presence/hq", fill(page, "do=preview", "users=cyd")), 200)
	d.shown("forced", d.ask(admin, "POST", "/services/presence/hq", fill(seen, "do=save", "overwrite=yes", "force=yes")), 303)
	if one, _ := d.rack.Find("hq"); !slices.Equal(one.Users, []string{"cyd"}) || one.ID != "hq" {
		t.Errorf("%+v", one)
	}

	d.rack.told()
	ask := d.get("/services/presence/hq/delete")
	for _, text := range []string{"This ends publishing to <code>p3.example.com:5060</code>", "<b>1</b> person withdrawn now", "Cyd Cole", "Type <b>hq</b>"} {
		if !strings.Contains(ask, text) {
			t.Errorf("the question lacks %s", text)
		}
	}
	d.shown("another identifier", d.ask(admin, "POST", "/services/presence/hq/delete", fill(ask, "confirm=qh")), 422, "That is not the identifier: type hq.")
	d.shown("no plan", d.ask(admin, "POST", "/services/presence/hq/delete", fill(ask, "confirm=hq", "plan=x")), 409, "This is how it is now")
	if _, err := d.rack.Find("hq"); err != nil {
		t.Fatal("it was deleted")
	}
	d.shown("delete", d.ask(admin, "POST", "/services/presence/hq/delete", fill(ask, "confirm=hq")), 303)
	if got := d.rack.told(); !slices.Equal(got, []string{"local:greta from page: service delete hq"}) {
		t.Errorf("the audit trail has %q", got)
	}
	d.shown("twice", d.ask(admin, "POST", "/services/presence/hq/delete", fill(ask, "confirm=hq")), 404)
}

// What is wrong stands beside its field, in the page and for the script.
func TestServiceProblems(t *testing.T) {
	d := newDesktop(t)
	d.rack.put(t, "id=hq", "primary.host=p1.example.com", "entity=sip:{tel}@example.com", "users=ann")
	empty := d.get("/services/add")
	good := []string{"id=new", "primary.host=p9.example.com", "entity=sip:{tel}@example.com", "do=preview"}
	for _, c := range []struct{ change, key, want string }{
		{"id=Upper", "id", "lower-case letters"},
		{"id=aes-cm1", "id", "is the name of a source"},
		{"id=hq", "id", "there is a presence service hq already"},
		{"primary.port=many", "primary.port", "is no whole number"},
		{"primary.port=70000", "primary.port", "not between 0 and 65535"},
		{"secondary.host=p9.example.com", "secondary.host", "same server as primary"},
		{"secondary.name=x", "secondary.host", "a host is needed"},
		{"publish_interval=5", "publish_interval", "not between"},
		{"publish_interval=soon", "publish_interval", "is no duration"},
		{"transport=carrier-pigeon", "transport", "none of udp"},
		{"entity=sip:x@y", "entity", "names no subject"},
		{"entity={mail}", "entity", "does not fit"},
		{"user=x", "user", "go together"},
		{"users=ann\nann", "users", "entry 2: "},
		{"users=ann\x01", "users", "control characters"},
		{"primary.name=" + strings.Repeat("x", 200), "primary.name", "longer than 100 bytes"},
		{"tls.min_version=4", "", ""}, // it is not looked at without TLS
	} {
		form := fill(empty, append(slices.Clone(good), c.change)...)
		rec := d.ask(admin, "POST", "/services/check", form)
		if c.key == "" {
			d.shown(c.change, rec, 200, `"problems": {}`)
			continue
		}
		d.shown(c.change, rec, 200, strconv.Quote(c.key), c.want)
		d.shown(c.change, d.ask(admin, "POST", "/services/add", form), 422, `href="#`+fieldDOM(c.key)+`"`)
	}
	d.shown("nothing wrong", d.ask(admin, "POST", "/services/check", fill(empty, append(slices.Clone(good), "users=everyone")...)), 200,
		`"problems": {}`, "3 added, 0 removed, 0 overwritten, 0 stay as they are. 1 person is named and has no such address")
	d.shown("nothing changed", d.ask(admin, "POST", "/services/check?edit=hq", fill(d.get("/services/presence/hq"))), 200, "Nothing is changed yet.")

	for name, text := range map[string]string{"html": `"><script>alert(1)</script>`, "long": strings.Repeat("é", 5000), "bytes": "\xff\x00\r\n"} {
		form := fill(empty, good...)
		for _, g := range serviceForm() {
			for _, f := range g.Fields {
				form.Set(f.Key, text)
			}
		}
		for _, do := range []string{"preview", "save", "test", "find", "\x00"} {
			form.Set("do", do)
			form.Set("find", text)
			rec := d.ask(admin, "POST", "/services/add", form)
			if page := rec.Body.String(); rec.Code != 422 && rec.Code != 200 || strings.Contains(page, "<script>alert") {
				t.Errorf("%s %q: %d\n%s", name, do, rec.Code, page)
			}
		}
	}
	if rec := d.ask(admin, "POST", "/services/add", url.Values{"users": {strings.Repeat("x", maxServiceForm)}}); rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large form: %d", rec.Code)
	}
	r := httptest.NewRequestWithContext(signin.With(t.Context(), admin), "POST", "/services/add", strings.NewReader("a=%zz"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	if d.mux.ServeHTTP(rec, r); rec.Code != 400 {
		t.Errorf("a broken form: %d", rec.Code)
	}
}

// The store or the audit trail does not take a change, and the page says so.
func TestServicesAway(t *testing.T) {
	d := newDesktop(t)
	d.rack.put(t, "id=hq", "primary.host=p1.example.com", "entity=sip:{tel}@example.com", "users=ann")
	page := d.get("/services/presence/hq")
	seen := d.shown("preview", d.ask(admin, "POST", "/services/presence/hq", fill(page, "do=preview", "users=ann\nbob")), 200)
	ask := d.get("/services/presence/hq/delete")
	d.rack.drawer.broken = errors.New("disk full")
	d.shown("save", d.ask(admin, "POST", "/services/presence/hq", fill(seen, "do=save", "overwrite=yes")), 503, "Nothing was changed", "disk full", "bob</textarea>")
	d.shown("delete", d.ask(admin, "POST", "/services/presence/hq/delete", fill(ask, "confirm=hq")), 503, "Nothing was changed")
	d.rack.failed = errors.New("the trail is away")
	d.shown("sync", d.ask(admin, "POST", "/services/presence/hq/sync", nil), 503, "Nothing was changed: the trail is away.")
	d.shown("test", d.ask(admin, "POST", "/services/presence/hq", fill(page, "do=test")), 503, "the trail is away")
	if err := d.rack.Load(t.Context()); err == nil {
		t.Fatal("it can be read")
	}
	d.shown("list", d.ask(admin, "GET", "/services", nil), 200, "The list is not complete.", "could not be read yet")
	d.rack.Catalog = services.NewCatalog(services.Terms{Memory: d.rack.drawer, People: d.w.People, Log: quiet()})
	d.shown("one", d.ask(admin, "POST", "/services/presence/hq", fill(page, "do=save")), 503, "could not be read yet")
	d.shown("none", d.ask(admin, "POST", "/services/add", fill(d.get("/services/add"), "id=x", "primary.host=x", "entity={sip}")), 503, "could not be read yet")
}

// A service of the configuration can be tried and published again, nothing else.
func TestFixedService(t *testing.T) {
	lab, _ := services.Set(nil, []string{"id=lab", "primary.host=lab.example.com", "entity={sip}", "users=everyone"})
	d := newDesktop(t, lab)
	page := d.shown("page", d.ask(admin, "GET", "/services/presence/lab", nil), 200, "It stands in the configuration file", "<fieldset disabled>", "Test connection", "Synchronise now")
	if strings.Contains(page, "savebar") || strings.Contains(page, "/delete") {
		t.Error("it can be changed")
	}
	d.shown("list", d.ask(admin, "GET", "/services", nil), 200, "in the configuration file", "Show lab")
	d.rack.trials = []Trial{{"lab.example.com:5060", false, "nothing answers <OPTIONS>"}}
	d.shown("test", d.ask(admin, "POST", "/services/presence/lab", url.Values{"do": {"test"}, "primary.host": {"evil.example"}}), 200, "Does not work", "nothing answers &lt;OPTIONS&gt;")
	d.shown("sync", d.ask(admin, "POST", "/services/presence/lab/sync", nil), 303)
	if got := d.rack.told(); !slices.Equal(got, []string{"local:greta from page: try lab.example.com:5060", "local:greta from page: sync lab"}) {
		t.Errorf("%q", got)
	}
	d.shown("edit", d.ask(admin, "POST", "/services/presence/lab", url.Values{"do": {"save"}, "users": {"ann"}}), 422, "edit it there")
	d.shown("delete", d.ask(admin, "GET", "/services/presence/lab/delete", nil), 422, "edit it there")
	d.shown("delete", d.ask(admin, "POST", "/services/presence/lab/delete", url.Values{"confirm": {"lab"}}), 422, "edit it there")
}

// The form helps to find people, and tries what it holds before anything is saved.
func TestServiceFormHelps(t *testing.T) {
	d := newDesktop(t)
	empty := d.get("/services/add")
	if !strings.Contains(empty, `value="group:sales"`) || strings.Contains(empty, "Ann Able") {
		t.Error("at first the groups are offered, and nobody else")
	}
	form := fill(empty, "do=preview", "find=dee", "users=ann\n", "primary.host=p1")
	found := d.shown("find", d.ask(admin, "POST", "/services/add", form), 200, `name="add" value="dee"`, "Dee &lt;b&gt;Dent", `value="p1"`)
	if strings.Contains(found, "sales") || strings.Contains(found, "not right") {
		t.Errorf("found more:\n%s", found)
	}
	added := d.shown("add", d.ask(admin, "POST", "/services/add", fill(found, "add=dee")), 200)
	if got := fill(added).Get("users"); got != "ann\ndee" {
		t.Errorf("users are %q", got)
	}
	d.shown("nobody", d.ask(admin, "POST", "/services/add", fill(empty, "do=find", "find=zzz")), 200, "Nobody, and no group, is found for “zzz”")
	for i := range 50 {
		d.w.join(person(presence.ID(fmt.Sprintf("x%d", i)), fmt.Sprintf("Xaver %d", i), strconv.Itoa(5000+i)))
	}
	d.shown("many", d.ask(admin, "POST", "/services/add", fill(empty, "do=find", "find=xaver")), 200, "There are more")

	d.rack.trials = []Trial{{"p1:5060", true, "answers, and takes publications"}}
	form = fill(empty, "do=test", "id=hq", "primary.host=p1", "entity={sip}")
	d.shown("test", d.ask(admin, "POST", "/services/add", form), 200, "Works", "answers, and takes publications")
	d.shown("test", d.ask(admin, "POST", "/services/add", fill(empty, "do=test")), 422, "a host is needed")
	if got := d.rack.told(); len(got) != 1 || !strings.HasSuffix(got[0], "try p1:5060") {
		t.Errorf("%q", got)
	}
}

// How servers fare, in words and marks.
func TestServiceStatus(t *testing.T) {
	d := newDesktop(t)
	d.rack.put(t, "id=hq", "primary.host=p1.example.com", "secondary.host=p2.example.com", "entity=sip:{tel}@example.com", "users=everyone")
	now := time.Now()
	health := func(s presence.Status) {
		d.w.health = []aggregator.Health{{Name: "hq", Kind: aggregator.KindBridge, Status: s, NextTry: now.Add(time.Minute)}}
	}
	for _, c := range []struct {
		about   string
		servers []Server
		status  presence.Status
		want    []string
	}{
		{"just begun", nil, presence.Status{Phase: presence.PhaseConnecting}, []string{"Primary: Not asked yet", "Secondary: Not asked yet", "Connecting"}},
		{"elsewhere", nil, presence.Status{Phase: presence.PhaseStandby, Detail: "runs on ps-b"}, []string{"Primary: Known to another machine", "runs on ps-b"}},
		{"live", []Server{{"p1.example.com:5060", true, 3, now, ""}, {"p2.example.com:5060", false, 0, now, ""}}, presence.Status{Phase: presence.PhaseLive, Done: 3, Total: 3}, []string{
			"Primary: In use", "Secondary: Standing by", "<b>3</b> of 3 publications held", "3 held",
		}},
		{"failed over", []Server{{"p1.example.com:5060", false, 0, now, "no answer"}, {"p2.example.com:5060", true, 3, now, ""}, {"old:5060", false, 2, now, ""}}, presence.Status{
			Phase: presence.PhaseDegraded, Detail: "Publishing at p2.", LastError: "timeout", LastErrorAt: now, Unmonitored: map[string]string{"dee": "no tel subject"},
		}, []string{"Primary: Does not answer", "Secondary: In use for the primary", "Not in the form any more", "2 being withdrawn", "Publishing at p2.", "timeout", "1 cannot be published", "no tel subject", "Next attempt"}},
	} {
		d.rack.fares("hq", c.servers...)
		if c.about == "live" {
			d.rack.network = &presence.Status{Phase: presence.PhaseSyncing, Detail: "Subscribing.", Done: 1, Total: 3}
			c.want = append(c.want, "Network presence: syncing", "Subscribing.", "1 of 3")
		}
		health(c.status)
		d.shown(c.about, d.ask(visitor, "GET", "/services/presence/hq", nil), 200, c.want...)
		list := d.ask(visitor, "GET", "/services", nil).Body.String()
		if troubled := c.about == "failed over"; strings.Contains(list, `class="note warn" role="note"`) != troubled {
			t.Errorf("%s: the list has a note: %v\n%s", c.about, !troubled, list)
		}
	}
}
