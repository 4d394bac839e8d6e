package directory_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"presenced/aggregator/directory"
	"presenced/aggregator/presence"
)

// TestModel compares a directory with the plainest one: a list that is searched.
func TestModel(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "a", "A", "b", "ann", "Ann ", "ä", strings.Repeat("long", 100)})
	subject := rapid.Custom(func(t *rapid.T) presence.Subject {
		return presence.Subject{Scheme: rapid.SampledFrom([]string{"tel", "mail", " SIP", "id"}).Draw(t, "scheme"), Value: word.Draw(t, "value")}
	})
	person := rapid.Custom(func(t *rapid.T) presence.Person {
		return presence.Person{
			ID: presence.ID(word.Draw(t, "id")), Name: word.Draw(t, "name"),
			Groups: rapid.SliceOfN(word, 0, 3).Draw(t, "groups"), Subjects: rapid.SliceOfN(subject, 0, 12).Draw(t, "subjects"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		people := rapid.SliceOfN(person, 0, 8).Draw(t, "people")
		model, problems := naive(people)
		d, got := directory.New(people)
		if len(got) != problems {
			t.Fatalf("%d problems, want %d: %q", len(got), problems, got)
		}
		if d.Len() != len(model) {
			t.Fatalf("%d people, want %d", d.Len(), len(model))
		}
		if diff := diff.Diff(model, slices.Collect(d.All())); diff != "" {
			t.Fatal(diff)
		}
		if again, _ := directory.New(people); !again.Equal(d) || d.Equal(directory.Empty()) != (len(model) == 0) {
			t.Fatal("equal is wrong")
		}
		asked := subject.Draw(t, "asked")
		var want presence.Person
		at := slices.IndexFunc(model, func(p presence.Person) bool {
			s := directory.Canonical(asked)
			return s.Scheme == directory.SchemeID && s.Value == string(p.ID) || slices.Contains(p.Subjects, s) ||
				asked == presence.Subject{Scheme: directory.SchemeID, Value: string(p.ID)}
		})
		if at >= 0 {
			want = model[at]
		}
		p, found := d.Find(asked)
		owner, owned := d.Owner(asked)
		if diff := diff.Diff(want, p); diff != "" || found != (at >= 0) || owned != found || owner != p.ID {
			t.Fatalf("%s: found %v, owner %q\n%s", asked, found, owner, diff)
		}
		id := presence.ID(word.Draw(t, "who"))
		p, found = d.Person(id)
		if known := slices.ContainsFunc(model, func(p presence.Person) bool { return p.ID == id }); found != known || d.Has(id) != known || known && p.ID != id {
			t.Fatalf("%q: found %v, has %v, want %v", id, found, d.Has(id), known)
		}
		var of []presence.Subject
		for _, p := range model {
			for _, s := range p.Subjects {
				if s.Scheme == asked.Scheme {
					of = append(of, s)
				}
			}
		}
		slices.SortFunc(of, func(a, b presence.Subject) int { return cmp.Compare(a.Value, b.Value) })
		if diff := diff.Diff(of, d.Subjects(asked.Scheme)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// naive gives the people of a directory, and how many problems there are.
func naive(people []presence.Person) (kept []presence.Person, problems int) {
	people = slices.Clone(people)
	slices.SortStableFunc(people, func(a, b presence.Person) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), cmp.Compare(a.ID, b.ID))
	})
	for _, p := range people {
		if p.ID == "" || slices.ContainsFunc(kept, func(other presence.Person) bool { return other.ID == p.ID }) {
			problems++
			continue
		}
		var own []presence.Subject
		for _, s := range p.Subjects {
			s = directory.Canonical(s)
			switch taken := slices.ContainsFunc(kept, func(other presence.Person) bool { return slices.Contains(other.Subjects, s) }); {
			case s == presence.Subject{Scheme: directory.SchemeID, Value: string(p.ID)}, slices.Contains(own, s):
			case taken, s.Scheme == directory.SchemeID:
				problems++
			default:
				own = append(own, s)
			}
		}
		p.Subjects = own
		if len(p.Groups) == 0 {
			p.Groups = nil
		}
		kept = append(kept, p)
	}
	return kept, problems
}

func TestOwnerDoesNotAllocate(t *testing.T) {
	subject := presence.Subject{Scheme: "mail", Value: "ann@example.com"}
	d, _ := directory.New([]presence.Person{{ID: "ann", Name: "Ann", Subjects: []presence.Subject{subject}}})
	if n := testing.AllocsPerRun(100, func() { d.Owner(subject) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What did not change is the same directory, so that nobody has to begin anew.
func TestUnchanged(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, id := range []string{"ann", "ben"} {
		file := filepath.Join(dir, id)
		if err := os.WriteFile(file, fmt.Appendf(nil, "people:\n- {id: %[1]s, name: %[1]s, groups: [Sales]}\n", id), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		w := directory.NewWatch(directory.Config{Files: files, Interval: time.Minute, Keep: 0.8}, slog.New(slog.DiscardHandler))
		first, err := w.Read(t.Context())
		if err != nil || first.Len() != len(files) {
			t.Fatalf("%d people, %v", first.Len(), err)
		}
		if again, _ := w.Read(t.Context()); again != first {
			t.Errorf("another directory of the same %d people", again.Len())
		}
	}
}

// PollNow reads at once, and Status says what cannot be read.
func TestPollNow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "people")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("people:\n- {id: ann, name: Ann}\n")
	w := directory.NewWatch(directory.Config{Files: []string{file}, Interval: time.Hour, Keep: 0.8}, slog.New(slog.DiscardHandler))
	if _, err := w.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := w.Status(); s.Phase != presence.PhaseLive || s.Detail != "1 people" {
		t.Errorf("%+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan int), make(chan error)
	go func() { done <- w.Run(ctx, func(d *directory.Directory) { changes <- d.Len() }) }()
	write("people:\n- {id: ann, name: Ann}\n- {id: ben, name: Ben}\n")
	w.PollNow()
	if n := <-changes; n != 2 {
		t.Errorf("%d people", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	write("people: 7\n")
	if _, err := w.Read(t.Context()); err == nil {
		t.Error("that was read")
	}
	if s := w.Status(); s.Phase != presence.PhaseDegraded || s.LastError == "" || !strings.Contains(s.Detail, "the 2 people stay") {
		t.Errorf("%+v", s)
	}
}

func BenchmarkOwner(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			people := make([]presence.Person, n)
			for i := range people {
				people[i] = presence.Person{ID: presence.ID(fmt.Sprint("p", i)), Name: fmt.Sprint("P", i), Subjects: []presence.Subject{
					{Scheme: "tel", Value: fmt.Sprint(i)}, {Scheme: "mail", Value: fmt.Sprintf("person.%d@example.com", i)},
				}}
			}
			d, _ := directory.New(people)
			i := 0
			for b.Loop() {
				if _, ok := d.Owner(people[i].Subjects[1]); !ok {
					b.Fatal(i)
				}
				i = (i + 7919) % n
			}
		})
	}
}
