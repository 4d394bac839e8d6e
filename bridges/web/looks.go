package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"presenced/bridges/web/signin"
)

//go:embed templates
var templates embed.FS

// looks holds the templates, and all that browsers keep with its version.
type looks struct {
	pages   map[string]*template.Template
	assets  map[string]asset
	version string
}

// newLooks parses the templates; a mistake in one is a mistake in the program, and panics.
func newLooks() *looks {
	shared := template.Must(template.New("").ParseFS(templates, "templates/layout.html", "templates/marks.html", "templates/row.html", "templates/summary.html", "templates/part.html", "templates/byhand.html", "templates/watchers.html"))
	l := &looks{pages: map[string]*template.Template{"": shared}, assets: map[string]asset{}}
	for _, name := range []string{"board", "person", "me", "services", "services-edit", "services-delete", "sources", "source", "policy", "access", "audit", "about", "doc", "missing"} {
		page := template.Must(shared.Clone())
		l.pages[name] = template.Must(page.ParseFS(templates, "templates/"+name+".html"))
	}
	sum := sha256.New()
	for _, files := range []embed.FS{templates, static} {
		for _, dir := range []string{"templates", "static"} {
			names, _ := fs.Glob(files, dir+"/*") //nolint:errcheck // the pattern is right
			for _, name := range names {
				data, _ := fs.ReadFile(files, name) //nolint:errcheck // it was just listed
				sum.Write(data)
				if dir == "static" {
					l.assets[path.Base(name)] = newAsset(data)
				}
			}
		}
	}
	l.version = hex.EncodeToString(sum.Sum(nil)[:8])
	return l
}

// html runs one of the shared templates. It fails only where the template and
// its data do not fit, which tests find; a part that cannot be written is empty.
func (l *looks) html(name string, data any) string {
	var b strings.Builder
	if err := l.pages[""].ExecuteTemplate(&b, name, data); err != nil {
		return ""
	}
	return b.String()
}

// A page is what the layout shows around every page.
type page struct {
	Name     string // of the template, and data-page for the script
	Title    string
	Site     string // Config.Title
	Zone     string
	Version  string
	Cursor   string // where the page's stream begins
	Watch    string // the query of the page's stream
	Who      signin.Identity
	SignIn   bool   // there is a way to
	Here     string // the address of the page, to come back to
	Sections []section
	Done     string // what was done, told once
	Bad      string // why nothing was done
	Body     any
}

// newPage makes what the layout shows to who asks. A page without a stream of its own
// watches {"rows": {"none"}}.
func (s *Site) newPage(r *http.Request, name, title string, watch url.Values) page {
	who := signin.From(r.Context())
	return page{
		Name: name, Title: title, Site: s.cfg.Title, Zone: time.Now().In(s.zone).Format("MST"), Version: s.looks.version, Cursor: s.feed.cursor(),
		Watch: watch.Encode(), Who: who, SignIn: s.parts.SignIn != nil, Here: r.URL.RequestURI(), Sections: s.sections(who, name),
	}
}

// A place is an entry of the navigation.
type place struct {
	Section    string // everyone or administration
	Under      string // the branch that it stands on, such as Services; empty: none
	Href       string
	Icon, Text string
	Page       string            // the template where it is the current one, as it is where the name of another begins with it and a hyphen
	Needs      signin.Permission // to see it; 0: somebody who signed in
	Count      func() int        // shown beside it; nil: nothing
}

// The sections of the navigation.
const (
	everyone       = "Everyone"
	administration = "Administration"
)

// offer adds an entry to the navigation, while the routes are made.
func (s *Site) offer(p place) { s.places = append(s.places, p) }

// A section is one heading of the navigation and what is below it.
type section struct {
	Title   string
	Entries []entry
}

type entry struct {
	place

	Number  string
	Current bool
	Leaves  []entry // of a branch
}

// sections gives the navigation as far as it leads who asks somewhere.
func (s *Site) sections(who signin.Identity, name string) []section {
	var all []section
	for _, p := range s.places {
		if p.Needs != 0 && !who.May(p.Needs) || p.Needs == 0 && who.Account == "" {
			continue
		}
		if len(all) == 0 || all[len(all)-1].Title != p.Section {
			all = append(all, section{Title: p.Section})
		}
		e := entry{place: p, Current: p.Page == name || strings.HasPrefix(name, p.Page+"-")}
		if p.Count != nil {
			e.Number = number(p.Count())
		}
		in := &all[len(all)-1].Entries
		if p.Under != "" {
			if n := len(*in); n == 0 || (*in)[n-1].Text != p.Under || (*in)[n-1].Href != "" {
				*in = append(*in, entry{place: place{Text: p.Under, Icon: "services"}})
			}
			in = &(*in)[len(*in)-1].Leaves
		}
		*in = append(*in, e)
	}
	return all
}

// done answers a form: the browser goes on to an address of this site, where the
// layout tells once what was done.
func (s *Site) done(w http.ResponseWriter, r *http.Request, address, told string) {
	http.SetCookie(w, s.toldCookie(base64.RawURLEncoding.EncodeToString([]byte(told)), 60))
	http.Redirect(w, r, address, http.StatusSeeOther) //nolint:gosec // the caller's, not the request's
}

const (
	cookieTold = "presenced-told"
	maxTold    = 1024 // bytes of the cookie
)

func (s *Site) toldCookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: cookieTold, Value: value, Path: "/", MaxAge: age, Secure: s.parts.Certificate != nil, HttpOnly: true, SameSite: http.SameSiteStrictMode} //nolint:gosec // it is text to show, and plain HTTP is for loopback
}

// told gives what done told the page before, and forgets it.
func (s *Site) told(w http.ResponseWriter, r *http.Request) string {
	c, err := r.Cookie(cookieTold)
	if err != nil || len(c.Value) > maxTold {
		return ""
	}
	http.SetCookie(w, s.toldCookie("", -1))
	text, _ := base64.RawURLEncoding.DecodeString(c.Value) //nolint:errcheck // what is none tells nothing
	return string(text)
}

func (s *Site) show(w http.ResponseWriter, r *http.Request, code int, p *page) {
	if p.Bad == "" {
		p.Done = s.told(w, r)
	}
	var b bytes.Buffer
	if err := s.looks.pages[p.Name].ExecuteTemplate(&b, "layout", p); err != nil {
		s.log.ErrorContext(r.Context(), "a page could not be written", "page", p.Name, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	data := s.squeeze(w, r, b.Bytes())
	w.WriteHeader(code)
	s.write(w, r, data)
}

func (s *Site) missingPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(r, "missing", "Not found", url.Values{"rows": {"none"}})
	s.show(w, r, http.StatusNotFound, &p)
}
