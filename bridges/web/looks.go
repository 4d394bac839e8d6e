package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"
)

//go:embed templates
var templates embed.FS

// looks holds the templates, and the version of all that browsers keep.
type looks struct {
	pages   map[string]*template.Template
	version string
}

// newLooks parses the templates; a mistake in one is a mistake in the program, and panics.
func newLooks() *looks {
	shared := template.Must(template.New("").ParseFS(templates, "templates/layout.html", "templates/marks.html", "templates/row.html", "templates/summary.html"))
	l := &looks{pages: map[string]*template.Template{"": shared}}
	for _, name := range []string{"board", "person", "sources", "missing"} {
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
	Name    string // of the template, and data-page for the script
	Title   string
	Site    string // Config.Title
	Zone    string
	Version string
	Cursor  string // where the page's stream begins
	Watch   string // the query of the page's stream
	Parts   string // how many sources, bridges and stores there are
	Body    any
}

func (s *Site) newPage(name, title string, watch url.Values) page {
	return page{
		Name: name, Title: title, Site: s.cfg.Title, Zone: time.Now().In(s.zone).Format("MST"), Version: s.looks.version, Cursor: s.feed.cursor(),
		Watch: watch.Encode(), Parts: number(len(s.desk.Health())),
	}
}

func (s *Site) show(w http.ResponseWriter, r *http.Request, code int, p *page) {
	var b bytes.Buffer
	if err := s.looks.pages[p.Name].ExecuteTemplate(&b, "layout", p); err != nil {
		s.log.ErrorContext(r.Context(), "a page could not be written", "page", p.Name, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	s.write(w, r, b.Bytes())
}

func (s *Site) missingPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage("missing", "Not found", url.Values{"rows": {"none"}})
	s.show(w, r, http.StatusNotFound, &p)
}
