package mka

// DistributedCAK is a group CAK from the key server of a pairwise one,
// IEEE 802.1X-2020 figure 11-13. After Decode both slices alias the frame.
//
// The set does not say where the wrapped CAK ends and the CKN begins. Decode
// takes the group CAK to be as long as the CAK whose ICK verified the frame
// where the body allows that; [DistributedCAK.Split] reads it another way.
type DistributedCAK struct {
	Present bool
	Wrapped []byte // by WrapSAK: 24 or 40 octets
	CKN     []byte // 1 to 32 octets
}

// Split reads the same octets for a CAK of cakLen octets, and reports whether
// they can be read so.
func (s *DistributedCAK) Split(cakLen int) (DistributedCAK, bool) {
	body := make([]byte, 0, len(s.Wrapped)+len(s.CKN))
	body = append(append(body, s.Wrapped...), s.CKN...)
	return splitCAK(body, cakLen)
}

func splitCAK(body []byte, cakLen int) (DistributedCAK, bool) {
	n := cakLen + 8
	if ckn := len(body) - n; (cakLen != 16 && cakLen != 32) || ckn < 1 || ckn > maxCKN {
		return DistributedCAK{}, false
	}
	return DistributedCAK{Present: true, Wrapped: body[:n:n], CKN: body[n:]}, true
}

func (s *DistributedCAK) append(b []byte) ([]byte, error) {
	if !s.Present {
		return b, nil
	}
	if n := len(s.Wrapped); n != 24 && n != 40 {
		return nil, unfit(SetDistributedCAK, "wrapped CAK of %d octets, want 24 or 40", n)
	}
	if n := len(s.CKN); n < 1 || n > maxCKN {
		return nil, unfit(SetDistributedCAK, "CKN of %d octets, want 1 to %d", n, maxCKN)
	}
	start := len(b)
	b = appendSetHeader(b, SetDistributedCAK, 0, 0, len(s.Wrapped)+len(s.CKN))
	b = append(b, s.Wrapped...)
	b = append(b, s.CKN...)
	return pad(b, start), nil
}

func (s *DistributedCAK) decode(set []byte, at, keyLen int) error {
	if s.Present {
		return nil
	}
	body := set[setHeader:]
	for _, cakLen := range [3]int{keyLen, 16, 32} {
		if d, ok := splitCAK(body, cakLen); ok {
			*s = d
			return nil
		}
	}
	return refuse(SetDistributedCAK, at, ErrLength, "body of %d octets, want %d to %d", len(body), 24+1, 40+maxCKN)
}
