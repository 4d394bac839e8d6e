package access

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"presenced/aggregator/presence"
)

// A Memory keeps values by key; a bucket of the store is one. Put and Delete block
// until the change is durable.
type Memory interface {
	Load(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// A record is everything that was set of one person, or of everybody, as the store
// keeps it. It never changes once it is in a folk.
type record struct {
	Of       presence.ID               `json:"of,omitempty"` // empty: everybody
	Rules    []*Rule                   `json:"rules,omitempty"`
	Calendar *presence.CalendarPrivacy `json:"calendar,omitempty"` // nil: access.calendar
	OptedIn  bool                      `json:"opted_in,omitempty"`

	broken bool // the store holds something that cannot be read
	rules  map[Audience]*Rule
	kinds  [kindCount]int // how many rules of each kind
}

// plain tells whether r has no rules.
func (r *record) plain() bool { return len(r.rules) == 0 && !r.broken }

// blank tells whether nothing is set.
func (r *record) blank() bool { return len(r.Rules) == 0 && r.Calendar == nil && !r.OptedIn }

// copy gives a record that may be changed, until index.
func (r *record) copy(of presence.ID) *record {
	if r == nil {
		return &record{Of: of}
	}
	return &record{Of: of, Rules: slices.Clone(r.Rules), Calendar: r.Calendar, OptedIn: r.OptedIn}
}

// index makes r ready for resolve, or says what is wrong with it.
func (r *record) index() error {
	r.rules, r.kinds = make(map[Audience]*Rule, len(r.Rules)), [kindCount]int{}
	for _, rule := range r.Rules {
		if rule == nil {
			return errors.New("a rule is missing")
		}
		fit, err := rule.For.fit()
		if err != nil {
			return err
		}
		if fit != rule.For || rule.Of != r.Of || r.rules[rule.For] != nil {
			return fmt.Errorf("the rule for %s is of somebody else, or there twice", rule.For)
		}
		r.rules[rule.For] = rule
		r.kinds[rule.For.Kind]++
	}
	return nil
}

// put sets a rule in place of one for the same audience; nil removes that. It gives
// the old one, or nil.
func (r *record) put(audience Audience, rule *Rule) (old *Rule) {
	i := slices.IndexFunc(r.Rules, func(held *Rule) bool { return held.For == audience })
	switch {
	case i < 0 && rule != nil:
		r.Rules = append(r.Rules, rule)
	case i < 0:
	case rule == nil:
		old = r.Rules[i]
		r.Rules = slices.Delete(r.Rules, i, i+1)
	default:
		old, r.Rules[i] = r.Rules[i], rule
	}
	return old
}

// A Request is a watcher who waits to be let in.
type Request struct {
	Watcher presence.Subject `json:"watcher"`
	Via     string           `json:"via"` // the bridge that they came by first
	Since   time.Time        `json:"since"`
}

// asked is the requests of one person as the store keeps them.
type asked struct {
	Of       presence.ID `json:"of"`
	Requests []Request   `json:"requests"`
}

// The keys of the bucket.
const (
	everybodyKey = "everybody"
	ofPrefix     = "of."
	askedPrefix  = "asked."
)

func recordKey(of presence.ID) string {
	if of == "" {
		return everybodyKey
	}
	return ofPrefix + hex.EncodeToString([]byte(of))
}

func askedKey(of presence.ID) string { return askedPrefix + hex.EncodeToString([]byte(of)) }

// owner gives whom a key is about, and whether it is a key of that prefix.
func owner(key, prefix string) (presence.ID, bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	id, err := hex.DecodeString(rest)
	return presence.ID(id), ok && err == nil && len(id) > 0
}

// read makes a folk and the requests out of what the store holds. Of a person whose
// record cannot be read nobody is shown anything, and problem is called.
func read(all map[string][]byte, problem func(key string, err error)) (*folk, map[presence.ID]map[presence.Subject]Request) {
	f := &folk{everybody: &record{}, people: map[presence.ID]*record{}}
	requests := map[presence.ID]map[presence.Subject]Request{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if of, ok := owner(key, askedPrefix); ok {
			waiting, err := readAsked(of, all[key])
			if err != nil {
				problem(key, err) // they ask again when their clients do
				continue
			}
			requests[of] = waiting
			continue
		}
		of, ok := owner(key, ofPrefix)
		if !ok && key != everybodyKey {
			problem(key, errors.New("it is about nobody"))
			continue
		}
		r, err := readRecord(of, all[key])
		if err != nil {
			problem(key, err)
			r = &record{Of: of, broken: true}
		}
		if key == everybodyKey {
			f.everybody = r
		} else {
			f.people[of] = r
		}
	}
	return f, requests
}

func readRecord(of presence.ID, data []byte) (*record, error) {
	var r record
	if err := strict(data, &r); err != nil {
		return nil, err
	}
	if r.Of != of {
		return nil, errors.New("it is of somebody else")
	}
	return &r, r.index()
}

func readAsked(of presence.ID, data []byte) (map[presence.Subject]Request, error) {
	var a asked
	if err := strict(data, &a); err != nil {
		return nil, err
	}
	if a.Of != of || len(a.Requests) > MaxRequests {
		return nil, errors.New("it is of somebody else, or too long")
	}
	waiting := map[presence.Subject]Request{}
	for _, r := range a.Requests {
		waiting[canonical(r.Watcher)] = r
	}
	return waiting, nil
}

// strict decodes one object without unknown members: what a later version has
// written may restrict more than is understood here.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("more follows what is right")
	}
	return err
}

// encode gives the value of a key, at most maxRecord bytes.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	if b.Len() > maxRecord {
		return nil, fmt.Errorf("there is no room for more than %d bytes of rules; remove some, or set one for a group or a domain: this %w", maxRecord, ErrUnfit)
	}
	return b.Bytes(), nil
}

// maxRecord bounds what is kept of one person; the store takes a mebibyte a value.
const maxRecord = 512 << 10
