package lab

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/secret"
	"github.com/lever-link/lever/mka"
)

// secured is a MACsec frame as Linux sends it, with the SCI.
func secured(sci byte, tci byte, pn uint32, icv byte) []byte {
	f := frame(2, EtherTypeMACsec, "")
	f = append(f, tci, 0)
	f = binary.BigEndian.AppendUint32(f, pn)
	f = append(f, 2, 0, 0, 0, 0, sci, 0, 1)
	return append(append(f, "payload"...), bytes.Repeat([]byte{icv}, 16)...)
}

// encrypted is tci of a frame with E, C and SC set.
const encrypted = 0x2C

// said is an MKPDU by the product's own codec, which the ledger does not use.
func said(t *testing.T, mi byte, mn uint32, change func(*mka.MKPDU)) []byte {
	t.Helper()
	ick, err := mka.NewICK(secret.New(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	m := mka.MKPDU{Source: mka.MAC{2, 0, 0, 0, 0, mi}}
	m.Basic = mka.Basic{Version: 3, Priority: 16, KeyServer: true, MACsecDesired: true, Capability: 2,
		SCI: mka.NewSCI(m.Source, 1), MI: mka.MI{mi}, MN: mn, CKN: "a name of 19 octets"}
	m.Live = mka.PeerList{Present: true, Entries: []mka.PeerEntry{{MI: mka.MI{0xee}, MN: 9}}}
	if change != nil {
		change(&m)
	}
	f, err := m.Append(nil, ick)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// hands gives a message a SAK: the octets of the wrapped key are all key.
func hands(an mka.AN, kn uint32, key byte) func(*mka.MKPDU) {
	return func(m *mka.MKPDU) {
		m.DistributedSAK = mka.DistributedSAK{Present: true, AN: an, KN: kn, ConfidentialityOffset: mka.ConfidentialityNone,
			Suite: mka.GCMAESXPN256, Wrapped: bytes.Repeat([]byte{key}, 40)}
	}
}

// uses has a message say that its sender transmits with a key of member 1.
func uses(an mka.AN, kn uint32) func(*mka.MKPDU) {
	return func(m *mka.MKPDU) {
		m.SAKUse = mka.SAKUse{Present: true, LatestAN: an, LatestTx: true, LatestRx: true, Latest: mka.KI{MI: mka.MI{1}, KN: kn}, LatestLPN: 1}
	}
}

func TestLedger(t *testing.T) {
	tests := []struct {
		name   string
		frames [][]byte
		want   []string // a part of each repeat
		counts LedgerCounts
	}{
		{"nothing", nil, nil, LedgerCounts{}},
		{"messages and the link's doubles of them", [][]byte{said(t, 1, 1, nil), said(t, 1, 2, nil), said(t, 1, 1, nil), said(t, 2, 1, nil)},
			nil, LedgerCounts{Messages: 4, Members: 2}},
		{"a message number twice", [][]byte{said(t, 1, 5, nil), said(t, 1, 5, uses(0, 1))},
			[]string{"message number 5 of MI 01"}, LedgerCounts{Messages: 2, Members: 1, Repeats: 1}},
		{"a SAK said again and again", [][]byte{said(t, 1, 1, hands(0, 1, 3)), said(t, 1, 2, hands(0, 1, 3)), said(t, 1, 3, hands(1, 2, 4))},
			nil, LedgerCounts{Messages: 3, Members: 1, Keys: 2}},
		{"one KI for two SAKs", [][]byte{said(t, 1, 1, hands(0, 1, 3)), said(t, 1, 2, hands(0, 1, 4))},
			[]string{"distributed with two keys"}, LedgerCounts{Messages: 2, Members: 1, Keys: 1, Repeats: 1}},
		{"a packet number twice", [][]byte{said(t, 1, 1, hands(1, 1, 3)), secured(1, encrypted|1, 1, 5), secured(1, encrypted|1, 70000, 6), secured(1, encrypted|1, 1, 7)},
			[]string{"packet number 1 of KI 01"}, LedgerCounts{Messages: 1, Members: 1, Keys: 1, Packets: 3, Repeats: 1}},
		{"the link's doubles of a packet", [][]byte{secured(1, encrypted, 1, 5), secured(1, encrypted, 1, 5)},
			nil, LedgerCounts{Packets: 2}},
		{"packet numbers of other senders and ANs", [][]byte{secured(1, encrypted, 1, 5), secured(2, encrypted, 1, 6), secured(1, encrypted|1, 1, 7)},
			nil, LedgerCounts{Packets: 3}},
		{"an AN that got another key", [][]byte{
			said(t, 1, 1, hands(0, 1, 3)), said(t, 1, 2, uses(0, 1)), secured(1, encrypted, 1, 5),
			said(t, 1, 3, hands(0, 2, 4)), secured(1, encrypted, 1, 6), said(t, 1, 4, uses(0, 2)), secured(1, encrypted, 2, 6),
		}, nil, LedgerCounts{Messages: 4, Members: 1, Keys: 2, Packets: 3}},
		{"a key that lost its packet numbers", [][]byte{
			said(t, 1, 1, hands(0, 1, 3)), secured(1, encrypted, 1, 5), said(t, 1, 2, uses(0, 1)), secured(1, encrypted, 1, 6),
		}, []string{"packet number 1 of KI 01"}, LedgerCounts{Messages: 2, Members: 1, Keys: 1, Packets: 2, Repeats: 1}},
		{"no encryption", [][]byte{secured(1, 0x20, 1, 5)}, nil, LedgerCounts{Packets: 1, Unencrypted: 1}},
		{"no SCI", [][]byte{append(append(frame(2, EtherTypeMACsec, "\x0c\x00\x00\x00\x00\x01"), make([]byte, 8)...), bytes.Repeat([]byte{9}, 16)...)},
			nil, LedgerCounts{Packets: 1}},
		{"frames that end early", [][]byte{{1}, frame(1, EtherTypeMACsec, "x"), frame(1, EtherTypeEAPOL, "x"), said(t, 1, 1, hands(0, 1, 3))[:70]},
			nil, LedgerCounts{Packets: 1, Messages: 1, Members: 1}},
		{"frames of others", [][]byte{frame(1, 0x0800, "x"), frame(1, 0x0800, "x")}, nil, LedgerCounts{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLedger()
			for i, f := range tt.frames {
				l.Note(f, time.Unix(int64(i), 0))
			}
			got := l.Repeats()
			if !slices.EqualFunc(got, tt.want, strings.Contains) || l.Counts() != tt.counts {
				t.Errorf("%q, %v\nwant %q, %v", got, l.Counts(), tt.want, tt.counts)
			}
		})
	}
}

// What is told one by one is bounded; what is counted is not.
func TestLedgerTellsTheFirst(t *testing.T) {
	l := NewLedger()
	for i := range 3 * mostRepeats {
		l.Note(secured(1, encrypted, 1, byte(i+1)), time.Unix(0, 0))
	}
	if n := len(l.Repeats()); n != mostRepeats || l.Counts().Repeats != 3*mostRepeats-1 {
		t.Errorf("%d told, %d counted", n, l.Counts().Repeats)
	}
}
