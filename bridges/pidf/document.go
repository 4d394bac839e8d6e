package pidf

import "time"

// ContentType is the media type of a document.
const ContentType = "application/pidf+xml"

// Basic is the one thing that every presence document says: open or closed.
type Basic string

// The values of Basic. An empty one means that the document does not say.
const (
	Open   Basic = "open"
	Closed Basic = "closed"
)

// A Document is the presence of one presentity.
type Document struct {
	Entity string // the URI of the presentity
	Tuples []Tuple
	Notes  []string
	Person Person
	Idle   bool // the user input of a device is idle (RFC 4479, 4480); read, never written
	Plain  bool // write only what RFC 3863 has: no person, class or activities
}

// A Tuple is a service (RFC 4479): one way to reach the presentity.
type Tuple struct {
	ID         string // an XML name, unique in the document
	Basic      Basic
	Activities []string // only in the form that Microsoft writes; RPID has them in the person
	Class      string
	Contact    string // URI of the presentity, never of a watcher
	Priority   string // "0" to "1", at most three digits after the point; empty: not said
	Idle       bool   // the user input of the service is idle
	Notes      []string
	Timestamp  time.Time // UTC, whole seconds; zero: not said
}

// A Person is what the document says of the person as a whole. Several person
// elements are read as one.
type Person struct {
	ID         string
	Name       string    // for people (CIPID, RFC 4482)
	Activities []string  // names of RPID, such as "on-the-phone" and "unknown"
	Cisco      []string  // written once more for phones of Cisco: on-the-phone, busy, and Cisco's available, alerting, dnd
	Since      time.Time // when the activities began; zero: not said
	Until      time.Time // when they end; zero: not said
	Idle       bool      // the user input is idle
	LastInput  time.Time // the last user input; zero: not said
	Notes      []string
	Timestamp  time.Time
}

// said tells whether there is anything to write of p.
func (p *Person) said() bool {
	return len(p.Activities) > 0 || len(p.Cisco) > 0 || p.Idle || len(p.Notes) > 0 || p.Name != ""
}

// Basic gives what the first tuple says, which is what simple readers show;
// Closed if it says nothing.
func (d *Document) Basic() Basic {
	if len(d.Tuples) == 0 || d.Tuples[0].Basic != Open {
		return Closed
	}
	return Open
}

// Activities gives those of the person, then those of the tuples, without doubles.
func (d *Document) Activities() []string {
	var all []string
	for _, a := range d.Person.Activities {
		all = add(all, a)
	}
	for i := range d.Tuples {
		for _, a := range d.Tuples[i].Activities {
			all = add(all, a)
		}
	}
	return all
}
