package aes

import (
	"fmt"
	"strings"
)

// Numbers are extensions of one length, from the first to the last.
type numbers struct{ first, last string }

// parseNumbers reads one extension (21042), a range (21000-21999), or leading
// digits with an x for each that is open (21xxx).
func parseNumbers(text string) (numbers, error) {
	if first, last, ok := strings.Cut(text, "-"); ok {
		if !digits(first) || !digits(last) || len(first) != len(last) || first > last {
			return numbers{}, fmt.Errorf("%.40q is no range: want two numbers with as many digits, the lower one first, such as 21000-21999", text)
		}
		return numbers{first, last}, nil
	}
	stem := strings.TrimRight(text, "x")
	if open := len(text) - len(stem); open > 0 {
		if stem != "" && !digits(stem) || len(text) > maxExtension {
			return numbers{}, fmt.Errorf("%.40q is no group of extensions: want digits, then an x for each that is open, such as 21xxx", text)
		}
		return numbers{stem + strings.Repeat("0", open), stem + strings.Repeat("9", open)}, nil
	}
	if !extension(text) {
		return numbers{}, fmt.Errorf("%.40q is no extension: want one such as 21042, a range such as 21000-21999, or a group such as 21xxx", text)
	}
	return numbers{text, text}, nil
}

func digits(s string) bool {
	return s != "" && len(s) <= maxExtension && strings.Trim(s, "0123456789") == ""
}

// has tells whether x is among them.
func (n numbers) has(x string) bool {
	return len(x) == len(n.first) && n.first <= x && x <= n.last && (n.first == n.last || digits(x))
}
