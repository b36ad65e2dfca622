package mka

import "testing"

func TestCipherSuites(t *testing.T) {
	for _, c := range []struct {
		suite  CipherSuite
		name   string
		xpn    bool
		keyLen int
	}{
		{0x0080C20001000001, "GCM-AES-128", false, 16},
		{0x0080C20001000002, "GCM-AES-256", false, 32},
		{0x0080C20001000003, "GCM-AES-XPN-128", true, 16},
		{0x0080C20001000004, "GCM-AES-XPN-256", true, 32},
		{0x0080020001000001, "GCM-AES-128", false, 16},
		{0x0080C20001000005, "cipher suite 0080c20001000005", false, 0},
		{0, "cipher suite 0000000000000000", false, 0},
	} {
		if c.suite.String() != c.name || c.suite.XPN() != c.xpn || c.suite.KeyLen() != c.keyLen || c.suite.Known() != (c.keyLen > 0) {
			t.Errorf("%016x: %s, XPN %v, key of %d octets, known %v", uint64(c.suite), c.suite, c.suite.XPN(), c.suite.KeyLen(), c.suite.Known())
		}
		got, err := ParseCipherSuite(c.name)
		if !c.suite.Known() {
			if err == nil {
				t.Errorf("%q was parsed as %s", c.name, got)
			}
			continue
		}
		if err != nil || got != c.suite.normalised() {
			t.Errorf("%q parsed as %016x, %v", c.name, uint64(got), err)
		}
	}
	if got, err := ParseCipherSuite("gcm-aes-xpn-256"); err != nil || got != GCMAESXPN256 {
		t.Errorf("lower case: %s, %v", got, err)
	}
}
