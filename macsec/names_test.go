package macsec_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/lever-link/lever/macsec"
)

func TestSCI(t *testing.T) {
	s := macsec.NewSCI(net.HardwareAddr{2, 0, 0, 0, 0, 0x0a}, 1)
	if s.String() != "02000000000a0001" || s.MAC().String() != "02:00:00:00:00:0a" || s.Port() != 1 {
		t.Errorf("%s: MAC %s, port %d", s, s.MAC(), s.Port())
	}
	b, err := json.Marshal(map[macsec.SCI]int{s: 1})
	if err != nil || string(b) != `{"02000000000a0001":1}` {
		t.Errorf("JSON %s, %v", b, err)
	}
	back := map[macsec.SCI]int{}
	if err := json.Unmarshal(b, &back); err != nil || back[s] != 1 {
		t.Errorf("read back %v, %v", back, err)
	}
	for _, bad := range []string{"", "02", "02000000000a00zz", "02000000000a000100"} {
		if _, err := macsec.ParseSCI(bad); err == nil {
			t.Errorf("ParseSCI(%q) succeeded", bad)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		v    fmt.Stringer
		want string
	}{
		{macsec.GCMAES128, "GCM-AES-128"}, {macsec.GCMAES256, "GCM-AES-256"},
		{macsec.GCMAESXPN128, "GCM-AES-XPN-128"}, {macsec.GCMAESXPN256, "GCM-AES-XPN-256"},
		{macsec.CipherSuite(0x0080020001000001), "GCM-AES-128"}, {macsec.CipherSuite(5), "CipherSuite(0x0000000000000005)"},
		{macsec.Disabled, "disabled"}, {macsec.Check, "check"}, {macsec.Strict, "strict"}, {macsec.Validate(9), "Validate(9)"},
		{macsec.Off, "off"}, {macsec.PHY, "phy"}, {macsec.MAC, "mac"}, {macsec.Offload(9), "Offload(9)"},
		{macsec.KeyID{1, 15: 2}, "01000000000000000000000000000002"},
	} {
		if got := c.v.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for suite, want := range map[macsec.CipherSuite]struct {
		xpn bool
		n   int
	}{macsec.GCMAES128: {false, 16}, macsec.GCMAES256: {false, 32}, macsec.GCMAESXPN128: {true, 16}, macsec.GCMAESXPN256: {true, 32}, 0: {false, 0}} {
		if suite.XPN() != want.xpn || suite.KeyLen() != want.n || suite.Valid() != (want.n > 0) {
			t.Errorf("%s: XPN %t, key of %d octets", suite, suite.XPN(), suite.KeyLen())
		}
	}
}

func TestClosedNeverLeaks(t *testing.T) {
	c := macsec.Closed(macsec.SCI{1}, macsec.GCMAESXPN256)
	if !c.Protect || !c.Encrypt || c.Validate != macsec.Strict || !c.IncludeSCI || !c.ReplayProtect || c.EndStation || c.SCB {
		t.Errorf("%+v", c)
	}
}

func TestErrorsSayWhatWhereWhyAndWhatNext(t *testing.T) {
	sci, an := macsec.SCI{2, 7: 1}, macsec.AN(3)
	for _, c := range []struct {
		err  *macsec.Error
		text string
		kind error
	}{
		{&macsec.Error{Op: macsec.OpDeleteRxSA, Interface: "eth4-sec", Index: 7, SCI: &sci, AN: &an, Err: syscall.EBUSY, Message: "told so"},
			"macsec: DeleteRxSA SCI 0200000000000001 AN 3 on eth4-sec (ifindex 7): device or resource busy (kernel: told so); an active association cannot be deleted: deactivate it first", macsec.ErrBusy},
		{&macsec.Error{Op: macsec.OpSecY, Index: 7, Err: syscall.ENODEV},
			"macsec: SecY on ifindex 7: no such device; there is no MACsec device with that index in this network namespace", macsec.ErrNotExist},
		{&macsec.Error{Op: macsec.OpAddTxSA, AN: &an, Err: &macsec.PNError{AN: 3, Current: 9, Requested: 1}},
			"macsec: AddTxSA AN 3: next PN 1 requested under a key that is at 9 already; delete the association and add one with a fresh key", macsec.ErrPNReuse},
		{&macsec.Error{Op: macsec.OpUpdateTxSA, AN: &an, Err: &macsec.PNError{AN: 3, Active: true, Current: 9, Requested: 100}},
			"macsec: UpdateTxSA AN 3: next PN 100 requested for an active association that is at 9 and moving; delete the association and add one with a fresh key", macsec.ErrPNReuse},
		{&macsec.Error{Op: macsec.OpSetOffload, Interface: "x", Err: syscall.EOPNOTSUPP},
			"macsec: SetOffload on x: operation not supported; use offload off", macsec.ErrOffloadUnsupported},
		{&macsec.Error{Op: macsec.OpAddRxSC, Err: syscall.EPERM},
			"macsec: AddRxSC: operation not permitted; it needs CAP_NET_ADMIN in the initial user namespace", macsec.ErrPermission},
		{&macsec.Error{Op: macsec.OpAddRxSC, Err: syscall.EEXIST},
			"macsec: AddRxSC: file exists; a MACsec device on the same parent has this receive channel already", macsec.ErrExist},
		{&macsec.Error{Op: macsec.OpNew, Err: syscall.ENOENT},
			"macsec: New: no such file or directory; load the kernel module: modprobe macsec, or use a kernel with CONFIG_MACSEC", macsec.ErrUnsupported},
		{&macsec.Error{Op: macsec.OpDevices, Err: errors.New("odd")}, "macsec: Devices: odd", nil},
	} {
		if got := c.err.Error(); got != c.text {
			t.Errorf("got  %s\nwant %s", got, c.text)
		}
		for _, kind := range []error{macsec.ErrBusy, macsec.ErrExist, macsec.ErrPNReuse, macsec.ErrOffloadUnsupported, macsec.ErrPermission, macsec.ErrInvalid, macsec.ErrUnsupported} {
			if got := errors.Is(c.err, kind); got != (errors.Is(kind, c.kind)) {
				t.Errorf("%v is %v: %t", c.err, kind, got)
			}
		}
	}
}

func TestNoErrorOrPrintShowsAKey(t *testing.T) {
	sa := macsec.SA{Key: macsec.NewKey([]byte("0123456789abcdef"))}
	if s := fmt.Sprintf("%v %+v %#v", sa, sa, sa); strings.Contains(s, "0123") || strings.Contains(s, "48, 49") || strings.Contains(s, "0x30, 0x31") {
		t.Errorf("printed %s", s)
	}
}
