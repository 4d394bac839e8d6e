package documents

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strconv"
	"strings"

	"presenced/internal/xmltext"
)

// ListType is the media type of the body that Append writes; the one it gives has
// parameters too.
const ListType = "multipart/related"

const rlmiType = "application/rlmi+xml"

// maxNested is how many lists may stand within one another.
const maxNested = 3

// A List says how the resources of a list are: the body of a NOTIFY to a
// subscription to a list (RFC 4662).
type List struct {
	URI       string
	Version   uint32 // one more in every NOTIFY of a subscription
	Full      bool   // else it has only the resources that changed
	Resources []Resource
}

// A Resource is one of a list. Without an instance nothing is known of it yet.
type Resource struct {
	URI       string
	Name      string // for people; may be empty
	Instances []Instance
}

// An Instance is one subscription that the list server holds for its list. State
// is one of active, pending and terminated; Reason says why it is terminated, as
// in Subscription-State.
//
// An instance has a Body of type ContentType, or is a List itself, or neither.
type Instance struct {
	ID          string // unique among the instances of its resource
	State       string
	Reason      string
	ContentType string
	Body        []byte
	List        *List
}

// Append appends the body that says l to dst, and gives its Content-Type. The
// bodies of the instances are copied as they are. The host is that of the list
// server: Content-IDs end in it.
//
// A list may hold lists to a depth of 3 in all; what is deeper is left out.
func (l *List) Append(dst []byte, host string) (body []byte, contentType string) {
	return l.append(dst, "", host, 1)
}

func (l *List) append(dst []byte, path, host string, depth int) ([]byte, string) {
	type part struct {
		id, contentType string
		body            []byte
	}
	root := part{id: "list" + path + "@" + host, contentType: rlmiType + `;charset="UTF-8"`}
	parts := []part{root}
	x := xmltext.Writer(nil)
	x.Raw(declaration + `<list xmlns="urn:ietf:params:xml:ns:rlmi"`)
	x.Attribute("uri", l.URI)
	x.Attribute("version", decimal(l.Version))
	x.Attribute("fullState", strconv.FormatBool(l.Full))
	x.Raw(">")
	for i := range l.Resources {
		r := &l.Resources[i]
		x.Raw("\n<resource")
		x.Attribute("uri", r.URI)
		x.Raw(">")
		x.Element("name", r.Name)
		for j := range r.Instances {
			n := &r.Instances[j]
			x.Raw("<instance")
			x.Attribute("id", n.ID)
			x.Attribute("state", n.State)
			if n.Reason != "" {
				x.Attribute("reason", n.Reason)
			}
			place := path + "." + strconv.Itoa(i) + "." + strconv.Itoa(j)
			p := part{"part" + place + "@" + host, n.ContentType, n.Body}
			if n.List != nil && depth < maxNested {
				p.body, p.contentType = n.List.append(nil, place, host, depth+1)
			}
			if p.body != nil {
				x.Attribute("cid", p.id)
				parts = append(parts, p)
			}
			x.Raw("/>")
		}
		x.Raw("</resource>")
	}
	x.Raw("</list>\n")
	parts[0].body = x

	fence := fence{}
	for _, p := range parts {
		fence.avoid(p.body)
	}
	boundary := fence.String()
	for _, p := range parts {
		dst = append(dst, "--"+boundary+"\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <"+p.id+">\r\nContent-Type: "+p.contentType+"\r\n\r\n"...)
		dst = append(dst, p.body...)
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, "--"+boundary+"--\r\n"...)
	return dst, ListType + `;type="` + rlmiType + `";start="<` + root.id + `>";boundary="` + boundary + `"`
}

// A fence makes a boundary whose delimiter stands in none of the parts: a word and
// the smallest number of ten digits that follows it nowhere.
type fence map[string]bool

const (
	fenceWord   = "presenced-"
	fenceDigits = 10
)

func (f fence) avoid(part []byte) {
	for {
		_, rest, found := bytes.Cut(part, []byte("--"+fenceWord))
		if !found {
			return
		}
		f[string(rest[:min(fenceDigits, len(rest))])] = true
		part = rest
	}
}

func (f fence) String() string {
	for n := 0; ; n++ {
		if number := fmt.Sprintf("%0*d", fenceDigits, n); !f[number] {
			return fenceWord + number
		}
	}
}

// ParseList reads the body of a NOTIFY to a subscription to a list. Of a resource
// whose part is missing nothing is known but the state of the instance. It fails
// where there are more than MaxEntries resources, counting those of lists within
// the list and further instances, or lists stand deeper than 3 within one another.
func ParseList(contentType string, body []byte) (List, error) {
	if len(body) > MaxSize {
		return List{}, fmt.Errorf("documents: a list of %d bytes, the limit is %d", len(body), MaxSize)
	}
	room := MaxEntries
	return parseList(contentType, body, maxNested, &room)
}

func parseList(contentType string, body []byte, depth int, room *int) (List, error) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil || kind != ListType || parameters["boundary"] == "":
		return List{}, fmt.Errorf("documents: the body of a list is not %s with a boundary", ListType)
	case depth == 0:
		return List{}, fmt.Errorf("documents: lists within lists, deeper than %d", maxNested)
	}
	parts := map[string]*Instance{} // by Content-ID
	first := ""
	r := multipart.NewReader(bytes.NewReader(body), parameters["boundary"])
	for count := 0; ; count++ {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return List{}, errors.New("documents: the parts of a list do not keep to their boundary")
		}
		if count > MaxEntries {
			return List{}, fmt.Errorf("documents: %w", tooMany("parts"))
		}
		switch encoding := strings.ToLower(p.Header.Get("Content-Transfer-Encoding")); encoding {
		case "", "7bit", "8bit", "binary":
		default:
			return List{}, errors.New("documents: the Content-Transfer-Encoding of a part is not binary")
		}
		data, err := io.ReadAll(p)
		if err != nil {
			return List{}, errors.New("documents: the last part of a list is cut off")
		}
		id := strings.Trim(p.Header.Get("Content-ID"), "<> ")
		if count == 0 {
			first = id
		}
		parts[id] = &Instance{ContentType: p.Header.Get("Content-Type"), Body: data}
	}
	start := strings.Trim(parameters["start"], "<> ")
	if start == "" {
		start = first
	}
	root := parts[start]
	if root == nil || !isType(root.ContentType, rlmiType) {
		return List{}, fmt.Errorf("documents: no part of %s where the list should start", rlmiType)
	}
	list, cids, err := parseMeta(root.Body, room)
	if err != nil {
		return List{}, err
	}
	for i := range list.Resources {
		for j := range list.Resources[i].Instances {
			n := &list.Resources[i].Instances[j]
			cid := cids[place{i, j}]
			part := parts[cid]
			delete(parts, cid) // is of one instance, else a small body could make a large list
			switch {
			case part == nil || part == root:
			case isType(part.ContentType, ListType):
				nested, err := parseList(part.ContentType, part.Body, depth-1, room)
				if err != nil {
					return List{}, err
				}
				n.List = &nested
			default:
				n.ContentType, n.Body = part.ContentType, part.Body
			}
		}
	}
	return list, nil
}

func isType(contentType, want string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == want
}

// A place is that of an instance in a list.
type place struct{ resource, instance int }

// parseMeta reads the document that says what is in a list, and the Content-ID of
// each instance that has a part. The room is for resources and instances.
func parseMeta(data []byte, room *int) (List, map[place]string, error) {
	var list List
	cids := map[place]string{}
	var resource *Resource
	err := read(data, "list", func(e element) (err error) {
		switch {
		case e.parent == "":
			full := e.attribute("fullState")
			list.URI, list.Full = e.attribute("uri"), full == "true" || full == "1"
			list.Version, err = number(e.attribute("version"), "version")
		case e.name == "resource" && e.parent == "list":
			list.Resources = append(list.Resources, Resource{URI: e.attribute("uri")})
			resource = &list.Resources[len(list.Resources)-1]
			*room--
		case e.name == "instance" && e.parent == "resource" && resource != nil:
			if cid := e.attribute("cid"); cid != "" {
				cids[place{len(list.Resources) - 1, len(resource.Instances)}] = cid
			}
			if len(resource.Instances) > 0 {
				*room--
			}
			resource.Instances = append(resource.Instances, Instance{ID: e.attribute("id"), State: e.attribute("state"), Reason: e.attribute("reason")})
		}
		if *room < 0 {
			return tooMany("resources")
		}
		return err
	}, func(e element) error {
		switch {
		case e.name == "name" && e.parent == "resource" && resource != nil && resource.Name == "":
			resource.Name = e.text
		case e.name == "resource" && e.parent == "list":
			resource = nil
		}
		return nil
	})
	return list, cids, err
}
