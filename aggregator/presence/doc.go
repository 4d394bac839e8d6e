// Package presence is the vocabulary of presenced and the decision at its heart.
//
// A source states facts about a person for spans of time (Report). A Policy
// turns the facts that hold now into one State and says when that state may
// next change. Deciding is pure: no clock, no I/O, no randomness, so that
// replay, dry run, explanation, property tests and every node of a cluster use
// one function and agree without talking.
//
// Every other package may import this one; this one imports the standard
// library only. Values are safe to share once built: nothing here mutates its
// arguments, and nothing here blocks.
package presence
