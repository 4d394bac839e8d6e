package web

import (
	"strconv"
	"time"

	"presenced/aggregator/presence"
)

// A timeline is one day of a person's presence as a bar.
type timeline struct {
	Hours []hourMark
	Spans []spanMark
	Now   string // where the moment of the page is
}

// An hourMark is a line and its label, which the script writes in the zone of the viewer.
type hourMark struct {
	X, Text, ISO, Anchor string
	Odd                  bool // left out where there is little room
}

type spanMark struct{ S, X, Width, Words string }

const hourStep = 3

// timelineOf draws changes, the earliest first, over a day that begins at from;
// what follows until is not known yet.
func timelineOf(changes []Change, from, until, at time.Time) *timeline {
	end := from.AddDate(0, 0, 1)
	x := func(t time.Time) float64 { return 100 * float64(t.Sub(from)) / float64(end.Sub(from)) }
	v := &timeline{Now: perCent(x(at))}
	for hour := 0; hour <= 24; hour += hourStep {
		t := time.Date(from.Year(), from.Month(), from.Day(), hour, 0, 0, 0, from.Location())
		mark := hourMark{X: perCent(x(t)), Text: t.Format("15:04"), ISO: t.UTC().Format(time.RFC3339), Anchor: "middle", Odd: hour/hourStep%2 == 1}
		switch hour {
		case 0:
			mark.Anchor = "start"
		case 24:
			mark.Anchor = "end"
		}
		v.Hours = append(v.Hours, mark)
	}
	for i := range changes {
		c := &changes[i]
		begin, over := c.At, until
		if i+1 < len(changes) {
			over = changes[i+1].At
		}
		if begin.Before(from) {
			begin = from
		}
		if !over.After(begin) {
			continue
		}
		st := presence.State{Availability: c.Availability, Activity: c.Activity}
		l := lookOf(&st)
		if words, _ := doing(&st); words != "" {
			l.Word += ", " + words
		}
		v.Spans = append(v.Spans, spanMark{l.S, perCent(x(begin)), perCent(max(x(over)-x(begin), leastWidth)), l.Word})
	}
	return v
}

const leastWidth = 0.1 // per cent; what is shorter could not be seen

func perCent(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) + "%" }
