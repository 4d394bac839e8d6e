package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
)

// fetch is get, and the body as it was before it was compressed, if it was.
func fetch(t *testing.T, s *Site, path string, header ...string) (*httptest.ResponseRecorder, []byte) {
	t.Helper()
	rec := get(t, s, path, header...)
	if rec.Header().Get("Content-Encoding") != "gzip" {
		return rec, rec.Body.Bytes()
	}
	z, err := gzip.NewReader(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return rec, body
}

func TestCompression(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes, which pages tell
		testCompression(t, newSite(office()))
	})
}

func testCompression(t *testing.T, s *Site) {
	for name, c := range map[string]struct {
		path   string
		header []string
		want   string
	}{
		"a page":                    {"/", []string{"Accept-Encoding", "gzip, deflate, br, zstd"}, "gzip"},
		"in capitals":               {"/", []string{"Accept-Encoding", "br;q=1.0, GZIP;q=0.5"}, "gzip"},
		"typed by the user":         {"/", []string{"Accept-Encoding", "gzip", "Sec-Fetch-Site", "none"}, "gzip"},
		"by this site":              {"/", []string{"Accept-Encoding", "gzip", "Sec-Fetch-Site", "same-origin"}, "gzip"},
		"by a neighbour":            {"/", []string{"Accept-Encoding", "gzip", "Sec-Fetch-Site", "same-site"}, ""},
		"by another site":           {"/", []string{"Accept-Encoding", "gzip", "Sec-Fetch-Site", "cross-site"}, ""},
		"nothing is taken":          {"/", nil, ""},
		"not gzip":                  {"/", []string{"Accept-Encoding", "gzip;q=0, x-gzip, br"}, ""},
		"a person":                  {"/people/21017", []string{"Accept-Encoding", "gzip"}, "gzip"},
		"nothing there":             {"/nothing", []string{"Accept-Encoding", "gzip"}, "gzip"},
		"a file":                    {"/static/style.css", []string{"Accept-Encoding", "gzip"}, "gzip"},
		"a file for another site":   {"/static/style.css", []string{"Accept-Encoding", "gzip", "Sec-Fetch-Site", "cross-site"}, "gzip"},
		"a file, nothing is taken":  {"/static/board.js", nil, ""},
		"a script of the page":      {"/static/board.js", []string{"Accept-Encoding", "gzip"}, "gzip"},
		"a picture of many symbols": {"/static/icons.svg", []string{"Accept-Encoding", "gzip"}, "gzip"},
	} {
		plain, want := fetch(t, s, c.path)
		a, body := fetch(t, s, c.path, c.header...)
		if got := a.Header().Get("Content-Encoding"); got != c.want {
			t.Errorf("%s: compressed by %q, want %q", name, got, c.want)
		}
		if kind := plain.Header().Get("Content-Type"); a.Code != plain.Code || a.Header().Get("Content-Type") != kind || !bytes.Equal(body, want) {
			t.Errorf("%s: %d %s with %d bytes, want %d %s with %d", name, a.Code, a.Header().Get("Content-Type"), len(body), plain.Code, kind, len(want))
		}
		if a.Header().Get("Vary") == "" {
			t.Errorf("%s: it does not tell what the answer depends on", name)
		}
	}
}

// A browser has each form of a file under a tag of its own, and asks for no file twice.
func TestAssetsAreKept(t *testing.T) {
	s := newSite(office())
	a, _ := fetch(t, s, "/static/style.css", "Accept-Encoding", "gzip")
	plain, _ := fetch(t, s, "/static/style.css")
	if a.Header().Get("ETag") == plain.Header().Get("ETag") {
		t.Errorf("both have the tag %s", a.Header().Get("ETag"))
	}
	again, body := fetch(t, s, "/static/style.css", "Accept-Encoding", "gzip", "If-None-Match", a.Header().Get("ETag"))
	if again.Code != http.StatusNotModified || len(body) > 0 {
		t.Errorf("%d with %d bytes, want 304 with none", again.Code, len(body))
	}
	if a, _ := fetch(t, s, "/static/none.css"); a.Code != http.StatusNotFound {
		t.Errorf("%d for no file", a.Code)
	}
}
