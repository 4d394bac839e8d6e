package api

import "github.com/danielgtaylor/huma/v2"

// OpenAPI gives the document, with its schemas.
func (a *API) OpenAPI() *huma.OpenAPI { return a.huma.OpenAPI() }

// Needs gives the permissions of each operation; any one of them is enough.
func (a *API) Needs() map[string]need { return a.needs }

// BeatEvery and MaxLeft are the limits of a stream.
const (
	BeatEvery = beatEvery
	MaxLeft   = maxLeft
)
