package signin_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"presenced/bridges/web/signin"
)

// who gives whom Guard finds behind a request.
func (w *world) who(header, value string) (who signin.Identity) {
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, origin+"/", nil)
	r.Header.Set(header, value)
	w.desk.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { who = signin.From(r.Context()) })).ServeHTTP(httptest.NewRecorder(), r)
	return who
}

// What lasts is told when what it rests on ends; and its asking is no use of a session.
func TestStill(t *testing.T) {
	w := newWorld(t, settings())
	session := func(user string) signin.Identity { return w.who("Cookie", "presenced="+w.browse().signIn(user)) }
	token := func(user string) signin.Identity {
		b := w.browse()
		b.signIn(user)
		return w.who("Authorization", "Bearer "+b.token("read:states"))
	}
	for _, tt := range []struct {
		what string
		who  signin.Identity
		end  func(signin.Identity) error
	}{
		{"the account gets another role", session("otto"), func(signin.Identity) error { return w.desk.SetRole(t.Context(), by, "otto", signin.Person) }},
		{"the account goes", token("anna"), func(signin.Identity) error { return w.desk.Remove(t.Context(), by, "anna") }},
		{"the token is revoked", token("ada"), func(who signin.Identity) error { return w.desk.Revoke(t.Context(), by, who.Account, who.Token) }},
		{"a new password", session("ada"), func(signin.Identity) error { return w.desk.SetPassword(t.Context(), by, "ada", password+"!") }},
	} {
		if tt.who.Account == "" {
			t.Fatalf("%s: nobody is there", tt.what)
		}
		same, changed := w.desk.Still(tt.who)
		if !same {
			t.Fatalf("%s: over before", tt.what)
		}
		if err := tt.end(tt.who); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Errorf("%s: nothing tells", tt.what)
		}
		if same, _ := w.desk.Still(tt.who); same {
			t.Errorf("%s: still the same", tt.what)
		}
	}
	if same, _ := w.desk.Still(signin.Identity{}); !same {
		t.Error("nobody is somebody")
	}
}

func TestStillIsNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settings())
		defer w.stop()
		id := serve(w, w.site(), http.MethodPost, "/signin", "10.0.0.1", "", url.Values{"user": {"anna"}, "password": {password}}).Result().Cookies()[0].Value
		who := w.who("Cookie", "presenced="+id)
		for range 7 {
			time.Sleep(time.Hour)
			if same, _ := w.desk.Still(who); !same {
				t.Fatal("ended before it was idle for 8 hours")
			}
		}
		time.Sleep(time.Hour)
		if same, _ := w.desk.Still(who); same {
			t.Error("to ask whether it lasts makes it last")
		}
	})
}
