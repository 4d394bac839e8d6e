package outbox

import (
	"encoding/json"
	"time"

	"presenced/aggregator/presence"
)

// Version is that of the form of a Document. It rises when a reader of the form
// before would misread it; new keys do not raise it.
const Version = 1

// A Document is what receivers are told of one person, as JSON. Times are of UTC.
// What is empty or not known is left out.
type Document struct {
	Version  int                         `json:"version"`
	Person   presence.ID                 `json:"person"`
	Name     string                      `json:"name,omitempty"`
	State    presence.Availability       `json:"state"`              // available, busy, dnd, ...
	Activity presence.Activity           `json:"activity,omitempty"` // on-the-phone, in-a-meeting, ...
	Text     string                      `json:"text"`               // both in words, for people
	Overlays []string                    `json:"overlays,omitempty"` // oof, stale, expires-at
	Since    time.Time                   `json:"since,omitzero"`
	Until    time.Time                   `json:"until,omitzero"`
	Channels map[string]presence.Channel `json:"channels,omitempty"` // phone, calendar, im, video
}

// NewDocument says s, which was viewed already (presence.View), of a person of that name.
func NewDocument(name string, s *presence.State) Document {
	d := Document{
		Version: Version, Person: s.Person, Name: name, State: s.Availability, Activity: s.Activity, Text: s.Text(),
		Overlays: s.Overlays.Names(), Since: s.Since.UTC(), Until: s.Until.UTC(), Channels: map[string]presence.Channel{},
	}
	for k, c := range s.Channels {
		if c.State != presence.ChannelUnknown {
			c.Since, c.Until = c.Since.UTC(), c.Until.UTC()
			d.Channels[presence.ChannelKind(k).String()] = c //nolint:gosec // bounded by the array
		}
	}
	return d
}

// JSON gives the same bytes for the same document.
func (d *Document) JSON() []byte {
	data, err := json.Marshal(d)
	if err != nil {
		panic(err) // texts, numbers and times of our own making
	}
	return data
}
