package config

import "fmt"

// A Problem is one thing wrong with a configuration. Path names the key as the
// checking part knows it, such as "address" or "servers[1].url"; whoever calls
// the part puts its own place before it (Under).
type Problem struct {
	Path string
	Text string // what is wrong, and what would be right
}

// Wrong makes a Problem.
func Wrong(path, format string, args ...any) Problem {
	return Problem{Path: path, Text: fmt.Sprintf(format, args...)}
}

// Under puts place before the path of each problem: Under("aes[0]", ...).
func Under(place string, problems []Problem) []Problem {
	out := make([]Problem, 0, len(problems))
	for _, p := range problems {
		if p.Path == "" {
			p.Path = place
		} else {
			p.Path = place + "." + p.Path
		}
		out = append(out, p)
	}
	return out
}
