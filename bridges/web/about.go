package web

import (
	"html/template"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/bridges/web/signin"
	"presenced/docs"
)

// An aboutView is the body of the page about the product.
type aboutView struct {
	Rows    []labelled
	Started moment
	Stores  []partView
	Support template.HTML
	Modules []labelled
	Count   string
	Docs    []choice
}

// A docView is the body of the page of one document.
type docView struct {
	Title string
	Text  template.HTML
	Docs  []choice
}

func (s *Site) aboutRoutes(mux *http.ServeMux) {
	s.offer(place{Section: administration, Href: "/about", Icon: "about", Text: "About", Page: "about", Needs: signin.ReadStates})
	mux.Handle("GET /about", s.require(signin.ReadStates, s.aboutPage))
	mux.Handle("GET /docs/{name}", s.require(signin.ReadStates, s.docPage))
}

func (s *Site) aboutPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(r, "about", "About", url.Values{"rows": {"none"}})
	now := time.Now()
	view := &aboutView{Started: momentOf(s.started, now, s.zone), Docs: documents("")}
	add := func(label, value string) {
		if value != "" {
			view.Rows = append(view.Rows, labelled{label, value})
		}
	}
	add("Version", s.parts.Version)
	if info, ok := debug.ReadBuildInfo(); ok {
		built := map[string]string{}
		for _, set := range info.Settings {
			built[set.Key] = set.Value
		}
		revision := built["vcs.revision"]
		if built["vcs.modified"] == "true" {
			revision += ", changed"
		}
		add("Revision", revision)
		add("Committed", built["vcs.time"])
		add("Go", info.GoVersion)
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			view.Modules = append(view.Modules, labelled{m.Path, m.Version})
		}
	}
	add("System", runtime.GOOS+"/"+runtime.GOARCH)
	view.Count = plural(len(view.Modules), "module", "modules")
	// How the parts fare is for those who may see Sources.
	if signin.From(r.Context()).May(signin.ReadHealth) {
		for _, h := range s.desk.Health() {
			if h.Kind == aggregator.KindStore {
				view.Stores = append(view.Stores, s.partOf(&h, false))
			}
		}
	}
	support, _ := docs.Read("support")
	_, support, _ = strings.Cut(support, "\n") // the title stands on the panel
	view.Support = markdown(support)
	p.Body = view
	s.show(w, r, http.StatusOK, &p)
}

func (s *Site) docPage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	text, ok := docs.Read(name)
	if !ok || !slices.Contains(docs.Names(), name) {
		s.missingPage(w, r)
		return
	}
	title, text, _ := strings.Cut(text, "\n")
	title = strings.TrimLeft(title, "# ")
	p := s.newPage(r, "doc", title, url.Values{"rows": {"none"}})
	p.Body = &docView{Title: title, Text: markdown(text), Docs: documents(name)}
	s.show(w, r, http.StatusOK, &p)
}

// documents gives the address of each document, with the one that is shown chosen.
func documents(shown string) []choice {
	var all []choice
	for _, name := range docs.Names() {
		text := sentence(name)
		if name == "api" {
			text = "API"
		}
		all = append(all, choice{Value: "/docs/" + name, Text: text, Selected: name == shown})
	}
	return all
}
