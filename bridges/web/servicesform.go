package web

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/internal/config"
)

// A fieldGroup is a section of the form of a service.
type fieldGroup struct {
	Legend, About string
	Secret        bool // not for who may only look
	Fields        []field
}

// A field is one key of a service as the form shows it. What it is for comes from
// the key itself.
type field struct {
	Key, Label string
	Width      int    // columns of twelve
	Kind       string // text, number, choice, check or users
	Unit       string
	Options    []string
	Required   bool

	DOM, Value, Help, Problem string
	ReadOnly                  bool
}

// Describes gives what aria-describedby refers to.
func (f field) Describes() string { return f.DOM + "-h " + f.DOM + "-e" }

// serviceForm gives the groups of the form, with every key of a service in one of them.
func serviceForm() []fieldGroup {
	text := func(key, label string, width int) field {
		return field{Key: key, Label: label, Width: width, Kind: "text"}
	}
	count := func(key, label string, width int, unit string) field {
		return field{Key: key, Label: label, Width: width, Kind: "number", Unit: unit}
	}
	choose := func(key, label string, options ...string) field {
		return field{Key: key, Label: label, Width: 4, Kind: "choice", Options: options}
	}
	check := func(key, label string) field { return field{Key: key, Label: label, Width: 4, Kind: "check"} }
	needed := func(f field) field {
		f.Required = true
		return f
	}
	return []fieldGroup{
		{Legend: "Service", Fields: []field{needed(text("id", "Presence Service ID", 6)), needed(text("entity", "Address of a person", 6))}},
		{Legend: "Primary", Fields: []field{text("primary.name", "Primary Name", 4), needed(text("primary.host", "Primary Host", 5)), count("primary.port", "Primary Port", 3, "")}},
		{Legend: "Secondary", About: "used while the primary does not work", Fields: []field{
			text("secondary.name", "Secondary Name", 4), text("secondary.host", "Secondary Host", 5), count("secondary.port", "Secondary Port", 3, ""),
		}},
		{Legend: "Intervals and transport", Fields: []field{
			count("subscribe_interval", "Subscribe Interval", 6, "seconds"), count("publish_interval", "Publish Interval", 6, "seconds"),
			func() field {
				f := choose("transport", "Transport", "udp", "tcp", "tls", "auto")
				f.Width = 6
				return f
			}(),
			count("rate", "Rate", 6, "requests/s"),
		}},
		{Legend: "Users", Fields: []field{
			{Key: "users", Label: "Who is published, one a line", Width: 8, Kind: "users"}, count("max_removed", "Largest share removed at once", 4, "%"),
		}},
		{Legend: "Network presence", About: "what others publish of the users at the server", Fields: []field{
			choose("subscribe", "Subscribe", "off", "single", "list"), text("list_uri", "Address of the list", 4), text("notify_address", "Address for notifications", 4),
		}},
		{Legend: "Credentials", About: "the password stays in its file and is never shown", Secret: true, Fields: []field{
			text("user", "User", 4), text("password_file", "Password file", 8),
		}},
		{Legend: "TLS", About: "where the transport is tls or auto", Secret: true, Fields: []field{
			text("tls.ca_file", "Authorities", 6), text("tls.server_name", "Name in the certificate", 6),
			text("tls.cert_file", "Client certificate", 6), text("tls.key_file", "Key of the client certificate", 6),
			choose("tls.min_version", "Oldest version", "1.0", "1.1", "1.2", "1.3"),
		}},
		{Legend: "Documents", About: "what is said of people", Fields: []field{
			choose("body", "Form", "rich", "plain"), choose("busy_basic", "Busy is", "open", "closed"), choose("out_of_office_basic", "Out of office is", "open", "closed"),
			check("display_name", "Name of the person"), check("microsoft", "Activity as Microsoft reads it"), check("cisco", "Activity as Cisco reads it"),
		}},
	}
}

// A draft is a form of a service that somebody fills in: its values as they were
// typed, and what they come to.
type draft struct {
	was      *Service // that is edited; nil: one is added
	values   url.Values
	form     services.Service
	problems []config.Problem
}

// begin gives the form of a service as it is, or an empty one.
func begin(was *Service) *draft {
	d := &draft{was: was, values: url.Values{}}
	if was != nil {
		d.form = was.Service
	} else {
		d.form, _ = services.Fill(nil, nil) // the problems of an empty form are no news
	}
	for _, f := range services.Fields(&d.form) {
		d.values.Set(f.Key, f.Value)
	}
	return d
}

// filled gives the form that was sent.
func filled(was *Service, sent url.Values) *draft {
	d := begin(was)
	for _, g := range serviceForm() {
		for _, f := range g.Fields {
			switch {
			case f.Key == "id" && was != nil:
			case sent.Has(f.Key):
				d.values.Set(f.Key, strings.ReplaceAll(sent.Get(f.Key), "\r\n", "\n"))
			case f.Kind == "check": // one that is off is not sent
				d.values.Set(f.Key, "false")
			}
		}
	}
	if group := sent.Get("add"); group != "" { // one of the groups or people that are offered
		d.values.Set("users", strings.TrimSpace(strings.TrimRight(d.values.Get("users"), "\n")+"\n"+group))
	}
	var base *services.Service
	if was != nil {
		base = &was.Service
	}
	d.form, d.problems = services.Fill(base, d.values)
	return d
}

// groups gives the form as the page shows it; secret tells whether the viewer sees
// what only administrators do.
func (d *draft) groups(secret bool) []fieldGroup {
	about := map[string]string{}
	for _, f := range services.Fields(&d.form) {
		about[f.Key] = f.Doc
	}
	wrong := d.byKey()
	groups := serviceForm()
	for i := range groups {
		for j := range groups[i].Fields {
			f := &groups[i].Fields[j]
			f.DOM = fieldDOM(f.Key)
			f.Value, f.Help, f.Problem = d.values.Get(f.Key), about[f.Key], wrong[f.Key]
			f.ReadOnly = f.Key == "id" && d.was != nil
			if f.Kind == "choice" && !slices.Contains(f.Options, f.Value) && f.Value != "" {
				f.Options = append(f.Options, f.Value) // it is wrong, and shown with its problem
			}
		}
	}
	if !secret {
		groups = slices.DeleteFunc(groups, func(g fieldGroup) bool { return g.Secret })
	}
	return groups
}

func fieldDOM(key string) string { return "f-" + strings.NewReplacer(".", "-", "_", "-").Replace(key) }

// byKey gives the problems beside their fields, what has none at the empty key.
func (d *draft) byKey() map[string]string {
	out := map[string]string{}
	for _, p := range d.problems {
		key, text := fieldOf(p)
		if out[key] != "" {
			text = out[key] + "; " + text
		}
		out[key] = text
	}
	return out
}

// fieldOf gives the field that a problem belongs to.
func fieldOf(p config.Problem) (key, text string) {
	list, nth, inList := strings.Cut(p.Path, "[")
	switch {
	case inList:
		n, _ := strconv.Atoi(strings.TrimSuffix(nth, "]")) //nolint:errcheck // as config writes it
		return list, "entry " + strconv.Itoa(n+1) + ": " + p.Text
	case p.Path == "primary" || p.Path == "secondary":
		return p.Path + ".host", p.Text
	default:
		return p.Path, p.Text
	}
}

// A problemView leads to the field that is wrong.
type problemView struct {
	Label, Text string
	Href        string // empty: there is no such field
}

// wrong lists the problems in the order of the form.
func (d *draft) wrong() []problemView {
	left := d.byKey()
	var out []problemView
	for _, g := range serviceForm() {
		for _, f := range g.Fields {
			if text := left[f.Key]; text != "" {
				out = append(out, problemView{f.Label, text, "#" + fieldDOM(f.Key)})
				delete(left, f.Key)
			}
		}
	}
	for _, text := range left {
		out = append(out, problemView{Text: text})
	}
	return out
}

// An offer is a group or a person that can be put into the user list.
type offer struct{ Value, Name, About string }

const maxOffers = 30

// offers gives the groups and people that words find; all groups, where there are none.
func offers(words string, people []presence.Person) (found []offer, more bool) {
	f := filter{text: strings.ToLower(words)}
	sizes := map[string]int{}
	for i := range people {
		for _, g := range people[i].Groups {
			sizes[g]++
		}
	}
	for name, n := range sizes {
		if f.concerns(&presence.Person{}, strings.ToLower(name)) {
			found = append(found, offer{services.GroupPrefix + name, name, "Group, " + plural(n, "person", "people")})
		}
	}
	slices.SortFunc(found, func(a, b offer) int { return strings.Compare(a.Name, b.Name) })
	if words != "" {
		for i := range people {
			p := &people[i]
			if f.concerns(p, searchText(p)+"\n"+strings.ToLower(string(p.ID))) {
				found = append(found, offer{string(p.ID), p.Name, strings.TrimSuffix("Person, "+p.Address("tel"), ", ")})
			}
		}
	}
	if len(found) > maxOffers {
		return found[:maxOffers], true
	}
	return found, false
}
