package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// An asset is a file of the page, as it is sent to those who take gzip and to others.
type asset struct{ plain, gzip []byte }

func newAsset(data []byte) asset {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) //nolint:errcheck // there is such a level
	writeGzip(z, data)
	return asset{data, b.Bytes()}
}

// writeGzip writes to memory, which does not fail.
func writeGzip(z *gzip.Writer, data []byte) {
	_, _ = z.Write(data)
	_ = z.Close()
}

// takesGzip tells whether the client says that it takes gzip (RFC 9110 section 12.5.3).
func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64)
			return err != nil || q > 0
		}
	}
	return false
}

// squeeze gives data as it is to be sent, compressed if the client takes that. How well
// a page can be compressed tells of what is on it, so that a site which has a browser
// load pages with words of its own choice could find out what is on them, if it sees
// how long they are: what another site had the browser ask for is not compressed.
func (s *Site) squeeze(w http.ResponseWriter, r *http.Request, data []byte) []byte {
	w.Header().Add("Vary", "Accept-Encoding, Sec-Fetch-Site")
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		return data
	}
	if !takesGzip(r) {
		return data
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := s.gzips.Get().(*gzip.Writer) //nolint:forcetypeassert,errcheck // it holds nothing else
	defer s.gzips.Put(z)
	var b bytes.Buffer
	z.Reset(&b)
	writeGzip(z, data)
	z.Reset(io.Discard)
	return b.Bytes()
}

func newGzip() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) //nolint:errcheck // there is such a level
	return z
}
