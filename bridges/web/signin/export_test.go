package signin

// Cheapen makes hashes that cost next to nothing, for tests that make many.
func (d *Desk) Cheapen() {
	d.cost = cost{memory: 8, time: 1, threads: 1}
	d.decoy.cost = d.cost
}

// Harden takes back Cheapen.
func (d *Desk) Harden() { d.cost = newCost() }

// SafeNext is safeNext.
func SafeNext(next string) string { return safeNext(next) }

// Hurry has a refusal take no longer than it takes.
func (d *Desk) Hurry() { d.patience = 0 }

// Amnesty forgets all attempts.
func (d *Desk) Amnesty() { d.limits = newLimiter() }
