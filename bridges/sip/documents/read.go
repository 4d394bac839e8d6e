package documents

import (
	"fmt"
	"strconv"
	"strings"

	"presenced/internal/xmltext"
)

// Limits of what is read. A text is cut at MaxText bytes.
const (
	MaxSize    = 1 << 20 // bytes of a document; a larger one is refused unread
	MaxEntries = 1000    // entries, resources, watchers or dialogs; a document with more is refused
	MaxText    = 1024
)

// An element is one of a document being read: just opened, or just closed with
// its text.
type element struct {
	name, parent string
	text         string
	attribute    func(name string) string
}

// read goes through a document whose root is called root. Both functions are
// called for every element, the root too; done gets its text.
func read(data []byte, root string, begun, done func(element) error) error {
	if len(data) > MaxSize {
		return fmt.Errorf("documents: %s of %d bytes, the limit is %d", root, len(data), MaxSize)
	}
	scan := xmltext.New(string(data))
	attribute := func(name string) string {
		value := scan.Attribute(name)
		return strings.ToValidUTF8(value[:min(len(value), MaxText)], "")
	}
	var names [xmltext.MaxDepth + 1]string // by depth; that of the root is at 1, so that each has a parent
	var texts [xmltext.MaxDepth + 1]string
	for {
		kind, err := scan.Next()
		if err != nil {
			return fmt.Errorf("documents: %s: %w", root, err)
		}
		depth := scan.Depth()
		switch kind {
		case xmltext.EOF:
			return nil
		case xmltext.Start:
			names[depth], texts[depth] = scan.Name(), ""
			if depth == 1 && scan.Name() != root {
				return fmt.Errorf("documents: the root is not %s", root)
			}
			err = begun(element{name: names[depth], parent: names[depth-1], attribute: attribute})
		case xmltext.Text:
			if room := MaxText - len(texts[depth]); room > 0 {
				text := scan.Text()
				texts[depth] += text[:min(room, len(text))]
			}
		case xmltext.End:
			text := strings.TrimSpace(strings.ToValidUTF8(texts[depth+1], ""))
			err = done(element{name: names[depth+1], parent: names[depth], text: text})
		}
		if err != nil {
			return fmt.Errorf("documents: %s: %w", root, err)
		}
	}
}

// number reads a version or a time of whole seconds.
func number(s, name string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number from 0 to 4294967295", name)
	}
	return uint32(n), nil
}

// tooMany is the error for one more than MaxEntries.
func tooMany(what string) error { return fmt.Errorf("more than %d %s", MaxEntries, what) }

const declaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// state gives how a document says whether it is complete.
func state(full bool) string {
	if full {
		return "full"
	}
	return "partial"
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
