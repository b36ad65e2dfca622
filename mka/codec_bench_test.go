package mka

import "testing"

// benchHello is the message that a secured link exchanges every two seconds.
func benchHello(b *testing.B) (m MKPDU, ick *ICK, frame []byte) {
	b.Helper()
	ick = testICK(b)
	m = hello()
	m.Live = PeerList{Present: true, Entries: []PeerEntry{{MI{1}, 100}}}
	m.SAKUse = SAKUse{Present: true, LatestTx: true, LatestRx: true, Latest: KI{MI{1}, 1}, LatestLPN: 1000}
	m.XPN = XPN{Present: true}
	frame, err := m.Append(nil, ick)
	if err != nil {
		b.Fatal(err)
	}
	return m, ick, frame
}

func BenchmarkEncodeHello(b *testing.B) {
	m, ick, frame := benchHello(b)
	buf := make([]byte, 0, len(frame))
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Append(buf, ick); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeHello(b *testing.B) {
	_, ick, frame := benchHello(b)
	var m MKPDU
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if err := read(&m, frame, ick); err != nil {
			b.Fatal(err)
		}
	}
}
