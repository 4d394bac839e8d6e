package csta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func header(length int, id string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(length))
	return append(b, id...)
}

func TestReadFrames(t *testing.T) {
	body := func(n int) string { return strings.Repeat("x", n) }
	for _, tc := range []struct {
		name  string
		input string
		want  []Frame
		err   error
	}{
		{"nothing", "", nil, io.EOF},
		{"one", "\x00\x00\x00\x0c9999<a/>", []Frame{{0, 9999, []byte("<a/>")}}, io.EOF},
		{"two in one write", "\x00\x00\x00\x0c0001<a/>\x00\x00\x00\x0c0002<b/>", []Frame{{0, 1, []byte("<a/>")}, {0, 2, []byte("<b/>")}}, io.EOF},
		{"ASCII version bytes", "00\x00\x0c0007<a/>", []Frame{{0x3030, 7, []byte("<a/>")}}, io.EOF},
		{"length 8, no document", string(header(8, "0001")), []Frame{{0, 1, []byte{}}}, io.EOF},
		{"length 9", string(header(9, "0001")) + "x", []Frame{{0, 1, []byte("x")}}, io.EOF},
		{"length above the largest signed number", string(header(32768, "0001")) + body(32760), []Frame{{0, 1, []byte(body(32760))}}, io.EOF},
		{"longest", string(header(65535, "0001")) + body(65527), []Frame{{0, 1, []byte(body(65527))}}, io.EOF},
		{"length 7", string(header(7, "0001")) + "x", nil, ErrFraming},
		{"length 0", string(header(0, "0001")), nil, ErrFraming},
		{"no digits", string(header(12, "00x1")) + "<a/>", nil, ErrFraming},
		{"cut in the header", "\x00\x00\x00", nil, io.ErrUnexpectedEOF},
		{"cut after the header", string(header(12, "0001")), nil, io.ErrUnexpectedEOF},
		{"cut in the document", string(header(12, "0001")) + "<a", nil, io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, in := range []io.Reader{strings.NewReader(tc.input), iotest.HalfReader(strings.NewReader(tc.input))} {
				r := NewReader(in)
				var got []Frame
				for {
					f, err := r.Read()
					if err != nil {
						if !errors.Is(err, tc.err) {
							t.Fatalf("error %v, want %v", err, tc.err)
						}
						break
					}
					got = append(got, f)
				}
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// chunks gives a stream in two pieces.
type chunks struct{ parts [][]byte }

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.parts) > 0 && len(c.parts[0]) == 0 {
		c.parts = c.parts[1:]
	}
	if len(c.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.parts[0])
	c.parts[0] = c.parts[0][n:]
	return n, nil
}

func TestReadSplitAtEveryOffset(t *testing.T) {
	want := []Frame{{0, 9999, []byte("<one/>")}, {0, 12, []byte("<two>2</two>")}}
	var stream []byte
	for _, f := range want {
		stream, _ = f.Append(stream)
	}
	for cut := range stream {
		r := NewReader(&chunks{[][]byte{stream[:cut], stream[cut:]}})
		for i := range want {
			got, err := r.Read()
			if err != nil || !cmp.Equal(got, want[i]) {
				t.Fatalf("cut at %d, frame %d: %v, %v", cut, i, got, err)
			}
		}
	}
}

func TestAppendRefusesWhatDoesNotFit(t *testing.T) {
	if _, err := (Frame{XML: make([]byte, MaxXML+1)}).Append(nil); err == nil {
		t.Error("a document that is too long was taken")
	}
	if _, err := (Frame{InvokeID: 10000}).Append(nil); err == nil {
		t.Error("five digits were taken")
	}
}

func TestFramesSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Frame{rapid.Uint16().Draw(t, "version"), rapid.Uint16Range(0, 9999).Draw(t, "id"), rapid.SliceOf(rapid.Byte()).Draw(t, "xml")}
		wire, err := want.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := NewReader(bytes.NewReader(wire)).Read()
		if err != nil || got.Version != want.Version || got.InvokeID != want.InvokeID || !bytes.Equal(got.XML, want.XML) {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0c9999<a/>"))
	f.Add([]byte("00\x00\x0c0001<a/>\x00\x00\x00\x08000"))
	f.Add(header(7, "0001"))
	f.Add(header(65535, "0001"))
	f.Add([]byte("\x00\x00\x04A0002<?xml version=\"1.0\"?><MonitorStop/>")) // length and size differ
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		var again []byte
		for {
			frame, err := r.Read()
			if err != nil {
				break
			}
			if again, err = frame.Append(again); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(stream, again) {
			t.Error("the frames are not what was read")
		}
	})
}
