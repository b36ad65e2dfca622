package mka

// KMD is the name of a Key Management Domain, IEEE 802.1X-2020 figure 11-14.
type KMD struct {
	Present bool
	Value   []byte // UTF-8; after Decode it aliases the frame
}

func (s *KMD) append(b []byte) ([]byte, error) {
	if !s.Present {
		return b, nil
	}
	if len(s.Value) > maxSetBody {
		return nil, unfit(SetKMD, "%d octets, want at most %d", len(s.Value), maxSetBody)
	}
	start := len(b)
	b = appendSetHeader(b, SetKMD, 0, 0, len(s.Value))
	b = append(b, s.Value...)
	return pad(b, start), nil
}

func (s *KMD) decode(set []byte) {
	if !s.Present {
		*s = KMD{Present: true, Value: set[setHeader:]}
	}
}
