package wire

import (
	"encoding/binary"
	"time"
)

// How long an answer by UDP may be asked for again: Timer J, 64*T1 (RFC 3261
// section 17.2.2). Over a connection nothing is sent twice.
const timerJ = 64 * t1

const (
	chunkSize  = 256 << 10
	recordHead = 8 + 16 + 4 // when, key, length
)

// served remembers the answers of server transactions, to give them again. They
// lie in order of time in large chunks without pointers; the oldest makes room
// when there are too many. It belongs to one worker.
type served struct {
	most   int
	at     map[key]place
	chunks []chunk // the oldest first, never empty but the last; chunks[0] has number base
	base   uint32
	spare  []byte
}

type place struct{ chunk, offset uint32 }

type chunk struct {
	data []byte
	read int // what lies before is forgotten
}

func newServed(most int) *served { return &served{most: most, at: map[key]place{}} }

// find gives the answer of a transaction that is not over; it is valid until the
// next keep.
func (s *served) find(k key, now time.Time) ([]byte, bool) {
	s.forget(now)
	p, ok := s.at[k]
	if !ok {
		return nil, false
	}
	record := s.chunks[p.chunk-s.base].data[p.offset:]
	length := binary.LittleEndian.Uint32(record[24:])
	return record[recordHead : recordHead+length], true
}

// keep remembers an answer that is not remembered yet.
func (s *served) keep(k key, answer []byte, now time.Time) {
	if len(s.at) >= s.most {
		s.drop()
	}
	need := recordHead + len(answer)
	if n := len(s.chunks); n == 0 || cap(s.chunks[n-1].data)-len(s.chunks[n-1].data) < need {
		fresh := s.spare
		if s.spare = nil; cap(fresh) < need {
			fresh = make([]byte, 0, max(chunkSize, need))
		}
		s.chunks = append(s.chunks, chunk{data: fresh[:0]})
	}
	last := &s.chunks[len(s.chunks)-1]
	s.at[k] = place{s.base + uint32(len(s.chunks)) - 1, uint32(len(last.data))} //nolint:gosec // bounded by most and chunkSize
	d := binary.LittleEndian.AppendUint64(last.data, uint64(now.Add(timerJ).UnixNano()))
	d = binary.LittleEndian.AppendUint64(d, k[0])
	d = binary.LittleEndian.AppendUint64(d, k[1])
	d = binary.LittleEndian.AppendUint32(d, uint32(len(answer))) //nolint:gosec // at most maxMessage
	last.data = append(d, answer...)
}

// forget drops what is over.
func (s *served) forget(now time.Time) {
	for len(s.at) > 0 {
		first := &s.chunks[0]
		if int64(binary.LittleEndian.Uint64(first.data[first.read:])) > now.UnixNano() { //nolint:gosec // as it was written
			return
		}
		s.drop()
	}
}

// drop drops the oldest answer; there must be one.
func (s *served) drop() {
	first := &s.chunks[0]
	record := first.data[first.read:]
	delete(s.at, key{binary.LittleEndian.Uint64(record[8:]), binary.LittleEndian.Uint64(record[16:])})
	first.read += recordHead + int(binary.LittleEndian.Uint32(record[24:]))
	switch {
	case first.read < len(first.data):
	case len(s.chunks) == 1: // goes on being written
		first.data, first.read = first.data[:0], 0
	default:
		s.spare = first.data[:0]
		s.chunks[0] = chunk{}
		s.chunks = s.chunks[1:]
		s.base++
	}
}
