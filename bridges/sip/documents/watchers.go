package documents

import "presenced/internal/xmltext"

// WatchersType is the media type of a WatcherInfo.
const WatchersType = "application/watcherinfo+xml"

// A WatcherInfo says who watches, or would like to: the body of a NOTIFY for the
// package presence.winfo (RFC 3857, 3858).
type WatcherInfo struct {
	Version uint32 // from 0, one more in every NOTIFY of a subscription
	Full    bool   // else it tells only what changed
	Lists   []WatcherList
}

// A WatcherList is the watchers of one resource.
type WatcherList struct {
	Resource string // its URI
	Package  string // such as "presence"
	Watchers []Watcher
}

// A Watcher is one subscription. Status is one of pending, waiting, active and
// terminated; Event, what led to it, one of subscribe, approved, deactivated,
// probation, rejected, timeout, giveup and noresource.
type Watcher struct {
	ID         string // unique in the document, the same while the subscription lasts
	URI        string
	Name       string // for people; may be empty
	Status     string
	Event      string
	Expires    uint32 // seconds until the subscription ends; 0: not said
	Subscribed uint32 // seconds since it began; 0: not said
}

// Append appends w to dst as a complete XML document.
func (w *WatcherInfo) Append(dst []byte) []byte {
	x := xmltext.Writer(dst)
	x.Raw(declaration + `<watcherinfo xmlns="urn:ietf:params:xml:ns:watcherinfo"`)
	x.Attribute("version", decimal(w.Version))
	x.Attribute("state", state(w.Full))
	x.Raw(">")
	for i := range w.Lists {
		l := &w.Lists[i]
		x.Raw("\n<watcher-list")
		x.Attribute("resource", l.Resource)
		x.Attribute("package", l.Package)
		x.Raw(">")
		for j := range l.Watchers {
			x.Raw("\n")
			l.Watchers[j].write(&x)
		}
		x.Raw("</watcher-list>")
	}
	x.Raw("</watcherinfo>\n")
	return x
}

func (w *Watcher) write(x *xmltext.Writer) {
	x.Raw("<watcher")
	x.Attribute("id", w.ID)
	x.Attribute("status", w.Status)
	x.Attribute("event", w.Event)
	if w.Name != "" {
		x.Attribute("display-name", w.Name)
	}
	if w.Expires > 0 {
		x.Attribute("expiration", decimal(w.Expires))
	}
	if w.Subscribed > 0 {
		x.Attribute("duration-subscribed", decimal(w.Subscribed))
	}
	x.Raw(">")
	x.Text(w.URI)
	x.Raw("</watcher>")
}

// ParseWatcherInfo reads what Append writes, and what other servers do.
func ParseWatcherInfo(data []byte) (WatcherInfo, error) {
	var info WatcherInfo
	var list *WatcherList
	var watcher *Watcher
	count := 0
	err := read(data, "watcherinfo", func(e element) (err error) {
		switch {
		case e.parent == "":
			info.Full = e.attribute("state") == "full"
			info.Version, err = number(e.attribute("version"), "version")
		case e.name == "watcher-list" && e.parent == "watcherinfo":
			info.Lists = append(info.Lists, WatcherList{Resource: e.attribute("resource"), Package: e.attribute("package")})
			list = &info.Lists[len(info.Lists)-1]
			count++
		case e.name == "watcher" && e.parent == "watcher-list" && list != nil:
			w := Watcher{ID: e.attribute("id"), Name: e.attribute("display-name"), Status: e.attribute("status"), Event: e.attribute("event")}
			for name, to := range map[string]*uint32{"expiration": &w.Expires, "duration-subscribed": &w.Subscribed} {
				if s := e.attribute(name); s != "" {
					if *to, err = number(s, name); err != nil {
						return err
					}
				}
			}
			list.Watchers = append(list.Watchers, w)
			watcher = &list.Watchers[len(list.Watchers)-1]
			count++
		}
		if count > MaxEntries {
			return tooMany("lists and watchers")
		}
		return err
	}, func(e element) error {
		switch {
		case e.name == "watcher" && e.parent == "watcher-list" && watcher != nil:
			watcher.URI, watcher = e.text, nil
		case e.name == "watcher-list" && e.parent == "watcherinfo":
			list = nil
		}
		return nil
	})
	if err != nil {
		return WatcherInfo{}, err
	}
	return info, nil
}
