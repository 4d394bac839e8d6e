package pidf

import (
	"slices"
	"strconv"
	"strings"
)

// ContentTypeDiff is the media type of what AppendFull and AppendDiff write.
const ContentTypeDiff = "application/pidf-diff+xml"

const diffNamespace = ` xmlns:p="urn:ietf:params:xml:ns:pidf-diff"`

// AppendFull appends d to dst as a pidf-full document (RFC 5262): what a watcher
// that takes partial notifications (RFC 5263) gets first, and after it lost one.
// The version rises by one with every document of a subscription.
func (d *Document) AppendFull(dst []byte, version uint32) []byte {
	w := writer{dst, d.Plain}
	w.diffRoot("pidf-full", d.Entity, version)
	w.content(d)
	w.Raw("</p:pidf-full>\n")
	return w.Writer
}

// AppendDiff appends to dst the pidf-diff document (RFC 5262) that turns old, the
// document of the version before, into d. Tuples and the person are replaced,
// added and removed as a whole. Where that cannot be said, or is not shorter, it
// is the pidf-full document. The second value tells whether it is a diff.
func (d *Document) AppendDiff(dst []byte, old *Document, version uint32) ([]byte, bool) {
	full := d.AppendFull(dst, version)
	if d.Entity != old.Entity || d.Plain != old.Plain || !slices.Equal(d.Notes, old.Notes) || !d.inOrder(old) {
		return full, false
	}
	w := writer{nil, d.Plain}
	w.diffRoot("pidf-diff", d.Entity, version)
	for i := range old.Tuples {
		if id := old.Tuples[i].ID; d.index(id) < 0 {
			w.patch("remove", `*/tuple[@id='`+id+`']`, "")
		}
	}
	for i := range d.Tuples {
		t := &d.Tuples[i]
		part := d.part(func(w *writer) { w.tuple(t) })
		switch j := old.index(t.ID); {
		case j >= 0:
			if part != d.part(func(w *writer) { w.tuple(&old.Tuples[j]) }) {
				w.patch("replace", `*/tuple[@id='`+t.ID+`']`, part)
			}
		case i == 0:
			w.patch("add", `*" pos="prepend`, part)
		default:
			w.patch("add", `*/tuple[@id='`+d.Tuples[i-1].ID+`']" pos="after`, part)
		}
	}
	is, was := d.Person.said() && !d.Plain, old.Person.said() && !old.Plain
	part := d.part(func(w *writer) { w.person(&d.Person) })
	switch {
	case is && !was:
		w.patch("add", "*", part)
	case was && !is:
		w.patch("remove", "*/dm:person", "")
	case is && part != d.part(func(w *writer) { w.person(&old.Person) }):
		w.patch("replace", "*/dm:person", part)
	}
	w.Raw("</p:pidf-diff>\n")
	if len(w.Writer) >= len(full)-len(dst) {
		return full, false
	}
	return append(full[:len(dst)], w.Writer...), true
}

func (w *writer) diffRoot(name, entity string, version uint32) {
	w.Raw(declaration + "<p:")
	w.Raw(name)
	w.Raw(namespaces + diffNamespace)
	w.Attribute("entity", entity)
	w.Attribute("version", strconv.FormatUint(uint64(version), 10))
	w.Raw(">")
}

// patch writes an operation of RFC 5261. The selector is of our making.
func (w *writer) patch(operation, selector, part string) {
	w.Raw("\n<p:")
	w.Raw(operation)
	w.Raw(` sel="`)
	w.Raw(selector)
	if part == "" {
		w.Raw(`"/>`)
		return
	}
	w.Raw(`">`)
	w.Raw(part)
	w.Raw("</p:")
	w.Raw(operation)
	w.Raw(">")
}

// part gives what write writes.
func (d *Document) part(write func(*writer)) string {
	w := writer{nil, d.Plain}
	write(&w)
	return string(w.Writer)
}

func (d *Document) index(id string) int {
	return slices.IndexFunc(d.Tuples, func(t Tuple) bool { return t.ID == id })
}

// inOrder tells whether both have distinct tuples whose ids can stand in a
// selector, and those that are in both stand in the same order.
func (d *Document) inOrder(old *Document) bool {
	for _, doc := range []*Document{d, old} {
		for i := range doc.Tuples {
			id := doc.Tuples[i].ID
			if id == "" || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != "" || doc.index(id) != i {
				return false
			}
		}
	}
	last := -1
	for i := range d.Tuples {
		if j := old.index(d.Tuples[i].ID); j >= 0 {
			if j < last {
				return false
			}
			last = j
		}
	}
	return true
}
