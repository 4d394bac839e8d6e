package lps

import (
	"fmt"
	"time"

	"presenced/aggregator/presence"
	"presenced/bridges/pidf"
	"presenced/bridges/sip/documents"
)

// An xmlEncoder is the Encoder of the service.
type xmlEncoder struct {
	options pidf.Options
	host    string // in which Content-IDs end
}

// Presence implements Encoder.
func (e *xmlEncoder) Presence(view *presence.State, address string) []byte {
	return pidf.Append(make([]byte, 0, 1024), *view, URI(address), e.options)
}

// Partial implements Encoder.
func (e *xmlEncoder) Partial(was, view *presence.State, address string, version uint32) []byte {
	d := pidf.FromState(*view, URI(address), e.options)
	if was == nil {
		return d.AppendFull(nil, version)
	}
	old := pidf.FromState(*was, URI(address), e.options)
	body, _ := d.AppendDiff(nil, &old, version)
	return body
}

// Phone implements Encoder.
func (e *xmlEncoder) Phone(view *presence.State, address string, version uint32) []byte {
	d := documents.DialogInfo{Version: version, Full: true, Entity: URI(address), Dialogs: documents.Dialogs(view.Channel(presence.Phone))}
	return d.Append(nil)
}

// Watchers implements Encoder.
func (e *xmlEncoder) Watchers(watching []Watching, address string, version uint32) []byte {
	list := documents.WatcherList{Resource: URI(address), Package: aboutPresence.String()}
	for _, w := range watching {
		one := documents.Watcher{ID: w.ID, URI: URI(w.Watcher.Value), Status: "active", Event: "approved"}
		if w.Pending {
			one.Status, one.Event = "pending", "subscribe"
		}
		list.Watchers = append(list.Watchers, one)
	}
	info := documents.WatcherInfo{Version: version, Full: true, Lists: []documents.WatcherList{list}}
	return info.Append(nil)
}

// List implements Encoder.
func (e *xmlEncoder) List(resources []Listed, address string, version uint32, full bool) (body []byte, mediaType string) {
	l := documents.List{URI: URI(address), Version: version, Full: full}
	for _, r := range resources {
		one := documents.Instance{ID: "1", State: "active", ContentType: pidf.ContentType, Body: r.Body}
		switch {
		case r.Body == nil:
			one = documents.Instance{ID: "1", State: "terminated", Reason: "noresource"}
		case r.Pending:
			one.State = "pending"
		}
		l.Resources = append(l.Resources, documents.Resource{URI: URI(r.Address), Instances: []documents.Instance{one}})
	}
	return l.Append(nil, e.host)
}

// readPresence gives what a published document states.
func readPresence(body []byte, at time.Time) ([]presence.Span, error) {
	d, err := pidf.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("no presence document: %w", err)
	}
	return pidf.Facts(d, at), nil
}
