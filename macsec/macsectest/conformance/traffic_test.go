//go:build kernel

package conformance_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

// router is one end of the link: a network namespace with a veth interface, a
// MACsec device on it, and a UDP socket.
type router struct {
	ns     netns.NsHandle
	veth   int
	mac    net.HardwareAddr
	sci    macsec.SCI
	client *macsec.Client
	dev    *macsec.Device
	conn   *net.UDPConn
	addr   *net.UDPAddr
}

// in runs f in the router's namespace.
func (r *router) in(t *testing.T, f func() error) {
	t.Helper()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netns.Set(r.ns), f(), netns.Set(old), old.Close()); err != nil {
		t.Fatal(err)
	}
}

// newRouters joins two routers by a veth pair. The test stays in the namespace
// of neither, so that everything it calls has to find its own way.
func newRouters(t *testing.T, cfg macsec.DeviceConfig) [2]*router {
	t.Helper()
	var rs [2]*router
	for i := range rs {
		rs[i] = &router{ns: newNetNS(t), mac: net.HardwareAddr{2, 0, 0, 0, 2, byte(i)}}
		rs[i].sci = macsec.NewSCI(rs[i].mac, 1)
	}
	rs[0].in(t, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = "eth0", rs[0].mac
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: rs[1].mac, PeerNamespace: netlink.NsFd(int(rs[1].ns)),
		})
	})
	for _, r := range rs {
		r.in(t, func() error {
			r.veth = linkUp(t, "eth0")
			return nil
		})
	}
	newNetNS(t)
	for i, r := range rs {
		r.in(t, func() error {
			operational(t, r.veth)
			return nil
		})
		var err error
		if r.client, err = macsec.NewNetNS(int(r.ns)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.client.Close(); err != nil {
				t.Error(err)
			}
		})
		cfg.SCI = r.sci
		if r.dev, err = r.client.CreateDevice(r.veth, "eth0-sec", cfg); err != nil {
			t.Fatal(err)
		}
		up := true
		if err := r.client.UpdateDevice(r.dev.Index, macsec.DeviceUpdate{Up: &up}); err != nil {
			t.Fatal(err)
		}
		if err := r.client.AddRxSC(r.dev.Index, macsec.NewSCI(net.HardwareAddr{2, 0, 0, 0, 2, byte(1 - i)}, 1), true); err != nil {
			t.Fatal(err)
		}
		r.addr = &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(1+i)), Port: 4000}
		r.in(t, func() error {
			l, err := netlink.LinkByName("eth0-sec")
			if err != nil {
				return err
			}
			addr := &netlink.Addr{IPNet: &net.IPNet{IP: r.addr.IP, Mask: net.CIDRMask(24, 32)}}
			if err := netlink.AddrAdd(l, addr); err != nil {
				return err
			}
			r.conn, err = net.ListenUDP("udp4", r.addr)
			return err
		})
		t.Cleanup(func() {
			if err := r.conn.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return rs
}

// saFor is the association of router i as sender, under the n-th key.
func saFor(suite macsec.CipherSuite, an macsec.AN, n byte, i int) macsec.SA {
	return macsec.SA{
		AN: an, Active: true, NextPN: 1, KeyID: macsec.KeyID{0xb0, 15: n},
		Key:  macsec.NewKey(bytes.Repeat([]byte{n + 1}, suite.KeyLen())),
		SSCI: macsec.SSCI(i + 1), Salt: macsec.Salt{n, 1, 2, 3},
	}
}

// rekey installs the n-th key under an: receiving first at both ends, then
// sending, then the old one goes.
func rekey(t *testing.T, rs [2]*router, suite macsec.CipherSuite, an macsec.AN, n byte) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range rs {
		check(r.client.AddRxSA(r.dev.Index, rs[1-i].sci, saFor(suite, an, n, 1-i)))
	}
	for i, r := range rs {
		check(r.client.AddTxSA(r.dev.Index, saFor(suite, an, n, i)))
		check(r.client.UpdateDevice(r.dev.Index, macsec.DeviceUpdate{EncodingAN: &an}))
	}
	if n == 0 {
		return
	}
	old, off := (an+3)%4, macsec.SAUpdate{Active: new(bool)}
	for i, r := range rs {
		check(r.client.UpdateTxSA(r.dev.Index, old, off))
		check(r.client.DeleteTxSA(r.dev.Index, old))
		check(r.client.UpdateRxSA(r.dev.Index, rs[1-i].sci, old, off))
		check(r.client.DeleteRxSA(r.dev.Index, rs[1-i].sci, old))
	}
}

// talk sends n datagrams there and back; each must arrive.
func talk(t *testing.T, rs [2]*router, n int) {
	t.Helper()
	buf := make([]byte, 2000)
	for k := range n {
		for i, r := range rs {
			msg := fmt.Appendf(nil, "datagram %d of router %d in clear", k, i)
			if _, err := r.conn.WriteToUDP(msg, rs[1-i].addr); err != nil {
				t.Fatal(err)
			}
			if err := rs[1-i].conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			got, _, err := rs[1-i].conn.ReadFromUDP(buf)
			if err != nil || !bytes.Equal(buf[:got], msg) {
				t.Fatalf("received %q, %v, want %q", buf[:got], err, msg)
			}
		}
	}
}

// TestKernelTraffic sends datagrams between two routers over six keys, and then
// lets the kernel in memory read what was on the wire.
func TestKernelTraffic(t *testing.T) {
	for _, suite := range []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256, macsec.GCMAESXPN128, macsec.GCMAESXPN256} {
		for _, encrypt := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s encrypt %t", suite, encrypt), func(t *testing.T) {
				cfg := macsec.Closed(macsec.SCI{}, suite)
				cfg.Encrypt = encrypt
				rs := newRouters(t, cfg)
				var tap packetSocket
				rs[1].in(t, func() error {
					tap = open(t, rs[1].veth)
					return nil
				})
				defer tap.close(t)

				const keys, datagrams = 6, 5
				var totals macsec.Accumulator
				dump := func() *macsec.SecY {
					s, err := rs[1].client.SecY(rs[1].dev.Index)
					if err != nil {
						t.Fatal(err)
					}
					totals.Add(s)
					return s
				}
				twin := newTwin(t, cfg, rs)
				for n := range byte(keys) {
					an := macsec.AN(n % 4)
					rekey(t, rs, suite, an, n)
					twin.add(t, saFor(suite, an, n, 0))
					talk(t, rs, datagrams)
					kern := dump()
					twin.read(t, tap, encrypt)
					twin.compare(t, kern, rs[0].sci)
				}
				showAgrees(t, rs[1])
				// The address resolution comes on top.
				got := totals.Totals().Rx[rs[0].sci]
				if got.SA.InPktsOK != got.InPktsOK || got.InPktsOK < keys*datagrams || got.InPktsOK > keys*datagrams+10 {
					t.Errorf("%d frames by association, %d by channel, at least %d were sent", got.SA.InPktsOK, got.InPktsOK, keys*datagrams)
				}
			})
		}
	}
}

// twin is a kernel in memory with the same configuration as rs[1], that gets the
// frames that arrived at rs[1].
type twin struct {
	k     *macsectest.Kernel
	index int
	from  macsec.SCI
	last  *macsec.AN
}

func newTwin(t *testing.T, cfg macsec.DeviceConfig, rs [2]*router) *twin {
	t.Helper()
	k := macsectest.New()
	cfg.SCI = rs[1].sci
	d, err := k.CreateDevice(k.AddInterface("eth0", rs[1].mac, 1500), "eth0-sec", cfg)
	if err != nil {
		t.Fatal(err)
	}
	up := true
	if err := errors.Join(k.UpdateDevice(d.Index, macsec.DeviceUpdate{Up: &up}), k.AddRxSC(d.Index, rs[0].sci, true)); err != nil {
		t.Fatal(err)
	}
	return &twin{k: k, index: d.Index, from: rs[0].sci}
}

// add installs a key to receive and removes the one before.
func (w *twin) add(t *testing.T, sa macsec.SA) {
	t.Helper()
	err := w.k.AddRxSA(w.index, w.from, sa)
	if w.last != nil {
		err = errors.Join(err, w.k.UpdateRxSA(w.index, w.from, *w.last, macsec.SAUpdate{Active: new(bool)}), w.k.DeleteRxSA(w.index, w.from, *w.last))
	}
	if err != nil {
		t.Fatal(err)
	}
	w.last = &sa.AN
}

// read takes the frames from the tap: all of them MACsec, none of them
// refused, and the datagrams inside.
func (w *twin) read(t *testing.T, tap packetSocket, encrypt bool) {
	t.Helper()
	inClear := []byte("in clear")
	datagrams := 0
	for _, f := range tap.read(t, 1) {
		plain, err := w.k.Receive(w.index, f)
		if err != nil {
			t.Errorf("%v: %x", err, f)
		}
		if !bytes.Contains(plain, inClear) {
			continue // address resolution
		}
		datagrams++
		if bytes.Contains(f, inClear) == encrypt {
			t.Errorf("encrypt %t, yet on the wire %q", encrypt, f)
		}
	}
	if datagrams == 0 {
		t.Error("no datagram was on the wire")
	}
}

// compare holds the counters and packet numbers of both kernels to each other.
func (w *twin) compare(t *testing.T, kern *macsec.SecY, from macsec.SCI) {
	t.Helper()
	s, err := w.k.SecY(w.index)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.RxSC(from), kern.RxSC(from); !reflect.DeepEqual(got, want) {
		t.Errorf("in memory\n %+v, the kernel has\n %+v", got, want)
	}
	if s.Stats != kern.Stats {
		t.Errorf("in memory %+v, the kernel has %+v", s.Stats, kern.Stats)
	}
}

// showAgrees compares with iproute2, where there is one.
func showAgrees(t *testing.T, r *router) {
	t.Helper()
	ip, err := exec.LookPath("ip")
	if err != nil {
		return
	}
	var out []byte
	r.in(t, func() (err error) {
		out, err = exec.Command(ip, "macsec", "show", "eth0-sec").CombinedOutput()
		return err
	})
	s, err := r.client.SecY(r.dev.Index)
	if err != nil {
		t.Fatal(err)
	}
	onOff := map[bool]string{true: "on", false: "off"}
	want := []string{
		"cipher suite: " + s.CipherSuite.String(), "encrypt " + onOff[s.Encrypt], "validate " + s.Validate.String(),
		"TXSC: " + s.SCI.String() + " on SA " + fmt.Sprint(s.EncodingAN), "RXSC: " + s.RxSCs[0].SCI.String() + ", state on",
	}
	for _, sa := range append(s.TxSC.SAs, s.RxSCs[0].SAs...) {
		want = append(want, fmt.Sprintf("%d: PN %d,", sa.AN, sa.NextPN), "state "+onOff[sa.Active]+", key "+sa.KeyID.String())
	}
	for _, w := range want {
		if !strings.Contains(string(out), w) {
			t.Errorf("ip macsec show does not say %q:\n%s", w, out)
		}
	}
}

// TestKernelReadsFake sends what the kernel in memory sealed to the real one.
func TestKernelReadsFake(t *testing.T) {
	for _, suite := range []macsec.CipherSuite{macsec.GCMAES128, macsec.GCMAES256, macsec.GCMAESXPN128, macsec.GCMAESXPN256} {
		t.Run(suite.String(), func(t *testing.T) {
			newNetNS(t)
			near, far := vethPair(t, "a", net.HardwareAddr{2, 0, 0, 0, 1, 1})
			client := newClient(t)
			from := macsec.SCI{2, 0, 0, 0, 9, 9, 0, 1}
			cfg := macsec.Closed(macsec.SCI{2, 0, 0, 0, 8, 8, 0, 1}, suite)
			k := macsectest.New()
			fakeCfg := cfg
			fakeCfg.SCI = from
			fake, err := k.CreateDevice(k.AddInterface("eth0", from.MAC(), 1500), "ms0", fakeCfg)
			if err != nil {
				t.Fatal(err)
			}
			kern, err := client.CreateDevice(near, "ms0", cfg)
			if err != nil {
				t.Fatal(err)
			}
			sa, up := saFor(suite, 0, 1, 0), true
			if suite.XPN() {
				sa.NextPN = 3<<32 - 2
			}
			if err := errors.Join(
				k.AddTxSA(fake.Index, sa), k.UpdateDevice(fake.Index, macsec.DeviceUpdate{Up: &up}),
				client.AddRxSC(kern.Index, from, true), client.AddRxSA(kern.Index, from, sa),
				client.UpdateDevice(kern.Index, macsec.DeviceUpdate{Up: &up}),
			); err != nil {
				t.Fatal(err)
			}
			in := open(t, kern.Index)
			defer in.close(t)
			for _, n := range []int{60, 20, 500, 1400} {
				plain := append([]byte{2, 0, 0, 0, 8, 8, 2, 0, 0, 0, 9, 9, 0x88, 0xb7}, bytes.Repeat([]byte{byte(n)}, n)...)
				wire, err := k.Transmit(fake.Index, plain)
				if err != nil {
					t.Fatal(err)
				}
				write(t, far, wire)
				if got := in.read(t, 1); len(got) != 1 || !bytes.Equal(got[0], plain) {
					t.Errorf("delivered %x, want %x", got, plain)
				}
			}
		})
	}
}

// TestKernelClientStaysInItsNamespace calls from a thread that has moved on.
func TestKernelClientStaysInItsNamespace(t *testing.T) {
	rs := newRouters(t, macsec.Closed(macsec.SCI{}, macsec.GCMAESXPN256))
	newNetNS(t)
	here := newClient(t)
	newNetNS(t)
	for _, r := range rs {
		if _, err := r.client.Device("eth0-sec"); err != nil {
			t.Error(err)
		}
	}
	if devs, err := here.Devices(); err != nil || len(devs) != 0 {
		t.Errorf("in an empty namespace: %v, %v", devs, err)
	}
}

// TestKernelManyPeers needs a dump whose devices do not fit into a page.
func TestKernelManyPeers(t *testing.T) {
	newNetNS(t)
	near, _ := vethPair(t, "a", net.HardwareAddr{2, 0, 0, 0, 1, 1})
	client := newClient(t)
	const peers = 30
	var devs [3]*macsec.Device
	for n := range devs {
		suite := macsec.GCMAESXPN256
		var err error
		if devs[n], err = client.CreateDevice(near, fmt.Sprintf("ms%d", n), macsec.Closed(macsec.SCI{2, 7: byte(n + 1)}, suite)); err != nil {
			t.Fatal(err)
		}
		for p := range byte(peers) {
			sci := macsec.SCI{2, byte(n), p, 7: 1}
			err := client.AddRxSC(devs[n].Index, sci, true)
			for an := range macsec.AN(2) {
				err = errors.Join(err, client.AddRxSA(devs[n].Index, sci, saFor(suite, an, 1, int(p))))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err := client.SecYs()
	if err != nil || len(all) != len(devs) {
		t.Fatalf("%d devices, %v", len(all), err)
	}
	for i, s := range all {
		if len(s.RxSCs) != peers || len(s.RxSCs[peers-1].SAs) != 2 {
			t.Errorf("%s has %d peers, want %d", s.Name, len(s.RxSCs), peers)
		}
		one, err := client.SecY(devs[i].Index)
		if err != nil || !reflect.DeepEqual(*one, s) {
			t.Errorf("%s by itself: %+v, %v", s.Name, one, err)
		}
	}
}
