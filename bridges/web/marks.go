package web

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sort"
	"strings"

	"presenced/aggregator/presence"
)

// Marks are people as a page of the board names them to its stream: the four bytes of
// each mark, sorted, so that those of a page fit into an address. Rows stay on a page
// while others pass them by, so no range of an order could say whom it shows. Two
// people may have one mark: then a row comes that the page has no place for, and leaves.
type marks string

const markSize = 4

func markOf(id presence.ID) marks {
	return marks(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(id))))
}

func marksOf(members []*member) marks {
	all := make([]string, 0, len(members))
	for _, m := range members {
		all = append(all, string(markOf(m.person.ID)))
	}
	slices.Sort(all)
	return marks(strings.Join(all, ""))
}

// String gives m as part of an address.
func (m marks) String() string { return base64.RawURLEncoding.EncodeToString([]byte(m)) }

// parseMarks is the inverse of String. What is nobody's marks, or more than a page
// shows, is none: who sends it gets all rows.
func parseMarks(text string) marks {
	if len(text) > base64.RawURLEncoding.EncodedLen(pageRows*markSize) {
		return ""
	}
	m, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(m)%markSize != 0 {
		return ""
	}
	return marks(m)
}

// has tells whether one is among m, or m is empty.
func (m marks) has(one marks) bool {
	n := len(m) / markSize
	at := func(i int) marks { return m[i*markSize : (i+1)*markSize] }
	i := sort.Search(n, func(i int) bool { return at(i) >= one })
	return n == 0 || i < n && at(i) == one
}
