package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"presenced/aggregator/presence"
	"presenced/aggregator/services"
	"presenced/bridges/web/api"
)

// ServiceCommand is about the presence services.
type ServiceCommand struct {
	List   ServiceListCommand   `cmd:"" help:"List the presence services, and say how they fare."`
	Show   ServiceShowCommand   `cmd:"" help:"Print one, its revision, and how its servers fare."`
	Add    ServiceAddCommand    `cmd:"" help:"Add services."`
	Edit   ServiceEditCommand   `cmd:"" help:"Change one; what becomes of people's data at the server is shown first."`
	Delete ServiceDeleteCommand `cmd:"" help:"Delete one; everybody is removed from the server."`
	Export ServiceExportCommand `cmd:"" help:"Print services as YAML that apply takes."`
	Apply  ServiceApplyCommand  `cmd:"" help:"Make the services those of a file: add, edit, and with --prune delete."`
	Test   ServiceTestCommand   `cmd:"" help:"Connect to the servers of one, and say what is wrong."`
	Sync   ServiceSyncCommand   `cmd:"" help:"Publish everybody of one again, whatever its server holds."`
}

// all gives all services. The error may say that only those given are known.
func (s *Server) all(ctx context.Context) ([]api.Service, error) {
	var answer api.ServiceList
	err := s.ask(ctx, http.MethodGet, "/services", nil, &answer)
	if err == nil && answer.Problem != "" {
		err = errors.New(answer.Problem)
	}
	return answer.Services, err
}

// service gives one service by its identifier.
func (s *Server) service(ctx context.Context, id string) (*api.Service, services.Service, error) {
	var j api.Service
	if err := s.ask(ctx, http.MethodGet, "/services/"+url.PathEscape(id), nil, &j); err != nil {
		return nil, services.Service{}, err
	}
	form, err := formOf(&j)
	return &j, form, err
}

// formOf gives the form of j. One of the configuration need not be fit as a service;
// it cannot be edited.
func formOf(j *api.Service) (services.Service, error) {
	s, err := services.Parse(j.ID, []byte(j.Text))
	if j.Revision == 0 {
		err = nil
	}
	return s, err
}

// ServiceListCommand lists the services.
type ServiceListCommand struct {
	Format string `enum:"text,json" default:"text" help:"text or json."`
	Server `embed:""`
}

// Run implements the command.
func (c *ServiceListCommand) Run(ctx context.Context, term *Terminal) error {
	all, unknown := c.all(ctx)
	if len(all) == 0 && unknown != nil {
		return unknown
	}
	if c.Format == "json" {
		return errors.Join(printJSON(term.Out, all), unknown)
	}
	t := tabwriter.NewWriter(term.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tFROM\tPRIMARY\tSECONDARY\tSUBSCRIBE\tPUBLISH\tUSERS\tHELD\tPHASE\tLAST ERROR")
	for i := range all {
		j := &all[i]
		s, err := formOf(j)
		if err != nil {
			return err
		}
		held := 0
		for _, p := range j.Servers {
			held += p.Held
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", j.ID, j.Origin, serverText(j, &s.Primary), serverText(j, &s.Secondary),
			s.SubscribeInterval, s.PublishInterval, j.People, held, j.Status.Phase, j.Status.LastError)
	}
	return errors.Join(t.Flush(), unknown)
}

// serverText says where a server is and whether it answers.
func serverText(j *api.Service, s *services.Server) string {
	address := s.Address()
	if address == "" {
		return "-"
	}
	for _, p := range j.Servers {
		switch {
		case p.Address != address:
		case p.Problem != "":
			return address + " (does not answer)"
		case p.Active:
			return address + " (in use)"
		case !p.Heard.IsZero():
			return address + " (answers)"
		}
	}
	return address
}

// ServiceShowCommand prints one service.
type ServiceShowCommand struct {
	ID     string `arg:"" help:"Identifier of the service."`
	Format string `enum:"text,json" default:"text" help:"text or json."`
	Server `embed:""`
}

// Run implements the command.
func (c *ServiceShowCommand) Run(ctx context.Context, term *Terminal) error {
	j, _, err := c.service(ctx, c.ID)
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(term.Out, j)
	}
	from := "configuration"
	if j.Revision > 0 {
		from = fmt.Sprintf("revision %d", j.Revision)
	}
	fmt.Fprintf(term.Out, "# %s, %d people; %s: %s\n", from, j.People, j.Status.Phase, j.Status.Detail)
	if j.Network != nil {
		fmt.Fprintf(term.Out, "# network presence, %s: %s\n", j.Network.Phase, j.Network.Detail)
	}
	for _, p := range j.Servers {
		words := "answers"
		if p.Problem != "" {
			words = p.Problem
		} else if p.Heard.IsZero() {
			words = "not asked yet"
		}
		fmt.Fprintf(term.Out, "# %s: %d publications; %s\n", p.Address, p.Held, words)
	}
	if j.Status.LastError != "" {
		fmt.Fprintf(term.Out, "# last error, %s: %s\n", j.Status.LastErrorAt.Local().Format("2006-01-02 15:04:05"), j.Status.LastError)
	}
	_, err = io.WriteString(term.Out, j.Text)
	return err
}

// A Hand is how a change is made.
type Hand struct {
	DryRun bool   `help:"Only show what would become of people's data at the server."`
	Force  bool   `help:"Make the change though it removes more people than max_removed allows; implies --yes."`
	Yes    bool   `help:"Make the change without asking. Needed where there is no terminal to ask at."`
	Format string `enum:"text,json" default:"text" help:"text or json."`
	Server `embed:""`
}

// change shows what edits would do, asks, and makes them.
func (h *Hand) change(ctx context.Context, term *Terminal, edits []api.Edit) error {
	order := api.Order{Edits: edits, DryRun: true}
	var would []services.Outcome
	if err := h.ask(ctx, http.MethodPost, "/services/orders", order, &would); err != nil {
		return err
	}
	idle := !slices.ContainsFunc(would, func(o services.Outcome) bool { return o.What != services.None })
	if h.DryRun || idle {
		return h.tell(term.Out, would)
	}
	if h.Format == "json" { // the answer is on Out
		writeOutcomes(term.Err, would)
	} else {
		writeOutcomes(term.Out, would)
	}
	excess := slices.ContainsFunc(would, func(o services.Outcome) bool { return o.Excess != "" })
	switch {
	case excess && !h.Force:
		return errors.New("nothing has changed: more people would be removed than max_removed allows; --force does it all the same")
	case !h.Force && !h.Yes && !confirmed(term.Err):
		return errors.New("nothing has changed: it was not confirmed; --yes does it without asking")
	}
	order.DryRun, order.Force = false, h.Force
	var done []services.Outcome
	if err := h.ask(ctx, http.MethodPost, "/services/orders", order, &done); err != nil {
		return err
	}
	if h.Format == "json" {
		return printJSON(term.Out, done)
	}
	for _, o := range done {
		switch o.What {
		case services.Delete:
			fmt.Fprintf(term.Out, "%s is deleted\n", o.ID)
		case services.None:
		default:
			fmt.Fprintf(term.Out, "%s is kept, revision %d\n", o.ID, o.Revision)
		}
	}
	return nil
}

func (h *Hand) tell(w io.Writer, all []services.Outcome) error {
	if h.Format == "json" {
		return printJSON(w, all)
	}
	writeOutcomes(w, all)
	return nil
}

// shownNames is how many names of people a preview has at most.
const shownNames = 20

// writeOutcomes writes a preview.
func writeOutcomes(w io.Writer, all []services.Outcome) {
	for _, o := range all {
		if o.What == services.None {
			fmt.Fprintf(w, "%s: stays as it is\n", o.ID)
			continue
		}
		fmt.Fprintf(w, "%s: %s; %s\n", o.ID, o.What, o.Change.String())
		for _, list := range []struct {
			word string
			ids  []presence.ID
		}{{"added", o.Change.Added}, {"removed", o.Change.Removed}, {"changed", o.Change.Changed}} {
			var names []string
			for _, id := range list.ids[:min(shownNames, len(list.ids))] {
				names = append(names, string(id))
			}
			if more := len(list.ids) - len(names); more > 0 {
				names = append(names, fmt.Sprintf("and %d more", more))
			}
			if len(names) > 0 {
				fmt.Fprintf(w, "  %s: %s\n", list.word, strings.Join(names, " "))
			}
		}
		if n := len(o.Change.Unknown); n > 0 {
			fmt.Fprintf(w, "  nobody in the directory is: %s\n", strings.Join(o.Change.Unknown[:min(shownNames, n)], " "))
		}
		if o.Excess != "" {
			fmt.Fprintf(w, "  %s\n", o.Excess)
		}
	}
}

// confirmed asks at the terminal; without one, nobody confirms anything.
func confirmed(w io.Writer) bool {
	if info, err := os.Stdin.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	fmt.Fprint(w, "Do it? [y/N] ")
	line, _ := bufio.NewReader(io.LimitReader(os.Stdin, 100)).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

// maxServicesFile is the largest file with services that is read from standard input.
const maxServicesFile = 8 << 20

// readServices reads a file with services; - is the standard input.
func readServices(file string) ([]services.Service, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(io.LimitReader(os.Stdin, maxServicesFile))
	} else {
		data, err = os.ReadFile(file) //nolint:gosec // the file that the caller names
	}
	if err != nil {
		return nil, err
	}
	all, err := services.Read(file, data)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s has no services; \"presenced service export\" shows the form", file)
	}
	return all, err
}

func addition(s services.Service) api.Edit {
	return api.Edit{ID: s.ID, Form: api.FormOf(&s)}
}

// ServiceAddCommand adds services.
type ServiceAddCommand struct {
	File string   `arg:"" optional:"" help:"YAML file with the key services; - is the standard input. Without it, --set says everything."`
	Set  []string `sep:"none" help:"key=value, such as id=hq, primary.host=p1.example.com or users=ann,group:sales; may be repeated."`
	Hand `embed:""`
}

// Run implements the command.
func (c *ServiceAddCommand) Run(ctx context.Context, term *Terminal) error {
	if (c.File == "") == (len(c.Set) == 0) {
		return errors.New("name a file, or say what the service is with --set")
	}
	var edits []api.Edit
	if c.File == "" {
		s, err := services.Set(nil, c.Set)
		if err != nil {
			return err
		}
		edits = append(edits, addition(s))
	} else {
		all, err := readServices(c.File)
		if err != nil {
			return err
		}
		for _, s := range all {
			edits = append(edits, addition(s))
		}
	}
	return c.change(ctx, term, edits)
}

// ServiceEditCommand changes one service.
type ServiceEditCommand struct {
	ID       string   `arg:"" help:"Identifier of the service."`
	File     string   `short:"f" help:"YAML file with the whole service, as export gives it; - is the standard input."`
	Set      []string `sep:"none" help:"key=value, such as primary.port=5061 or users=ann,group:sales; may be repeated."`
	Revision uint64   `help:"The revision that was looked at: refused if it is not the newest one. Without it, the newest one is changed."`
	Hand     `embed:""`
}

// Run implements the command.
func (c *ServiceEditCommand) Run(ctx context.Context, term *Terminal) error {
	if c.File == "" && len(c.Set) == 0 {
		return errors.New("say what is to change, with -f or --set")
	}
	j, form, err := c.service(ctx, c.ID)
	if err != nil {
		return err
	}
	if c.File != "" {
		all, err := readServices(c.File)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(s services.Service) bool { return s.ID == c.ID })
		if i < 0 {
			return fmt.Errorf("%s has no service %s", c.File, c.ID)
		}
		form = all[i]
	}
	if len(c.Set) > 0 && j.Revision > 0 {
		if form, err = services.Set(&form, c.Set); err != nil {
			return err
		}
	}
	edit := api.Edit{ID: c.ID} // one of the configuration is refused, whatever it is to be
	if j.Revision > 0 {
		edit.Form, edit.Revision = api.FormOf(&form), cmp.Or(c.Revision, j.Revision)
	}
	return c.change(ctx, term, []api.Edit{edit})
}

// ServiceDeleteCommand deletes one service.
type ServiceDeleteCommand struct {
	ID   string `arg:"" help:"Identifier of the service."`
	Hand `embed:""`
}

// Run implements the command.
func (c *ServiceDeleteCommand) Run(ctx context.Context, term *Terminal) error {
	j, _, err := c.service(ctx, c.ID)
	if err != nil {
		return err
	}
	return c.change(ctx, term, []api.Edit{{ID: c.ID, Revision: j.Revision}})
}

// ServiceExportCommand prints services as a file.
type ServiceExportCommand struct {
	ID     string `arg:"" optional:"" help:"Identifier of one service; without it, all that are not in the configuration."`
	Server `embed:""`
}

// Run implements the command.
func (c *ServiceExportCommand) Run(ctx context.Context, term *Terminal) error {
	all, err := c.all(ctx)
	if err != nil {
		return err
	}
	var forms []services.Service
	for i := range all {
		j := &all[i]
		if j.ID != c.ID && (c.ID != "" || j.Revision == 0) {
			continue
		}
		s, err := formOf(j)
		if err != nil {
			return err
		}
		forms = append(forms, s)
	}
	if c.ID != "" && len(forms) == 0 {
		return fmt.Errorf("%w: %s", services.ErrNone, c.ID)
	}
	_, err = term.Out.Write(services.Write(forms))
	return err
}

// ServiceApplyCommand makes the services those of a file.
type ServiceApplyCommand struct {
	File  string `short:"f" required:"" help:"YAML file with the key services; - is the standard input."`
	Prune bool   `help:"Delete the services that are not in the file, but for those of the configuration."`
	Hand  `embed:""`
}

// Run implements the command.
func (c *ServiceApplyCommand) Run(ctx context.Context, term *Terminal) error {
	wanted, err := readServices(c.File)
	if err != nil {
		return err
	}
	all, err := c.all(ctx)
	if err != nil {
		return err
	}
	revisions := map[string]uint64{}
	for i := range all {
		revisions[all[i].ID] = all[i].Revision
	}
	edits := make([]api.Edit, 0, len(wanted))
	for _, s := range wanted {
		edit := addition(s)
		edit.Revision = revisions[s.ID]
		edits = append(edits, edit)
		delete(revisions, s.ID)
	}
	for i := range all {
		if id := all[i].ID; c.Prune && revisions[id] > 0 {
			edits = append(edits, api.Edit{ID: id, Revision: revisions[id]})
		}
	}
	return c.change(ctx, term, edits)
}

// ServiceTestCommand tries the servers of one service.
type ServiceTestCommand struct {
	ID     string `arg:"" help:"Identifier of the service."`
	Format string `enum:"text,json" default:"text" help:"text or json."`
	Server `embed:""`
}

// Run implements the command.
func (c *ServiceTestCommand) Run(ctx context.Context, term *Terminal) error {
	var found []api.Trial
	if err := c.ask(ctx, http.MethodPost, "/services/"+url.PathEscape(c.ID)+"/test", nil, &found); err != nil {
		return err
	}
	bad := 0
	for _, f := range found {
		word := "ok  "
		if !f.Works {
			word = "FAIL"
			bad++
		}
		if c.Format == "text" {
			fmt.Fprintf(term.Out, "%s %s: %s\n", word, f.Address, f.Words)
		}
	}
	if c.Format == "json" {
		if err := printJSON(term.Out, found); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d servers do not work", bad, len(found))
	}
	return nil
}

// ServiceSyncCommand publishes everybody of one service again.
type ServiceSyncCommand struct {
	ID    string `arg:"" help:"Identifier of the service."`
	Asked `embed:""`
}

// Run implements the command.
func (c *ServiceSyncCommand) Run(ctx context.Context, term *Terminal) error {
	var j api.Service
	if err := c.ask(ctx, http.MethodPost, "/services/"+url.PathEscape(c.ID)+"/sync", nil, &j); err != nil {
		return err
	}
	return c.print(term, &j, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d people are published again, at the pace of the service; \"presenced service show %s\" says how it fares\n", j.ID, j.People, j.ID)
	})
}
