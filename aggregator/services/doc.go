// Package services keeps the presence services: the presence servers that an
// administrator lists, adds, edits and deletes while presenced runs, and who is
// published there. It says what a service is, what a change of it does to the
// data of people (Plan), and holds them durably, each with its revision (Catalog).
//
// It publishes nothing: cmd has a bridge follow the catalog.
package services
