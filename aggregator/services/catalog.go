package services

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"presenced/aggregator/presence"
	"presenced/internal/config"
)

// A Memory keeps the services, by identifier. Create, Update and Delete are
// durable when they return without an error; after an error they may have been
// made or not. A bucket of the store is one.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	Update(ctx context.Context, key string, value []byte, last uint64) (revision uint64, err error)
	Delete(ctx context.Context, key string) error
}

// A Record is a service as the catalog has it.
type Record struct {
	Service
	Revision uint64 // rises with every change; zero: it stands in the configuration
}

// A Deed is what the audit trail is told of a change.
type Deed struct {
	Who, From string // as in the Order
	What      string // "service add", "service edit" or "service delete"
	Service   string
	Detail    string // what changes; no secret and no names of people
}

// An Audit makes a change with do, after it has written down d. Where it cannot, do
// is not called.
type Audit func(ctx context.Context, d Deed, do func() error) error

// An Edit is a change of one service. Revision is that of the form which was
// edited; zero where there was none.
type Edit struct {
	ID       string
	Service  *Service // nil: it is deleted
	Revision uint64
	Plan     string // of the Outcome that was agreed to; empty: the edit is made whatever it does
}

// An Order is edits that are to be made together.
type Order struct {
	Edits     []Edit
	Force     bool // though more people are removed than max_removed allows
	DryRun    bool // only tell what would become of it
	Who, From string
}

// An Outcome is what an edit does, or did.
type Outcome struct {
	ID       string `json:"id"`
	What     string `json:"what"` // add, edit, delete or none
	Revision uint64 `json:"revision,omitempty"`
	Change   Change `json:"change"`
	Excess   string `json:"excess,omitempty"` // why it needs to be forced
	Plan     string `json:"plan"`             // names all of what the edit does: another form, revision or directory gives another name
}

// What an Outcome does.
const (
	Add    = "add"
	Modify = "edit"
	Delete = "delete"
	None   = "none"
)

// What is wrong with an order, for callers that tell the kinds apart.
var (
	ErrNone     = errors.New("there is no such presence service")
	ErrConflict = errors.New("changed meanwhile")
	ErrFixed    = errors.New("stands in the configuration")
	ErrUnfit    = errors.New("is not right")
	ErrExcess   = errors.New("nothing has changed, because too many people would be removed")
	ErrNotKept  = errors.New("the store did not keep the change")
)

// An Unfit is the ErrUnfit of a service with its problems, by key.
type Unfit struct {
	ID       string
	Problems []config.Problem
}

// Error names every problem.
func (u *Unfit) Error() string {
	lines := make([]string, 0, len(u.Problems))
	for _, p := range u.Problems {
		lines = append(lines, p.Path+": "+p.Text)
	}
	return fmt.Sprintf("%.70s %v: %s", u.ID, ErrUnfit, strings.Join(lines, "; "))
}

// Is makes it an ErrUnfit.
func (*Unfit) Is(target error) bool { return target == ErrUnfit }

// Terms is what a Catalog needs of the world around it.
type Terms struct {
	Memory Memory
	Audit  Audit
	People func() []presence.Person // as they are now

	// Fixed are the services of the configuration, which stands in File.
	Fixed []Service
	File  string
	// Taken are the names of sources and bridges, which no service may have as its
	// identifier, with what has them.
	Taken map[string]string
	// Fit tells what is wrong with a service beyond Check; nil: nothing.
	Fit func(Service) []config.Problem
	Log *slog.Logger
}

// A Catalog is the presence services. What is changed counts only when it is
// durable. All methods may be called from any goroutine.
type Catalog struct {
	terms Terms
	turn  chan struct{} // holds a token while nobody changes anything

	mu       sync.Mutex
	stored   map[string]Record
	unread   map[string]error // in the store, and not fit to be used
	loaded   bool
	failed   error // why the store did not take or give something last; nil after a success
	failedAt time.Time
	changed  chan struct{} // closed at the next change
	wake     chan struct{}
}

// The times of a Catalog.
const (
	changeWait = 10 * time.Second // how long a change waits for the store
	loadWait   = 30 * time.Second
	loadPause  = 5 * time.Second
)

// NewCatalog makes a Catalog; what is stored is there when Load succeeded.
func NewCatalog(t Terms) *Catalog {
	c := &Catalog{terms: t, turn: make(chan struct{}, 1), stored: map[string]Record{}, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

// Load reads the store. If it fails, Run tries again; changes are refused until then.
func (c *Catalog) Load(ctx context.Context) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.give()
	return c.load(ctx)
}

func (c *Catalog) take(ctx context.Context) error {
	select {
	case <-c.turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: another change is under way; try again", ErrNotKept)
	}
}

func (c *Catalog) give() { c.turn <- struct{}{} }

// load is Load for who has the turn.
func (c *Catalog) load(ctx context.Context) error {
	stored, unread := map[string]Record{}, map[string]error{}
	all, err := c.terms.Memory.Load(ctx)
	for id := range all {
		if err != nil {
			break
		}
		var r Record
		var wrong error
		if r, wrong, err = c.fetch(ctx, id); wrong != nil {
			unread[id] = wrong
			c.terms.Log.ErrorContext(ctx, "a stored presence service cannot be used and is left aside", "service", id, "error", wrong)
			continue
		}
		stored[id] = r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded = err == nil
	if c.failed = err; err != nil {
		c.failedAt = time.Now()
		return fmt.Errorf("read the presence services: %w", err)
	}
	c.stored, c.unread = stored, unread
	c.announce()
	return nil
}

// fetch reads one service; wrong says why it cannot be used.
func (c *Catalog) fetch(ctx context.Context, id string) (r Record, wrong, err error) {
	value, revision, err := c.terms.Memory.Get(ctx, id)
	if err != nil {
		return r, nil, err
	}
	r, wrong = c.read(id, value, revision)
	return r, wrong, nil
}

// read makes a record of what the store holds; wrong says why it cannot be used.
func (c *Catalog) read(id string, value []byte, revision uint64) (r Record, wrong error) {
	s, wrong := Parse(id, value)
	if wrong == nil && s.ID != id {
		wrong = fmt.Errorf("it says that it is %q", s.ID)
	}
	if wrong == nil {
		wrong = c.check(&s)
	}
	return Record{s, revision}, wrong
}

// announce tells who watches; c.mu is held.
func (c *Catalog) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Run reads the store again where that failed, until ctx ends.
func (c *Catalog) Run(ctx context.Context) error {
	for {
		pause := loadPause
		if c.isLoaded() {
			pause = time.Hour
		} else {
			one, cancel := context.WithTimeout(ctx, loadWait)
			err := c.Load(one)
			cancel()
			if err == nil {
				continue
			}
			if ctx.Err() == nil {
				c.terms.Log.ErrorContext(ctx, "the presence services are not known yet", "error", err)
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (c *Catalog) isLoaded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loaded
}

// Status tells how many services are stored, and how the store takes changes.
func (c *Catalog) Status() presence.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := presence.Status{Phase: presence.PhaseLive, Detail: fmt.Sprintf("%d presence services stored, %d in the configuration", len(c.stored), len(c.terms.Fixed))}
	if c.failed != nil {
		s.Phase, s.LastError, s.LastErrorAt = presence.PhaseDegraded, c.failed.Error(), c.failedAt
		s.Detail = "the store does not take changes of presence services; they are refused"
	}
	for _, id := range slices.Sorted(maps.Keys(c.unread)) {
		s.Phase, s.Detail = presence.PhaseDegraded, fmt.Sprintf("%d stored presence services cannot be used, such as %s: %v", len(c.unread), id, c.unread[id])
		break
	}
	if !c.loaded {
		s.Phase, s.Detail = presence.PhaseDegraded, "the stored presence services are not known yet; those of the configuration are served"
	}
	return s
}

// List gives all services, those of the configuration too, by identifier. The
// error says that the stored ones are not known; the others are given.
func (c *Catalog) List() ([]Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Collect(maps.Values(c.stored))
	for _, s := range c.terms.Fixed {
		all = append(all, Record{Service: s})
	}
	slices.SortFunc(all, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	if !c.loaded {
		return all, errUnloaded()
	}
	return all, nil
}

func errUnloaded() error {
	return fmt.Errorf("%w: the stored presence services could not be read yet; try again in some seconds", ErrNotKept)
}

// Find gives a service by its identifier; ErrNone.
func (c *Catalog) Find(id string) (Record, error) {
	all, err := c.List()
	for _, r := range all {
		if r.ID == id {
			return r, nil
		}
	}
	return Record{}, cmp.Or(err, none(id))
}

func none(id string) error {
	return fmt.Errorf("%w: %.70q; \"presenced service list\" names them", ErrNone, id)
}

// Watch gives all stored services, by identifier, and all again after each change,
// until ctx ends; the first time when they are known. A slow reader skips lists,
// never the newest. A list must not be changed.
func (c *Catalog) Watch(ctx context.Context) iter.Seq[[]Record] {
	return func(yield func([]Record) bool) {
		for ctx.Err() == nil {
			c.mu.Lock()
			loaded, changed := c.loaded, c.changed
			all := slices.SortedFunc(maps.Values(c.stored), func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
			c.mu.Unlock()
			if loaded && !yield(all) {
				return
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}

// Apply makes the edits of an order, or tells what they would do. All of them are
// checked before anything is changed: ErrNone, ErrFixed, ErrUnfit, ErrConflict
// where a revision is not the newest one or an edit does not do what was agreed to,
// and ErrExcess where too many people would be removed. Then each is written down in the audit trail, and made. It returns
// when all are durable, within ten seconds. Where an edit is not kept (ErrNotKept),
// the outcomes are those of the edits before it, which stand.
func (c *Catalog) Apply(ctx context.Context, o Order) ([]Outcome, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, changeWait, fmt.Errorf("no answer within %s", changeWait))
	defer cancel()
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.give()
	if !c.isLoaded() {
		return nil, errUnloaded()
	}
	outcomes, err := c.plan(&o)
	if err != nil || o.DryRun {
		return outcomes, err
	}
	if excess := excess(outcomes); excess != "" && !o.Force {
		return outcomes, fmt.Errorf("%w: %s", ErrExcess, excess)
	}
	for i := range o.Edits {
		if err := c.make(ctx, &o, &o.Edits[i], &outcomes[i]); err != nil {
			var done []string
			for _, before := range outcomes[:i] {
				done = append(done, before.ID)
			}
			if len(done) > 0 {
				err = fmt.Errorf("%s: %w (changed before it, and in force: %s)", o.Edits[i].ID, err, strings.Join(done, ", "))
			}
			return outcomes[:i], err
		}
	}
	return outcomes, nil
}

func excess(all []Outcome) string {
	var lines []string
	for i := range all {
		if all[i].Excess != "" {
			lines = append(lines, all[i].ID+": "+all[i].Excess)
		}
	}
	return strings.Join(lines, "\n")
}

// plan checks the edits of an order, and tells what they do.
func (c *Catalog) plan(o *Order) ([]Outcome, error) {
	people := c.terms.People()
	outcomes := make([]Outcome, 0, len(o.Edits))
	seen := map[string]bool{}
	var wrong []error
	for i := range o.Edits {
		e := &o.Edits[i]
		before, err := c.before(e)
		if err == nil && seen[e.ID] {
			err = fmt.Errorf("%s %w: it is edited twice", e.ID, ErrUnfit)
		}
		if err == nil && e.Service != nil {
			err = c.check(e.Service)
		}
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		seen[e.ID] = true
		out := Outcome{ID: e.ID, What: Modify, Change: Plan(before, e.Service, people)}
		switch {
		case e.Service == nil:
			out.What = Delete
		case before == nil:
			out.What = Add
		case bytes.Equal(Format(*before), Format(*e.Service)):
			out.What = None
		}
		if before != nil {
			out.Revision = e.Revision
			out.Excess = out.Change.Excess(before.MaxRemoved)
		}
		if out.Plan = e.plan(&out.Change); e.Plan != "" && e.Plan != out.Plan {
			wrong = append(wrong, fmt.Errorf("%s was %w: the edit would not do what it would have done when it was agreed to; look at it again", e.ID, ErrConflict))
		}
		outcomes = append(outcomes, out)
	}
	return outcomes, errors.Join(wrong...)
}

// plan names the form, the revision and what becomes of people.
func (e *Edit) plan(c *Change) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %d ", e.ID, e.Revision)
	if e.Service != nil {
		sum.Write(Format(*e.Service))
	}
	fmt.Fprintf(sum, " %d %d %q %q %q", c.Before, c.After, c.Added, c.Removed, c.Changed)
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// before gives the service that e changes, nil if there is none, and checks that e
// may change it.
func (c *Catalog) before(e *Edit) (*Service, error) {
	c.mu.Lock()
	r, there := c.stored[e.ID]
	unread := c.unread[e.ID]
	c.mu.Unlock()
	switch {
	case e.Service != nil && e.Service.ID != e.ID:
		return nil, fmt.Errorf("%s %w: the identifier of a service cannot be changed (to %.70q); delete it and add another one", e.ID, ErrUnfit, e.Service.ID)
	case slices.ContainsFunc(c.terms.Fixed, func(s Service) bool { return s.ID == e.ID }):
		return nil, fmt.Errorf("%s %w, in %s: edit it there", e.ID, ErrFixed, c.terms.File)
	case unread != nil && e.Service == nil:
		return nil, nil //nolint:nilnil // what cannot be used can be deleted
	case unread != nil:
		return nil, fmt.Errorf("%s %w: what is stored cannot be used, delete it first: %w", e.ID, ErrUnfit, unread)
	case !there && e.Service == nil, !there && e.Revision != 0:
		return nil, none(e.ID)
	case there && e.Revision == 0:
		return nil, fmt.Errorf("%s was %w: it is there already (revision %d); show it, and edit it", e.ID, ErrConflict, r.Revision)
	case there && r.Revision != e.Revision:
		return nil, fmt.Errorf("%s was %w (revision %d, you had %d); show it again", e.ID, ErrConflict, r.Revision, e.Revision)
	case !there:
		return nil, nil //nolint:nilnil // there is none
	}
	return &r.Service, nil
}

// check gives an Unfit with every problem of a service.
func (c *Catalog) check(s *Service) error {
	ps := s.Check()
	if taken := c.terms.Taken[s.ID]; taken != "" {
		ps = append(ps, config.Wrong("id", "%q is the name of %s; names are unique among sources, bridges and services", s.ID, taken))
	}
	if len(ps) == 0 && c.terms.Fit != nil {
		ps = c.terms.Fit(*s)
	}
	if len(ps) == 0 {
		return nil
	}
	return &Unfit{s.ID, ps}
}

// make makes one edit that was planned.
func (c *Catalog) make(ctx context.Context, o *Order, e *Edit, out *Outcome) error {
	if out.What == None {
		return nil
	}
	c.mu.Lock()
	before, there := c.stored[e.ID]
	c.mu.Unlock()
	detail := out.Change.String()
	if there && e.Service != nil {
		if keys := differences(&before.Service, e.Service); keys != "" {
			detail = keys + "; " + detail
		}
	}
	deed := Deed{Who: o.Who, From: o.From, What: "service " + out.What, Service: e.ID, Detail: detail}
	err := c.terms.Audit(ctx, deed, func() error { return c.write(ctx, e) })
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Revision = c.stored[e.ID].Revision
	c.announce()
	c.terms.Log.InfoContext(ctx, "a presence service was changed", "service", e.ID, "what", out.What, "by", o.Who, "detail", detail)
	return nil
}

// write makes the store hold an edit, and the catalog what the store holds.
func (c *Catalog) write(ctx context.Context, e *Edit) error {
	var revision uint64
	var err error
	switch {
	case e.Service == nil:
		err = c.terms.Memory.Delete(ctx, e.ID)
	case e.Revision == 0:
		revision, err = c.terms.Memory.Create(ctx, e.ID, Format(*e.Service))
	default:
		revision, err = c.terms.Memory.Update(ctx, e.ID, Format(*e.Service), e.Revision)
	}
	if err != nil {
		return c.unsure(ctx, e, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = nil
	delete(c.unread, e.ID)
	if delete(c.stored, e.ID); e.Service != nil {
		c.stored[e.ID] = Record{*e.Service, revision}
	}
	return nil
}

// unsure finds out what became of a write that gave err.
func (c *Catalog) unsure(ctx context.Context, e *Edit, err error) error {
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeWait/2)
	defer cancel()
	if c.load(look) != nil { // Run tries again
		select {
		case c.wake <- struct{}{}:
		default:
		}
		return fmt.Errorf("%w, or it is not certain whether it did: %w; \"presenced service show %s\" tells when the store is back", ErrNotKept, err, e.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, there := c.stored[e.ID]
	switch {
	case there == (e.Service != nil) && r.Revision > e.Revision && bytes.Equal(Format(r.Service), Format(*e.Service)),
		!there && e.Service == nil:
		return nil // it had arrived
	case there && r.Revision != e.Revision, !there && e.Revision != 0:
		return fmt.Errorf("%s was %w by another process (revision %d, you had %d); show it again", e.ID, ErrConflict, r.Revision, e.Revision)
	}
	c.failed, c.failedAt = err, time.Now()
	return fmt.Errorf("%w, so nothing has changed: %w; \"presenced status\" says how the store fares", ErrNotKept, err)
}

// differences names the keys in which two forms differ, with their values; of the
// user list, which names people, only the length.
func differences(before, after *Service) string {
	was, is := keys(before), keys(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if was[key] == is[key] {
			continue
		}
		if key == "users" {
			out = append(out, "users "+strconv.Itoa(len(before.Users))+" -> "+strconv.Itoa(len(after.Users))+" entries")
			continue
		}
		out = append(out, fmt.Sprintf("%s %q -> %q", key, was[key], is[key]))
	}
	return strings.Join(out, ", ")
}
