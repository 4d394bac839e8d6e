package main

import "presenced/aggregator/presence"

// openGate shows everybody all that is not private.
type openGate struct{}

// Admit implements presence.Gate.
func (openGate) Admit(presence.Watcher, presence.ID) presence.Access { return presence.Everyone() }

// Dismiss implements presence.Gate.
func (openGate) Dismiss(presence.Watcher, presence.ID) {}

// Access implements presence.Gate.
func (openGate) Access(presence.Watcher, presence.ID) presence.Access { return presence.Everyone() }
