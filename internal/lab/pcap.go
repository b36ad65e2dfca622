package lab

import (
	"encoding/binary"
	"io"
	"time"
)

// pcapSnap is the length above which frames are cut, more than any has.
const pcapSnap = 65535

// A pcapWriter writes the classic capture format with nanoseconds, which every
// reader knows. It is written here because the library for it brings decoders
// for a hundred protocols, whose tables every agent would build at its start.
type pcapWriter struct{ w io.Writer }

// newPcapWriter writes the file's header.
func newPcapWriter(w io.Writer) (*pcapWriter, error) {
	h := make([]byte, 24)
	binary.LittleEndian.PutUint32(h[0:], 0xA1B23C4D) // nanosecond time stamps
	binary.LittleEndian.PutUint16(h[4:], 2)
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], pcapSnap)
	binary.LittleEndian.PutUint32(h[20:], 1) // LINKTYPE_ETHERNET
	_, err := w.Write(h)
	return &pcapWriter{w}, err
}

// write adds a frame.
func (p *pcapWriter) write(frame []byte, at time.Time) error {
	kept := frame[:min(len(frame), pcapSnap)]
	h := make([]byte, 16, 16+len(kept))
	binary.LittleEndian.PutUint32(h[0:], uint32(at.Unix()))
	binary.LittleEndian.PutUint32(h[4:], uint32(at.Nanosecond()))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(kept)))
	binary.LittleEndian.PutUint32(h[12:], uint32(len(frame)))
	_, err := p.w.Write(append(h, kept...))
	return err
}
