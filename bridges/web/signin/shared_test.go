package signin_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"presenced/bridges/web/signin"
)

// A common is a memory that two machines write to; each write is told to whoever
// watches, in order.
type common struct {
	memory

	telling  sync.Mutex
	watchers []chan written
}

type written struct {
	key   string
	value []byte
}

func (m *common) Put(ctx context.Context, key string, value []byte) error {
	err := m.memory.Put(ctx, key, value)
	if err == nil {
		m.tell(key, value)
	}
	return err
}

func (m *common) Delete(ctx context.Context, key string) error {
	err := m.memory.Delete(ctx, key)
	if err == nil {
		m.tell(key, nil)
	}
	return err
}

func (m *common) tell(key string, value []byte) {
	m.telling.Lock()
	defer m.telling.Unlock()
	for _, w := range m.watchers {
		w <- written{key, value}
	}
}

func (m *common) Watch(ctx context.Context, f func(key string, value []byte, revision uint64)) {
	news := make(chan written, 1000) // a write does not wait for who watches
	m.telling.Lock()
	m.watchers = append(m.watchers, news)
	m.telling.Unlock()
	all, _ := m.Load(ctx)
	for key, value := range all {
		f(key, value, 0)
	}
	f("", nil, 0)
	for {
		select {
		case one := <-news:
			f(one.key, one.value, 0)
		case <-ctx.Done():
			return
		}
	}
}

// What is changed at one machine counts at the other: who signed in there is signed in
// here, and what ends there ends here.
func TestTwoMachines(t *testing.T) {
	var accounts, sessions, tokens common
	machine := func() *world {
		w := &world{t: t}
		w.open(settings())
		w.stop()
		desk, err := signin.New(settings(), signin.Deps{
			Title: "presenced", Origin: origin, Loopback: true, Accounts: &accounts, Sessions: &sessions, Tokens: &tokens, People: w, Audit: w.audit, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		desk.Cheapen()
		w.desk = desk
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = desk.Run(ctx) })
		running.Go(func() { _ = desk.Hear(ctx, &accounts, &sessions, &tokens) })
		t.Cleanup(func() { cancel(); running.Wait() })
		<-desk.Loaded()
		return w
	}
	one, two := machine(), machine()
	soon := func(what string, ok func() bool) {
		t.Helper()
		limit := time.NewTimer(5 * time.Second)
		defer limit.Stop()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !ok() {
			select {
			case <-tick.C:
			case <-limit.C:
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	if err := one.desk.Add(t.Context(), by, signin.NewAccount{User: "ada", Role: signin.Administrator, Password: password}); err != nil {
		t.Fatal(err)
	}
	soon("the account", func() bool { all, _ := two.desk.List(); return len(all) == 1 })
	if _, err := two.desk.FirstLink(); err == nil {
		t.Error("the other machine would make another first administrator")
	}

	b := two.browse()
	id := b.signIn("ada")
	at := func(w *world) signin.Identity { return w.who("Cookie", "presenced="+id) }
	soon("the session", func() bool { return at(one).Account == "local:ada" })
	same, changed := one.desk.Still(at(one))
	if !same {
		t.Error("it is another one")
	}
	token := b.token("read:states")
	bearer := func(w *world) bool { return w.who("Authorization", "Bearer "+token).Token != "" }
	soon("the token", func() bool { return bearer(one) })
	if err := one.desk.Revoke(t.Context(), by, "local:ada", one.desk.Tokens()[0].ID()); err != nil {
		t.Fatal(err)
	}
	soon("the token to end", func() bool { return !bearer(two) && !bearer(one) })
	if a := b.post("/signout", url.Values{}); a.StatusCode != http.StatusSeeOther {
		t.Fatal(a.Status)
	}
	soon("the session to end", func() bool { return at(one).Account == "" })
	<-changed

	id = two.browse().signIn("ada")
	soon("the session", func() bool { return at(one).Account != "" })
	if err := one.desk.SetPassword(t.Context(), by, "ada", password+"!"); err != nil {
		t.Fatal(err)
	}
	soon("the old password to be over", func() bool { return at(two).Account == "" })
}
