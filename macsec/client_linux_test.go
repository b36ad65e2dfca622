package macsec

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const familyID = 0x1c

// answers are messages of a real kernel.
func answers(t testing.TB) map[string][]byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/linux-6.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]byte{}
	for line := range strings.Lines(string(raw)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		if m[name], err = hex.DecodeString(digits); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// script is a kernel that answers reads from a table, acknowledges everything
// else, and remembers what it was asked.
type script struct {
	mu sync.Mutex
	// links and dump answer RTM_GETLINK, by index, and GET_TXSC.
	links map[int][]byte
	dump  [][]byte
	// torn is how many dumps are to be marked as interrupted.
	torn int
	// errno answers everything that changes something.
	errno   unix.Errno
	message string
	// asked are the requests that change something: protocol, type, payload.
	asked []string
}

func (s *script) client(t testing.TB) *Client {
	t.Helper()
	c, err := (&Client{rt: nltest.Dial(s.route), ge: nltest.Dial(s.generic), keyed: nltest.Dial(s.generic)}).ready()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (s *script) route(reqs []netlink.Message) ([]netlink.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(reqs) == 0 {
		return nil, io.EOF
	}
	req := reqs[0]
	if req.Header.Type != unix.RTM_GETLINK {
		return s.change("route", req)
	}
	var out []netlink.Message
	if req.Header.Flags&netlink.Dump == netlink.Dump {
		for _, index := range []int{5, 3, 4} {
			out = append(out, reply(req, unix.RTM_NEWLINK, s.links[index]))
		}
		return multipart(req, out)
	}
	index := int(binary.NativeEndian.Uint32(req.Data[4:]))
	if index == 0 { // by name
		for i, b := range s.links {
			if strings.Contains(string(req.Data), string(b[20:28])) {
				index = i
			}
		}
	}
	if s.links[index] == nil {
		return nltest.Error(int(unix.ENODEV), reqs)
	}
	return []netlink.Message{reply(req, unix.RTM_NEWLINK, s.links[index])}, nil
}

func (s *script) generic(reqs []netlink.Message) ([]netlink.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(reqs) == 0 {
		return nil, io.EOF
	}
	req := reqs[0]
	switch {
	case req.Header.Type == unix.GENL_ID_CTRL:
		attrs := nltest.MustMarshalAttributes([]netlink.Attribute{
			{Type: unix.CTRL_ATTR_FAMILY_ID, Data: binary.NativeEndian.AppendUint16(nil, familyID)},
			{Type: unix.CTRL_ATTR_FAMILY_NAME, Data: []byte("macsec\x00")},
			{Type: unix.CTRL_ATTR_VERSION, Data: binary.NativeEndian.AppendUint32(nil, 1)},
		})
		return []netlink.Message{reply(req, unix.GENL_ID_CTRL, append([]byte{unix.CTRL_CMD_NEWFAMILY, 2, 0, 0}, attrs...))}, nil
	case req.Data[0] == cmdGetTxSC:
		var out []netlink.Message
		for _, b := range s.dump {
			out = append(out, reply(req, familyID, b))
		}
		if s.torn > 0 {
			s.torn--
			out[0].Header.Flags |= netlink.DumpInterrupted
		}
		return multipart(req, out)
	}
	return s.change("generic", req)
}

func (s *script) change(protocol string, req netlink.Message) ([]netlink.Message, error) {
	s.asked = append(s.asked, fmt.Sprintf("%s type %d flags %#x: %x", protocol, req.Header.Type, uint16(req.Header.Flags), req.Data))
	if s.errno == 0 {
		return []netlink.Message{reply(req, netlink.Error, make([]byte, 4))}, nil
	}
	data := binary.NativeEndian.AppendUint32(nil, uint32(-int32(s.errno)))
	data = append(data, make([]byte, 16)...)
	m := reply(req, netlink.Error, data)
	if s.message != "" {
		m.Data = append(m.Data, nltest.MustMarshalAttributes([]netlink.Attribute{{Type: 1, Data: append([]byte(s.message), 0)}})...)
		m.Header.Flags |= netlink.Capped | netlink.AcknowledgeTLVs
		m.Header.Length = uint32(16 + len(m.Data))
	}
	return []netlink.Message{m}, nil
}

func reply(req netlink.Message, typ netlink.HeaderType, data []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: typ, Sequence: req.Header.Sequence, PID: nltest.PID, Length: uint32(16 + len(data))},
		Data:   data,
	}
}

func multipart(req netlink.Message, msgs []netlink.Message) ([]netlink.Message, error) {
	return nltest.Multipart(append(msgs, reply(req, netlink.Done, make([]byte, 4))))
}

func newScript(t testing.TB) *script {
	a := answers(t)
	return &script{
		links: map[int][]byte{3: a["link-veth"], 4: a["link-sec"], 5: a["link-old"]},
		dump:  [][]byte{a["dump-sec"], a["dump-old"]},
	}
}

var testPeer = SCI{2, 0, 0, 0, 0, 0x0b, 0, 1}

func wantSecYs() []SecY {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x0a}
	sec := Closed(SCI{2, 0, 0, 0, 0, 0x0a, 0, 1}, GCMAESXPN256)
	sec.ReplayWindow = 32
	return []SecY{
		{
			Device:      Device{Index: 4, Name: "eth0-sec", Parent: 3, MTU: 1468, MAC: mac, DeviceConfig: sec},
			Operational: true,
			TxSC:        TxSC{SAs: []SA{{Active: true, NextPN: 7, KeyID: KeyID{0xaa, 15: 3}, SSCI: 1}}},
			RxSCs: []RxSC{
				{SCI: testPeer, Active: true, SAs: []SA{
					{AN: 1, Active: true, NextPN: 1 << 40, KeyID: KeyID{0xaa, 15: 1}, SSCI: 2},
					{AN: 2, NextPN: 5, KeyID: KeyID{0xaa, 15: 2}, SSCI: 2},
				}},
				{SCI: SCI{2, 0, 0, 0, 0, 0x0c, 0, 1}},
			},
		},
		{
			Device: Device{Index: 5, Name: "eth0-old", Parent: 3, MTU: 1468, MAC: mac,
				DeviceConfig: Closed(SCI{2, 0, 0, 0, 0, 0x0a, 0, 2}, GCMAES128)},
			TxSC: TxSC{SAs: []SA{{AN: 3, NextPN: 0xfffffffe, KeyID: KeyID{0xbb, 15: 3}}}},
		},
	}
}

func TestReads(t *testing.T) {
	s := newScript(t)
	s.torn = 2 // read again
	c := s.client(t)
	want := wantSecYs()
	if got, err := c.SecYs(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("SecYs\n %+v, %v, want\n %+v", got, err, want)
	}
	for _, w := range want {
		if got, err := c.SecY(w.Index); err != nil || !reflect.DeepEqual(*got, w) {
			t.Errorf("SecY\n %+v, %v, want\n %+v", got, err, w)
		}
		if got, err := c.Device(w.Name); err != nil || !reflect.DeepEqual(*got, w.Device) {
			t.Errorf("Device\n %+v, %v, want\n %+v", got, err, w.Device)
		}
	}
	if got, err := c.Devices(); err != nil || !reflect.DeepEqual(got, []Device{want[0].Device, want[1].Device}) {
		t.Errorf("Devices\n %+v, %v", got, err)
	}
	for _, index := range []int{3, 77} {
		if _, err := c.SecY(index); !errors.Is(err, ErrNotExist) {
			t.Errorf("index %d: %v", index, err)
		}
	}
	if _, err := c.Device("eth0"); !errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), `kind "veth"`) {
		t.Errorf("a veth: %v", err)
	}
}

func TestDumpThatStaysTorn(t *testing.T) {
	s := newScript(t)
	s.torn = 1000
	if _, err := s.client(t).SecYs(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v, want EAGAIN", err)
	}
}

func TestDumpThatLacksTheDevice(t *testing.T) {
	s := newScript(t)
	s.dump = s.dump[1:]
	c := s.client(t)
	for _, f := range []func() error{
		func() error { _, err := c.SecY(4); return err },
		func() error { _, err := c.SecYs(); return err },
	} {
		if err := f(); !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), "eth0-sec") {
			t.Errorf("got %v, want EMSGSIZE about eth0-sec", err)
		}
	}
}

//go:fix inline

// TestRequests holds every request to its octets; the conformance test has a
// real kernel confirm that they mean what they should.
func TestRequests(t *testing.T) {
	key := func(n int) Key {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i + 1)
		}
		return NewKey(b)
	}
	xpn := SA{AN: 1, Active: true, NextPN: 1 << 33, KeyID: KeyID{1, 15: 2}, Key: key(32), SSCI: 0x01020304, Salt: Salt{9, 11: 8}}
	narrow := SA{AN: 2, NextPN: 0x01020304, KeyID: KeyID{3, 15: 4}, Key: key(16), SSCI: 5, Salt: Salt{6}}
	every := DeviceConfig{
		SCI: SCI{2, 0, 0, 0, 0, 0x0a, 0, 1}, CipherSuite: GCMAESXPN128, ICVLen: 12, Encrypt: true, Protect: true, IncludeSCI: true,
		Validate: Check, ReplayProtect: true, ReplayWindow: 0x11223344, EncodingAN: 3, Offload: MAC,
	}
	var out strings.Builder
	for _, r := range []struct {
		name string
		call func(*Client) error
	}{
		{"create closed", func(c *Client) error {
			_, err := c.CreateDevice(3, "eth0-sec", Closed(every.SCI, GCMAESXPN256))
			return err
		}},
		{"create every attribute", func(c *Client) error { _, err := c.CreateDevice(3, "eth0-sec", every); return err }},
		{"create by port", func(c *Client) error {
			_, err := c.CreateDevice(3, "eth0-sec", DeviceConfig{SCI: NewSCI(nil, 0x1234), EndStation: true})
			return err
		}},
		{"create zero", func(c *Client) error { _, err := c.CreateDevice(3, "eth0-sec", DeviceConfig{SCB: true}); return err }},
		{"update up", func(c *Client) error { return c.UpdateDevice(4, DeviceUpdate{Up: new(true)}) }},
		{"update down and encoding AN", func(c *Client) error { return c.UpdateDevice(4, DeviceUpdate{Up: new(false), EncodingAN: new(AN(2))}) }},
		{"update everything", func(c *Client) error {
			return c.UpdateDevice(4, DeviceUpdate{
				Encrypt: new(true), Protect: new(true), IncludeSCI: new(false), EndStation: new(true), SCB: new(false),
				Validate: new(Strict), ReplayProtect: new(true), ReplayWindow: new(uint32(7)), EncodingAN: new(AN(1)),
			})
		}},
		{"delete", func(c *Client) error { return c.DeleteDevice(4) }},
		{"add RX SC", func(c *Client) error { return c.AddRxSC(4, testPeer, true) }},
		{"update RX SC", func(c *Client) error { return c.UpdateRxSC(4, testPeer, false) }},
		{"delete RX SC", func(c *Client) error { return c.DeleteRxSC(4, testPeer) }},
		{"add RX SA with XPN", func(c *Client) error { return c.AddRxSA(4, testPeer, xpn) }},
		{"add RX SA without XPN or PN", func(c *Client) error { n := narrow; n.NextPN = 0; return c.AddRxSA(5, testPeer, n) }},
		{"update RX SA", func(c *Client) error { return c.UpdateRxSA(4, testPeer, 1, SAUpdate{NextPN: new(uint64(9))}) }},
		{"delete RX SA", func(c *Client) error { return c.DeleteRxSA(4, testPeer, 1) }},
		{"add TX SA with XPN", func(c *Client) error { return c.AddTxSA(4, xpn) }},
		{"add TX SA without XPN", func(c *Client) error { return c.AddTxSA(5, narrow) }},
		{"update TX SA off", func(c *Client) error { return c.UpdateTxSA(4, 0, SAUpdate{Active: new(false)}) }},
		{"update TX SA on and up", func(c *Client) error {
			return c.UpdateTxSA(5, 3, SAUpdate{Active: new(true), NextPN: new(uint64(0xffffffff))})
		}},
		{"delete TX SA", func(c *Client) error { return c.DeleteTxSA(4, 0) }},
		{"set offload", func(c *Client) error { return c.SetOffload(4, PHY) }},
	} {
		s := newScript(t)
		if err := r.call(s.client(t)); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		if len(s.asked) != 1 {
			t.Fatalf("%s: %d requests, want 1: %s", r.name, len(s.asked), s.asked)
		}
		fmt.Fprintf(&out, "%s\n\t%s\n", r.name, s.asked[0])
	}
	const golden = "testdata/requests.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("requests\n%s\nwant (rewrite with -update)\n%s", out.String(), want)
	}
}

func TestTransmitPacketNumbersNeverFall(t *testing.T) {
	s := newScript(t)
	c := s.client(t)
	for name, err := range map[string]error{
		"active":              c.UpdateTxSA(4, 0, SAUpdate{NextPN: new(uint64(1000))}),
		"lower":               c.UpdateTxSA(5, 3, SAUpdate{NextPN: new(uint64(0xfffffffd))}),
		"key of another one":  c.AddTxSA(4, SA{AN: 2, NextPN: 1000, Key: NewKey(make([]byte, 32)), KeyID: KeyID{0xaa, 15: 3}}),
		"active and updating": c.UpdateTxSA(4, 0, SAUpdate{NextPN: new(uint64(1000)), Active: new(false)}),
	} {
		if !errors.Is(err, ErrPNReuse) {
			t.Errorf("%s: %v, want ErrPNReuse", name, err)
		}
	}
	if s.asked != nil {
		t.Errorf("the kernel was asked all the same: %s", s.asked)
	}
	// Deleted through this client at 0xfffffffe: not again below.
	if err := c.DeleteTxSA(5, 3); err != nil {
		t.Fatal(err)
	}
	s.dump = s.dump[:1]
	again := SA{AN: 3, NextPN: 1, Key: NewKey(make([]byte, 16)), KeyID: KeyID{0xbb, 15: 3}}
	var pe *PNError
	if err := c.AddTxSA(5, again); !errors.As(err, &pe) || pe.Current != 0xfffffffe || pe.Requested != 1 {
		t.Errorf("again: %v", err)
	}
	again.NextPN = 0xfffffffe
	if err := c.AddTxSA(5, again); err != nil {
		t.Errorf("again where it ended: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	s := newScript(t)
	s.errno, s.message = unix.EBUSY, "no, really"
	c := s.client(t)
	err := c.DeleteRxSA(4, testPeer, 1)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T", err)
	}
	if e.Op != OpDeleteRxSA || e.Interface != "eth0-sec" || e.Index != 4 || *e.SCI != testPeer || *e.AN != 1 || !errors.Is(e.Err, error(unix.EBUSY)) || e.Message != "no, really" {
		t.Errorf("%+v", e)
	}
	s.errno, s.message = unix.EOPNOTSUPP, ""
	_, err = c.CreateDevice(3, "eth0-sec", DeviceConfig{Offload: MAC})
	if !errors.Is(err, ErrOffloadUnsupported) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("offload: %v", err)
	}
	if _, err = c.CreateDevice(3, "eth0-sec", DeviceConfig{}); errors.Is(err, ErrOffloadUnsupported) || !errors.Is(err, ErrUnsupported) {
		t.Errorf("no offload asked for: %v", err)
	}
	asked := len(s.asked)
	for _, err := range []error{
		c.AddTxSA(5, SA{NextPN: 1 << 32}), c.UpdateRxSA(5, testPeer, 0, SAUpdate{NextPN: new(uint64(1 << 32))}),
	} {
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "does not fit the 32 bits of GCM-AES-128") {
			t.Errorf("a wide packet number: %v", err)
		}
	}
	if len(s.asked) != asked {
		t.Error("the kernel was asked all the same")
	}
}

func TestNoFamily(t *testing.T) {
	none := func(reqs []netlink.Message) ([]netlink.Message, error) { return nltest.Error(int(unix.ENOENT), reqs) }
	c := &Client{rt: nltest.Dial(none), ge: nltest.Dial(none), keyed: nltest.Dial(none)}
	_, err := c.ready()
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "modprobe macsec") {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
}

// A client that was made before the kernel had MACsec says so, of whatever it is asked,
// and never that a device is not there; and it works when the module has been loaded.
func TestFamilyThatComesLater(t *testing.T) {
	s := newScript(t)
	missing := true
	generic := func(reqs []netlink.Message) ([]netlink.Message, error) {
		if missing {
			return nltest.Error(int(unix.ENOENT), reqs)
		}
		return s.generic(reqs)
	}
	c := &Client{rt: nltest.Dial(s.route), ge: nltest.Dial(generic), keyed: nltest.Dial(generic)}
	defer func() { _ = c.Close() }()
	_, dump := c.SecYs()
	_, one := c.SecY(4)
	for _, err := range []error{dump, one, c.AddRxSC(4, testPeer, true), c.AddTxSA(4, SA{}), c.DeleteTxSA(4, 0)} {
		if !errors.Is(err, ErrUnsupported) || errors.Is(err, ErrNotExist) {
			t.Errorf("got %v, want ErrUnsupported", err)
		}
	}
	missing = false
	if got, err := c.SecYs(); err != nil || !reflect.DeepEqual(got, wantSecYs()) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestConcurrentClient(t *testing.T) {
	c := newScript(t).client(t)
	want := wantSecYs()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				got, err := c.SecYs()
				err = errors.Join(err, c.AddRxSC(4, testPeer, true), c.UpdateTxSA(4, 0, SAUpdate{Active: new(true)}), c.DeleteTxSA(4, 0))
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%+v, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}
