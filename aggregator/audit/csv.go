package audit

import (
	"encoding/csv"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteCSV writes lines as a table with a heading, times by RFC 3339. No cell is a
// formula to a spreadsheet: one that would be begins with an apostrophe.
func WriteCSV(w io.Writer, lines []Line) error {
	out := csv.NewWriter(w)
	_ = out.Write([]string{"at", "who", "from", "what", "whom", "detail"}) // Flush tells
	for _, l := range lines {
		_ = out.Write([]string{l.At.UTC().Format(time.RFC3339Nano), cell(l.Who), cell(l.From), cell(l.What), cell(l.Whom), cell(l.Detail)})
	}
	out.Flush()
	return out.Error()
}

// cell is text as a spreadsheet is to take it: as text. Blanks before a formula do
// not make it less of one.
func cell(text string) string {
	if first, size := utf8.DecodeRuneInString(strings.TrimLeft(text, " ")); size > 0 && strings.ContainsRune("=+-@＝＋－＠'\t\r\n", first) {
		return "'" + text
	}
	return text
}
