// Package optim reads which telephones outside Communication Manager stand for which
// stations (its OPTIM, or off-PBX, station mapping), from the report of the system
// access terminal or from CSV, and ties them to the people of a directory.
//
// It does no I/O of its own; only cmd and tests import it.
package optim
