package web

import "presenced/aggregator/presence"

// A tally counts people by state. Those who are uncertain count twice: there,
// and as what they are.
type tally struct {
	all       int
	uncertain int
	by        [presence.Available + 1]int
}

func (t *tally) add(s *presence.State) { t.change(standingOf(s), 1) }

// change has n people more, or less, count like that.
func (t *tally) change(as standing, n int) {
	t.all += n
	t.by[as&^standsUncertain-1] += n
	if as&standsUncertain != 0 {
		t.uncertain += n
	}
}

// A standing is as what a person counts: one more than their availability, and whether they
// are uncertain. Zero: they do not count.
type standing uint8

const standsUncertain standing = 1 << 7

func standingOf(s *presence.State) standing {
	as := standing(s.Availability) + 1
	if isUncertain(s) {
		as |= standsUncertain
	}
	return as
}

// A census is the tally of those who count for one stream, as far as it has read the
// feed. It takes in what changed, so that nobody is counted again who did not change.
type census struct {
	tally

	standings []standing // by the number of the row; a byte for each person
}

// take has the person of a row count as they are seen; nil: they do not count.
func (c *census) take(r *row, seen *presence.State) {
	for r.number >= len(c.standings) {
		c.standings = append(c.standings, 0)
	}
	was := c.standings[r.number]
	if was != 0 {
		c.change(was, -1)
	}
	c.standings[r.number] = 0
	if seen != nil {
		c.standings[r.number] = standingOf(seen)
		c.add(seen)
	}
}
