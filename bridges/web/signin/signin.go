// Package signin is who somebody is that uses the page or its API, and what they
// may do: accounts with passwords of presenced's own, of LDAP and of an OpenID
// provider, the sessions of browsers, and API tokens.
//
// A page puts everything behind Desk.Guard, which finds out who asks, and each of
// its handlers behind Desk.Require. The forms of Desk.Routes are behind Guard too.
package signin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"presenced/aggregator/presence"
)

// A Note tells the audit trail who did what to which account or token. It holds no
// secret, and no name that somebody typed who did not sign in.
type Note struct{ Who, From, What, Whom, Detail string }

// By is who changes something, and from where, as the audit trail is told.
type By struct{ Who, From string }

// By gives who makes a request behind Guard.
func (d *Desk) By(r *http.Request) By { return By{From(r.Context()).Account, d.place(r)} }

// Deps is what a Desk needs of the rest. All of it may be called from any goroutine.
type Deps struct {
	Title    string // of the site
	Origin   string // where the page is served, such as http://127.0.0.1:8080; Config.URL counts before it
	Loopback bool   // the page can be reached from this machine only
	Mine     string // where the page shows Fragment, such as /me; empty: on a page of this package

	Accounts Memory
	Sessions Memory // nil: a restart signs everybody out
	Tokens   Memory

	// People finds a person of the directory; a Hub does.
	People interface {
		Person(subject presence.Subject) (presence.Person, bool)
	}
	// Audit writes a line, durable on return. What it fails for is not done, but
	// that somebody signs in or out.
	Audit func(context.Context, Note) error
	Log   *slog.Logger
}

// A Desk signs people in. Make one with New. All methods may be called from any
// goroutine; those with a context block while the store or a server is asked.
type Desk struct {
	cfg      Config
	deps     Deps
	origin   *url.URL
	demanded bool
	proxies  []netip.Prefix
	crossing *http.CrossOriginProtection
	looks    *template.Template
	ldap     *ldapBind // nil: off
	oidc     *provider // nil: off

	accounts accounts
	loaded   chan struct{} // closed when the accounts were read
	loading  sync.Once
	sessions *sessions
	tokens   *tokens
	limits   *limiter
	turns    chan struct{} // passwords that are being tried
	decoy    hash
	cost     cost
	patience time.Duration // how long a refusal takes, where a server is asked

	bell *bell // rung when Still may say something else

	mu      sync.Mutex
	first   key // of the link to make the first administrator
	until   time.Time
	failing *rate.Limiter // lines about sign-ins that failed
	unsaid  int           // those that it held back
}

const (
	maxTurns   = 4 // times the memory of a hash
	firstLife  = time.Hour
	storeTime  = 5 * time.Second // for one write
	flushEvery = 30 * time.Second
)

// New makes a Desk for a configuration that has passed Check. Nobody can sign in
// before Run has read the accounts. It fails where the page is served in a way in
// which passwords would not be safe.
func New(cfg Config, deps Deps) (*Desk, error) {
	if cfg.URL != "" {
		deps.Origin = cfg.URL
	}
	origin, err := parseOrigin(deps.Origin)
	if err != nil {
		return nil, fmt.Errorf("web.signin.url: %w", err)
	}
	changed := new(bell)
	if deps.Mine == "" {
		deps.Mine = pathMine
	}
	d := &Desk{
		cfg: cfg, deps: deps, origin: origin, demanded: cfg.Demanded(deps.Loopback), crossing: http.NewCrossOriginProtection(), looks: newLooks(),
		accounts: accounts{memory: deps.Accounts, bell: changed}, loaded: make(chan struct{}), bell: changed,
		sessions: newSessions(cfg.Idle, cfg.Absolute, deps.Sessions, changed), tokens: newTokens(deps.Tokens, changed),
		limits: newLimiter(), turns: make(chan struct{}, maxTurns), decoy: decoyHash(), cost: newCost(), patience: time.Second,
		failing: rate.NewLimiter(rate.Every(time.Second), 60),
	}
	if err := d.crossing.AddTrustedOrigin(origin.String()); err != nil {
		return nil, fmt.Errorf("web.signin.url: %w", err)
	}
	for _, p := range cfg.Proxies {
		prefix, err := parseNetwork(p)
		if err != nil {
			return nil, fmt.Errorf("web.signin.proxies: %w", err)
		}
		d.proxies = append(d.proxies, prefix.Masked())
	}
	if cfg.LDAP.URL != "" {
		d.ldap = &ldapBind{cfg.LDAP}
	}
	if cfg.OIDC.Issuer != "" {
		if d.oidc, err = newProvider(cfg.OIDC, origin); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Run reads what is kept, then writes what changes beside the requests, until ctx
// ends; then it writes once more. It fails where the store cannot be read, and may be
// called again.
func (d *Desk) Run(ctx context.Context) error {
	if err := d.sessions.load(ctx, time.Now(), d.deps.Log); err != nil {
		return err
	}
	if err := d.tokens.load(ctx, d.deps.Log); err != nil {
		return err
	}
	if err := d.accounts.load(ctx, d.deps.Log); err != nil { // last: nobody is let in before
		return err
	}
	d.loading.Do(func() { close(d.loaded) })
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
			defer cancel()
			d.flush(last)
			return ctx.Err()
		case <-tick.C:
			d.flush(ctx)
		}
	}
}

// Loaded gives a channel that is closed when Run has read the accounts.
func (d *Desk) Loaded() <-chan struct{} { return d.loaded }

func (d *Desk) flush(ctx context.Context) {
	now := time.Now()
	err := errors.Join(
		d.accounts.forget(ctx, now),
		d.tokens.flush(ctx, now, func(account string) bool { return d.accounts.find(account) != nil }),
		d.sessions.flush(ctx, now),
	)
	if err != nil {
		d.deps.Log.WarnContext(ctx, "sessions and tokens could not be written; the next attempt is in half a minute", "error", err)
	}
}

// keep writes the sessions that changed just now; what fails is written later.
func (d *Desk) keep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	if err := d.sessions.flush(ctx, time.Now()); err != nil {
		d.deps.Log.WarnContext(ctx, "a session could not be written; it counts, and is written later", "error", err)
	}
}

// Why there is no first link.
var (
	ErrAdministrator = errors.New("there is an administrator already, who can make accounts")
	ErrNoLocal       = errors.New("web.signin.local is off: the administrators are those of LDAP or OIDC")
)

// FirstLink gives an address with which its bearer makes the first administrator:
// once, within an hour, and only as long as there is none. A new link ends the one
// before. It fails with ErrAdministrator, with ErrUnread before Run has read the
// accounts, or with ErrNoLocal.
func (d *Desk) FirstLink() (string, error) {
	if err := d.mayHaveFirst(); err != nil {
		return "", err
	}
	secret := newSecret()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.first, d.until = sha256.Sum256(secret), time.Now().Add(firstLife)
	return d.origin.String() + pathFirst + "?token=" + sessionID(secret), nil
}

func (d *Desk) mayHaveFirst() error {
	switch err := d.accounts.check(); {
	case err != nil:
		return err
	case !d.cfg.Local:
		return ErrNoLocal
	case d.accounts.administrators(func(a *Account) bool { return d.offers(a.Via) && !a.lapsed(time.Now()) }) > 0:
		return ErrAdministrator
	}
	return nil
}

// opens tells whether the token of a first link is right.
func (d *Desk) opens(token string) bool {
	k, ok := parseSessionID(token)
	d.mu.Lock()
	defer d.mu.Unlock()
	return ok && k == d.first && time.Now().Before(d.until)
}

// addFirst makes the first administrator, of whoever has the token.
func (d *Desk) addFirst(ctx context.Context, token, user, password, from string) (*Account, error) {
	d.accounts.changing.Lock()
	defer d.accounts.changing.Unlock()
	if !d.opens(token) {
		return nil, errLink
	}
	if err := d.mayHaveFirst(); err != nil {
		return nil, err
	}
	a, err := d.add(ctx, By{"the first link", from}, NewAccount{User: user, Role: Administrator, Password: password})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.first, d.until = key{}, time.Time{}
	return a, nil
}

var errLink = errors.New("this link was used, or is older than an hour; a start of the service without an administrator prints a new one")

// NewAccount is a local account to be made.
type NewAccount struct {
	User     string // the name to sign in with
	Name     string // to show; empty: User
	Role     Role   // person, operator or administrator
	Password string
	Subjects []presence.Subject // what the directory may know the person by, such as their mail; empty: nobody there
}

// Add makes a local account; ErrAccount. Like the other changes it is in the audit
// trail, and durable, when it returns without an error.
func (d *Desk) Add(ctx context.Context, by By, n NewAccount) error {
	d.accounts.changing.Lock()
	defer d.accounts.changing.Unlock()
	_, err := d.add(ctx, by, n)
	return err
}

func (d *Desk) add(ctx context.Context, by By, n NewAccount) (*Account, error) {
	user, err := localName(n.User)
	if err != nil {
		return nil, err
	}
	if err := checkPassword(user, n.Password); err != nil {
		return nil, err
	}
	if n.Role < Person || n.Role >= roleCount {
		return nil, unfit("a role is person, operator or administrator")
	}
	a := &Account{Via: ViaLocal, User: user, Name: shown(n.Name, user), Role: n.Role, Subjects: n.Subjects}
	if err := d.accounts.room(a); err != nil {
		return nil, err
	}
	if d.accounts.find(a.ID()) != nil {
		return nil, fmt.Errorf("%s: %w", user, ErrAccount)
	}
	a.Hash = d.hash(n.Password)
	if err := d.deps.Audit(ctx, Note{by.Who, by.From, "account added", a.ID(), a.Role.String()}); err != nil {
		return nil, err
	}
	return a, d.accounts.put(ctx, a)
}

// SetPassword gives a local account a new password and ends its sessions, not its
// tokens; ErrNoAccount.
func (d *Desk) SetPassword(ctx context.Context, by By, user, password string) error {
	return d.change(ctx, by, user, "account password set", func(a *Account) error {
		if err := checkPassword(a.User, password); err != nil {
			return err
		}
		a.Hash = d.hash(password)
		a.Epoch++
		return nil
	})
}

// SetRole gives a local account another role, which counts at once; ErrNoAccount,
// ErrLast.
func (d *Desk) SetRole(ctx context.Context, by By, user string, role Role) error {
	return d.change(ctx, by, user, "account role set to "+role.String(), func(a *Account) error {
		if role < Person || role >= roleCount {
			return unfit("a role is person, operator or administrator")
		}
		if a.Role == Administrator && role != Administrator && d.lastLocal() {
			return ErrLast
		}
		a.Role = role
		return nil
	})
}

// SetSubjects says what the directory may know the person of a local account by, the
// best first; none: they are nobody there. ErrNoAccount.
func (d *Desk) SetSubjects(ctx context.Context, by By, user string, subjects ...presence.Subject) error {
	what := "account person removed"
	if len(subjects) > 0 {
		what = fmt.Sprintf("account person set to %.80s", subjects[0])
	}
	return d.change(ctx, by, user, what, func(a *Account) error {
		a.Subjects = subjects
		return nil
	})
}

func (d *Desk) change(ctx context.Context, by By, user, what string, how func(*Account) error) error {
	d.accounts.changing.Lock()
	defer d.accounts.changing.Unlock()
	was, err := d.local(user)
	if err != nil {
		return err
	}
	a := *was
	if err := how(&a); err != nil {
		return err
	}
	if err := d.deps.Audit(ctx, Note{by.Who, by.From, what, a.ID(), ""}); err != nil {
		return err
	}
	return d.accounts.put(ctx, &a)
}

// Remove removes a local account, with its sessions and tokens; ErrNoAccount, ErrLast.
func (d *Desk) Remove(ctx context.Context, by By, user string) error {
	d.accounts.changing.Lock()
	defer d.accounts.changing.Unlock()
	a, err := d.local(user)
	if err != nil {
		return err
	}
	if a.Role == Administrator && d.lastLocal() {
		return ErrLast
	}
	if err := d.deps.Audit(ctx, Note{by.Who, by.From, "account removed", a.ID(), ""}); err != nil {
		return err
	}
	// Before the account: one of the same name that is made later must not have them.
	d.sessions.end(a.ID(), func(session) bool { return true })
	for _, one := range d.tokens.list(a.ID()) {
		if err := d.tokens.revoke(ctx, a.ID(), one.ID()); err != nil {
			return err
		}
	}
	if err := d.sessions.flush(ctx, time.Now()); err != nil {
		return err
	}
	return d.accounts.remove(ctx, a.ID())
}

// List gives all accounts, sorted, without what is kept of their passwords.
func (d *Desk) List() ([]Account, error) {
	if err := d.accounts.check(); err != nil {
		return nil, err
	}
	var all []Account
	for _, a := range d.accounts.list() {
		one := *a
		one.Hash = nil
		all = append(all, one)
	}
	return all, nil
}

func (d *Desk) local(user string) (*Account, error) {
	if err := d.accounts.check(); err != nil {
		return nil, err
	}
	name, _ := userName(user)
	a := d.accounts.find(ViaLocal + ":" + name)
	if a == nil {
		return nil, fmt.Errorf("%.64q: %w", user, ErrNoAccount)
	}
	return a, nil
}

func (d *Desk) lastLocal() bool {
	return d.accounts.administrators(func(a *Account) bool { return a.Via == ViaLocal }) < 2
}

// hash needs no turn: the caller holds accounts.changing, so that there is one at a
// time; and who has a turn may wait for that.
func (d *Desk) hash(password string) *hash {
	h := newHash(password, d.cost)
	return &h
}

func (d *Desk) turn(ctx context.Context) (leave func(), err error) {
	select {
	case d.turns <- struct{}{}:
		return func() { <-d.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// offers tells whether one may sign in that way: an account of a way that was
// turned off is nobody.
func (d *Desk) offers(via string) bool {
	return via == ViaLocal && d.cfg.Local || via == ViaLDAP && d.ldap != nil || via == ViaOIDC && d.oidc != nil
}

// identity is who an account is, as of now; nobody if the account counts no more.
func (d *Desk) identity(a *Account) Identity {
	if a == nil || !d.offers(a.Via) || a.lapsed(time.Now()) {
		return Identity{}
	}
	i := Identity{Account: a.ID(), Name: a.Name, Role: a.Role, Via: a.Via}
	for _, s := range a.Subjects {
		if p, ok := d.deps.People.Person(s); ok {
			i.Person = p.ID
			break
		}
	}
	return i
}
