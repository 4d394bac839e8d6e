package csta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sizes of the framing, in bytes. The length field counts the header.
const (
	headerSize = 8
	MaxFrame   = 65535
	MaxXML     = MaxFrame - headerSize
)

// Invoke IDs. A client chooses one of FirstID to LastID for each request, and
// the answer repeats it; events carry EventID.
const (
	FirstID uint16 = 1
	LastID  uint16 = 9998
	EventID uint16 = 9999
)

// ErrFraming marks errors after which the borders between frames are lost: the
// connection is to be closed.
var ErrFraming = errors.New("broken framing")

// A Frame is one message on the wire: two version bytes, the length, the invoke
// ID in four decimal digits, and one XML document in UTF-8.
type Frame struct {
	// Version is zero for "TCP without SOAP". Other values are seen in the
	// wild, mean nothing, and are never a reason to refuse a frame.
	Version  uint16
	InvokeID uint16 // 0 to 9999
	XML      []byte
}

// Append appends the wire form of f to dst. It fails, and gives dst as it was,
// if the document or the invoke ID is too large.
func (f Frame) Append(dst []byte) ([]byte, error) {
	if len(f.XML) > MaxXML {
		return dst, fmt.Errorf("csta: a document of %d bytes, the limit is %d", len(f.XML), MaxXML)
	}
	if f.InvokeID > EventID {
		return dst, fmt.Errorf("csta: invoke ID %d has more than four digits", f.InvokeID)
	}
	dst = binary.BigEndian.AppendUint16(dst, f.Version)
	dst = binary.BigEndian.AppendUint16(dst, uint16(headerSize+len(f.XML))) //nolint:gosec // bounded above
	dst = fmt.Appendf(dst, "%04d", f.InvokeID)
	return append(dst, f.XML...), nil
}

// A Reader takes frames from a stream.
type Reader struct{ r io.Reader }

// NewReader reads from r, which should be buffered: each frame takes two reads.
func NewReader(r io.Reader) *Reader { return &Reader{r} }

// Read gives the next frame, whose XML the caller owns. It blocks as its stream
// does. At the end of the stream between two frames it gives io.EOF, within a
// frame io.ErrUnexpectedEOF. An error that is ErrFraming says that the stream
// is no sequence of frames; after any error nothing more can be read.
func (r *Reader) Read() (Frame, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return Frame{}, err
	}
	f := Frame{Version: binary.BigEndian.Uint16(head[:2])}
	size := int(binary.BigEndian.Uint16(head[2:4]))
	if size < headerSize {
		return Frame{}, fmt.Errorf("csta: %w: length %d is less than that of the header", ErrFraming, size)
	}
	for _, c := range head[4:] {
		if c < '0' || c > '9' {
			return Frame{}, fmt.Errorf("csta: %w: the invoke ID is no decimal number", ErrFraming)
		}
		f.InvokeID = f.InvokeID*10 + uint16(c-'0')
	}
	f.XML = make([]byte, size-headerSize)
	if _, err := io.ReadFull(r.r, f.XML); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return f, nil
}
