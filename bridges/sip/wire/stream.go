package wire

import (
	"bytes"
	"errors"
)

// Why no message can follow on a stream.
var (
	errFrame = errors.New("where the next message begins cannot be known")
	errLarge = errors.New("the message is too large")
)

// maxHead is what the headers of a message of a stream may take.
const maxHead = 32 << 10

// A framer parts a stream into messages (RFC 3261 section 18.3) and keep-alives
// (RFC 5626 section 3.5.1). It holds what is not complete, at most maxMessage bytes and one read.
type framer struct {
	buffer  []byte
	at      int // what lies before was given
	scanned int // from at, where no end of headers is
	pings   int // keep-alives to be answered
}

// write adds what was read.
func (f *framer) write(b []byte) {
	if f.at == len(f.buffer) {
		f.buffer, f.at = f.buffer[:0], 0
	} else if f.at > 0 && len(f.buffer)+len(b) > cap(f.buffer) {
		f.buffer = f.buffer[:copy(f.buffer, f.buffer[f.at:])]
		f.at = 0
	}
	f.buffer = append(f.buffer, b...)
}

// partial tells whether a message has begun and is not complete.
func (f *framer) partial() bool { return len(bytes.TrimLeft(f.buffer[f.at:], "\r\n")) > 0 }

// next gives the next message, valid until write; nil if it is not complete. With
// an error it may give a message that can still be answered; then nothing can follow.
func (f *framer) next() ([]byte, error) {
	f.skip()
	b := f.buffer[f.at:]
	end := headEnd(b, f.scanned)
	if end < 0 {
		if len(b) > maxHead {
			return nil, errLarge
		}
		f.scanned = max(len(b)-3, 0)
		return nil, nil
	}
	length, ok := contentLength(b[:end])
	if !ok {
		return b[:end], errFrame
	}
	if end+length > maxMessage {
		return b[:end], errLarge
	}
	if len(b) < end+length {
		f.scanned = max(end-4, 0)
		return nil, nil
	}
	f.at += end + length
	f.scanned = 0
	return b[:end+length], nil
}

// skip passes over empty lines before a message and counts pairs of them: CR LF CR
// LF wants an answer. One pair may come in two reads.
func (f *framer) skip() {
	if f.scanned > 0 {
		return
	}
	for {
		b := f.buffer[f.at:]
		switch {
		case bytes.HasPrefix(b, []byte("\r\n\r\n")):
			f.pings++
			f.at += 4
		case bytes.Equal(b, []byte("\r\n")), bytes.Equal(b, []byte("\r\n\r")):
			return // the rest of a ping may come
		case bytes.HasPrefix(b, []byte("\r\n")):
			f.at += 2
		case len(b) > 0 && b[0] == '\n':
			f.at++
		default:
			return
		}
	}
}

// headEnd gives where the empty line after the headers ends, or -1; no end lies
// before from.
func headEnd(b []byte, from int) int {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return -1
		}
		from += i + 1
		switch rest := b[from:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return from + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return from + 2
		}
	}
}

// contentLength reads Content-Length, which a stream needs: exactly one.
func contentLength(head []byte) (int, bool) {
	found, length := false, 0
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte{'\n'})
		if len(line) == 0 || line[0]|0x20 != 'c' && line[0]|0x20 != 'l' {
			continue
		}
		label, value, _ := bytes.Cut(line, []byte{':'})
		if nameOf(bytes.TrimRight(label, " \t")) != ContentLength {
			continue
		}
		value = trim(chomp(value))
		if len(value) == 0 && len(head) > 0 && (head[0] == ' ' || head[0] == '\t') { // it stands on the next line
			line, _, _ = bytes.Cut(head, []byte{'\n'})
			value = trim(chomp(line))
		}
		n, ok := number(value)
		if !ok || found {
			return 0, false
		}
		found, length = true, int(n)
	}
	return length, found
}
