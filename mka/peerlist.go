package mka

import "encoding/binary"

// PeerEntry is one member that the sender has heard: its MI and the highest
// message number that it has acceptably used.
type PeerEntry struct {
	MI MI
	MN uint32
}

const (
	peerEntryLen = 16
	// maxPeerEntries is what a 12-bit body length can hold.
	maxPeerEntries = maxSetBody / peerEntryLen
)

// PeerList is a Live or a Potential Peer List, IEEE 802.1X-2020 figure 11-9.
type PeerList struct {
	Present bool
	// KeyServerSSCI is the low octet of the key server's SSCI, which from
	// version 3 on a Live Peer List carries together with the Distributed SAK
	// of an XPN suite; otherwise 0. The entries are then in SSCI order.
	KeyServerSSCI uint8
	// Entries are reused by Decode: they belong to the MKPDU.
	Entries []PeerEntry
}

// Contains finds mi in the list and gives the message number listed with it.
func (s *PeerList) Contains(mi MI) (mn uint32, ok bool) {
	for i := range s.Entries {
		if s.Entries[i].MI == mi {
			return s.Entries[i].MN, true
		}
	}
	return 0, false
}

func (s *PeerList) append(b []byte, t SetType) ([]byte, error) {
	if !s.Present {
		return b, nil
	}
	if len(s.Entries) > maxPeerEntries {
		return nil, unfit(t, "%d entries, want at most %d", len(s.Entries), maxPeerEntries)
	}
	b = appendSetHeader(b, t, s.KeyServerSSCI, 0, len(s.Entries)*peerEntryLen)
	for i := range s.Entries {
		b = append(b, s.Entries[i].MI[:]...)
		b = binary.BigEndian.AppendUint32(b, s.Entries[i].MN)
	}
	return b, nil
}

func (s *PeerList) decode(t SetType, set []byte, at int) error {
	if s.Present {
		return nil
	}
	body := set[setHeader:]
	if len(body)%peerEntryLen != 0 {
		return refuse(t, at, ErrLength, "body of %d octets, want a multiple of %d", len(body), peerEntryLen)
	}
	s.Present = true
	s.KeyServerSSCI = set[1]
	for ; len(body) > 0; body = body[peerEntryLen:] {
		s.Entries = append(s.Entries, PeerEntry{MI: MI(body[:12]), MN: binary.BigEndian.Uint32(body[12:])})
	}
	return nil
}
