package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"presenced/aggregator"
	"presenced/aggregator/audit"
	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/web/signin"
)

// Services is the presence services at work. It must be safe for concurrent use; what
// changes something leaves a line in the audit trail first.
type Services interface {
	// Services gives all, those of the configuration too, by identifier, and how they
	// fare. It does not block. The error says that others are not known.
	Services() ([]Service, error)
	// Apply makes an order, or tells what it would do, as services.Catalog does.
	Apply(ctx context.Context, o services.Order) ([]services.Outcome, error)
	// Try connects to the servers of a service that may be a draft that passed Check, and
	// gives what came of it for each, within twelve seconds; services.ErrUnfit.
	Try(ctx context.Context, draft services.Service, by audit.Actor) ([]Trial, error)
	// Sync publishes everybody of a service again; services.ErrNone.
	Sync(ctx context.Context, id string, by audit.Actor) error
}

// A Service is a presence service, and how its servers fare.
type Service struct {
	services.Record
	Network *presence.Status // of the subscriptions there; nil: there are none
	Servers []Server         // the preferred one first; then those that hold something still and are not in the form any more
}

// A Server is how a presence server fares.
type Server struct {
	Address string
	Active  bool // what is new is published here
	Held    int  // publications there
	Heard   time.Time
	Problem string // why it does not answer; empty: it does, or was not asked yet
}

// A Trial is what came of connecting to a presence server.
type Trial struct {
	Address string
	Works   bool
	Words   string // what is wrong, and what to do; or how far it was tried
}

// The addresses. The list stands above them, so that no identifier can be in the way.
const (
	pathServices   = "/services"
	pathService    = "/services/presence/"
	pathAddService = "/services/add"
)

func servicePath(id string) string { return pathService + url.PathEscape(id) }

func (s *Site) servicesRoutes(mux *http.ServeMux) {
	if s.parts.Services == nil {
		return
	}
	s.offer(place{
		Section: administration, Under: "Services", Href: pathServices, Icon: "presence", Text: "Presence", Page: "services", Needs: signin.ReadHealth,
		Count: func() int { all, _ := s.parts.Services.Services(); return len(all) }, //nolint:errcheck // those that are known
	})
	mux.Handle("GET "+pathServices, s.require(signin.ReadHealth, s.servicesPage))
	mux.Handle("GET "+pathAddService, s.require(signin.AdminServices, s.addServicePage))
	mux.Handle("POST "+pathAddService, s.require(signin.AdminServices, s.changeService))
	mux.Handle("POST "+pathServices+"/check", s.require(signin.AdminServices, s.checkService))
	mux.Handle("GET "+pathService+"{id}", s.require(signin.ReadHealth, s.servicePage))
	mux.Handle("POST "+pathService+"{id}", s.require(signin.AdminServices, s.changeService))
	mux.Handle("POST "+pathService+"{id}/sync", s.require(signin.AdminServices, s.syncService))
	mux.Handle("GET "+pathService+"{id}/delete", s.require(signin.AdminServices, s.deleteServicePage))
	mux.Handle("POST "+pathService+"{id}/delete", s.require(signin.AdminServices, s.deleteService))
}

// A servicesView is the body of the list.
type servicesView struct {
	Problem string // why the list is not complete
	Edits   bool
	Locked  string // why nothing can be changed here; empty: it can
	Notes   []serviceNote
	Rows    []serviceRow
	Total   string
}

type serviceNote struct {
	ID, Path, Text string
	Bad            bool
	Next           moment
}

type serviceRow struct {
	ID, Path, Kind     string
	Fixed              bool
	Primary, Secondary *serverView // Secondary is nil where there is none
	Subscribe, Publish string
	Users, Held        string
	LastError          string
	LastErrorAt        moment
}

// A serverView is a server of a service: a mark, where it is, and how it fares.
type serverView struct {
	S, Name, Address, Words string
	Problem                 string
	Held                    string
	Heard                   moment
}

func (s *Site) servicesPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(r, "services", "Presence services", url.Values{"rows": {"none"}})
	view := &servicesView{Locked: lockedText(r)}
	view.Edits = view.Locked == ""
	all, err := s.parts.Services.Services()
	if err != nil {
		view.Problem = err.Error()
	}
	now, people, users, held := time.Now(), s.desk.People(), 0, 0
	for i := range all {
		one := &all[i]
		h := s.serviceHealth(one.ID)
		n := one.Count(people)
		view.Rows = append(view.Rows, s.serviceRow(one, h, n, now))
		users += n
		held += one.held()
		if note, troubled := s.serviceNote(one.ID, h, now); troubled {
			view.Notes = append(view.Notes, note)
		}
	}
	view.Total = plural(len(all), "service", "services") + ", " + plural(users, "user", "users") + ", " + plural(held, "publication", "publications") + " held."
	p.Body = view
	s.show(w, r, http.StatusOK, &p)
}

func (s *Site) serviceRow(one *Service, h *aggregator.Health, users int, now time.Time) serviceRow {
	row := serviceRow{
		ID: one.ID, Path: servicePath(one.ID), Kind: strings.ToUpper(one.Transport), Fixed: one.Revision == 0,
		Primary: s.serverView(one, &one.Primary, h, now), Subscribe: seconds(one.SubscribeInterval), Publish: seconds(one.PublishInterval),
		Users: number(users), Held: number(one.held()), LastError: h.LastError, LastErrorAt: momentOf(h.LastErrorAt, now, s.zone),
	}
	if h.Phase == presence.PhaseStandby {
		row.Held = "–"
	}
	if one.Transport == "auto" {
		row.Kind = "by DNS"
	}
	if one.Primary.Name != "" {
		row.Kind = one.Primary.Name + ", " + row.Kind
	}
	if one.Secondary.Host != "" {
		row.Secondary = s.serverView(one, &one.Secondary, h, now)
	}
	return row
}

// serviceHealth gives how the bridge of a service fares; it is never nil.
func (s *Site) serviceHealth(id string) *aggregator.Health {
	for _, h := range s.desk.Health() {
		if h.Name == id && h.Kind == aggregator.KindBridge {
			return &h
		}
	}
	return &aggregator.Health{Name: id, Status: presence.Status{Phase: presence.PhaseConnecting}}
}

// serviceNote says what is wrong with a service, if anything is.
func (s *Site) serviceNote(id string, h *aggregator.Health, now time.Time) (serviceNote, bool) {
	switch h.Phase {
	case presence.PhaseDegraded, presence.PhaseStale:
	case presence.PhaseConnecting:
		if h.LastError == "" { // it has just begun
			return serviceNote{}, false
		}
	default:
		return serviceNote{}, false
	}
	t := troubleOf(h, func(at time.Time) moment { return momentOf(at, now, s.zone) })
	text := t.What
	if t.More != "" {
		text = strings.TrimSuffix(text, ".") + " (" + strings.TrimSuffix(t.More, ".") + ")."
	}
	return serviceNote{id, servicePath(id), text, h.Phase != presence.PhaseDegraded, t.Next}, true
}

func (s *Service) held() int {
	n := 0
	for i := range s.Servers {
		n += s.Servers[i].Held
	}
	return n
}

// serverView says how a server of the form fares, where h is the health of the service.
func (s *Site) serverView(one *Service, server *services.Server, h *aggregator.Health, now time.Time) *serverView {
	v := &serverView{S: "unknown", Name: server.Name, Address: server.Address(), Words: "Not asked yet", Held: "0"}
	at := slices.IndexFunc(one.Servers, func(p Server) bool { return p.Address == v.Address })
	if h.Phase == presence.PhaseStandby {
		v.S, v.Words, v.Held = "offline", "Known to another machine", "–"
	}
	if at < 0 {
		return v
	}
	p := one.Servers[at]
	v.Held, v.Heard, v.Problem = number(p.Held), momentOf(p.Heard, now, s.zone), p.Problem
	switch {
	case p.Problem != "":
		v.S, v.Words = "unavailable", "Does not answer"
	case p.Active && at > 0:
		v.S, v.Words = "away", "In use for the primary"
	case p.Active:
		v.S, v.Words = "available", "In use"
	case !p.Heard.IsZero():
		v.S, v.Words = "available", "Standing by"
	}
	return v
}

// seconds writes an interval: 3,600 s.
func seconds(d time.Duration) string { return number(int(d/time.Second)) + " s" }

// lockedText says why who asks may not change services; empty: they may.
func lockedText(r *http.Request) string {
	switch who := signin.From(r.Context()); {
	case who.May(signin.AdminServices):
		return ""
	case who.Account == "":
		return "Sign in to change this."
	default:
		return "Only an administrator changes presence services; your role is " + who.Role.String() + "."
	}
}

// findService gives a service by its identifier.
func (s *Site) findService(id string) (Service, bool) {
	all, _ := s.parts.Services.Services() //nolint:errcheck // what is known is looked at
	at, found := slices.BinarySearchFunc(all, id, func(one Service, id string) int { return cmp.Compare(one.ID, id) })
	if !found {
		return Service{}, false
	}
	return all[at], true
}

// noService says that there is no such service, or that it cannot be told.
func (s *Site) noService(w http.ResponseWriter, r *http.Request) {
	_, err := s.parts.Services.Services()
	if err == nil {
		s.missingPage(w, r)
		return
	}
	p := s.newPage(r, "missing", "Not known", url.Values{"rows": {"none"}})
	p.Bad = "Nothing was changed: " + err.Error() + "."
	s.show(w, r, http.StatusServiceUnavailable, &p)
}

func revisionText(n uint64) string { return strconv.FormatUint(n, 10) }
