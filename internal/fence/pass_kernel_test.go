//go:build kernel

package fence

import (
	"encoding/hex"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// raw sends frames as they are, but for the source address, and tells which of
// them were on the other end's wire.
func raw(t *testing.T, from, to *end, fd int, addr func(protocol uint16) unix.Sockaddr, frames [][2]string) []string {
	t.Helper()
	wire := to.socket(unix.ETH_P_ALL)
	for _, f := range frames {
		b := octets(t, f)
		protocol := uint16(b[12])<<8 | uint16(b[13])
		_ = unix.Sendto(fd, b, 0, addr(protocol))
	}
	transmit(t, from, from.socket(0), frame(from, to, secTAG+string(marker), 0x88e5))
	return received(t, wire)
}

// octets of a frame that has its name at the end.
func octets(t *testing.T, f [2]string) []byte {
	t.Helper()
	b, err := hex.DecodeString(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return append(append(b, "name:"+f[0]...), make([]byte, 40)...)
}

// through tells which frames got through the other end's fence.
func through(t *testing.T, from, to *end, frames [][2]string) []string {
	t.Helper()
	fds := map[uint16]int{}
	protocols := []uint16{etherTypeMACsec} // the marker's, last
	for _, f := range frames {
		if b := octets(t, f); !slices.Contains(protocols, uint16(b[12])<<8|uint16(b[13])) {
			protocols = append(protocols, uint16(b[12])<<8|uint16(b[13]))
		}
	}
	for _, p := range protocols {
		fds[p] = to.socket(p)
	}
	out := from.socket(0)
	for _, f := range frames {
		transmit(t, from, out, octets(t, f))
	}
	for _, p := range slices.Backward(protocols) { // each has its marker
		b := frame(from, to, secTAG+string(marker), p)
		transmit(t, from, out, b)
	}
	got := received(t, fds[etherTypeMACsec])
	for _, p := range protocols[1:] {
		buf := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fds[p], buf, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			for _, f := range frames {
				if slices.Equal(buf[:n], octets(t, f)) {
					got = append(got, f[0])
				}
			}
		}
	}
	return got
}

// linkFrames are of the protocols that an allow-list can have; those with a
// capital letter meet all that the list asks for.
var linkFrames = [][2]string{
	{"LLDP nearest", nearest + "88cc" + "0207"},
	{"LLDP non-TPMR", pae + "88cc" + "0207"},
	{"LLDP customer", bridges + "88cc" + "0207"},
	{"lldp to a host", host + "88cc" + "0207"},
	{"lldp to a group that is forwarded", beyond + "88cc" + "0207"},
	{"lldp tagged", nearest + "8100" + "0007" + "88cc" + "0207"},
	{"LACP", slow + "8809" + "0101"},
	{"lacp marker", slow + "8809" + "0201"},
	{"lacp to a host", host + "8809" + "0101"},
	{"lacp tagged", slow + "8100" + "0007" + "8809" + "0101"},
	{"PAUSE", flow + "8808" + "0001ffff"},
	{"PAUSE by priority", flow + "8808" + "010100ff"},
	{"pause to a host", host + "8808" + "0001ffff"},
	{"pause with another opcode", flow + "8808" + "0002ffff"},
	{"pause tagged", flow + "8100" + "0007" + "8808" + "0001ffff"},
}

func TestAllowList(t *testing.T) {
	capitals := func(prefixes ...string) []string {
		var names []string
		for _, f := range linkFrames {
			if slices.ContainsFunc(prefixes, func(p string) bool { return len(f[0]) >= len(p) && f[0][:len(p)] == p }) {
				names = append(names, f[0])
			}
		}
		slices.Sort(names)
		return names
	}
	for _, tt := range []struct {
		allow Protocols
		want  []string
	}{
		{0, nil},
		{LLDP, capitals("LLDP")},
		{LACP, capitals("LACP")},
		{Pause, capitals("PAUSE")},
		{LLDP | LACP | Pause, capitals("LLDP", "LACP", "PAUSE")},
	} {
		t.Run(tt.allow.String(), func(t *testing.T) {
			a, b := newLink(t)
			a.close(Options{Allow: tt.allow})
			toAll := func(uint16) unix.Sockaddr { return &unix.SockaddrLinklayer{Ifindex: a.index} }
			got := raw(t, a, b, a.socket(0), toAll, linkFrames)
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("left: %q, want %q", got, tt.want)
			}
			got = through(t, b, a, linkFrames)
			slices.Sort(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("came in: %q, want %q", got, tt.want)
			}
			st := a.inspect(Options{Allow: tt.allow})
			if stopped := uint64(len(linkFrames) - len(tt.want)); !st.Closed || st.DroppedEgress.Frames != stopped {
				t.Errorf("%+v, want %d dropped on their way out", st, stopped)
			}
			// Another list replaces the program and nothing else.
			lossless(t, a, b, true, Options{}, Options{Allow: tt.allow})
			stopsAllFrames(t, a, b)
		})
	}
}

// TestOnlyWhatIsEncryptedLeaves sends what a MACsec device sends on which
// somebody turns encryption off, and what only says that it is MACsec.
func TestOnlyWhatIsEncryptedLeaves(t *testing.T) {
	frames := [][2]string{
		{"ENCRYPTED", host + "88e5" + "2c0000000001020000000002" + "0001"},
		{"ENCRYPTED AN 3 end station", host + "88e5" + "4f0000000001"},
		{"protected", host + "88e5" + "200000000001020000000002" + "0001"},
		{"changed", host + "88e5" + "240000000001020000000002" + "0001"},
		{"e without c", host + "88e5" + "280000000001020000000002" + "0001"},
		{"MKA", pae + "888e" + "0305002c"},
		{"KEY ID", pae + "888e" + "03060008" + "fe06" + "4a4c5601" + "6869"},
		{"announcement", pae + "888e" + "03060008" + "fe06" + "0080c201" + "6869"},
		{"eapol start", pae + "888e" + "02010000"},
		{"IPv4", host + "0800" + "2c05"},
	}
	want := []string{"ENCRYPTED", "ENCRYPTED AN 3 end station", "MKA", "KEY ID"}
	a, b := newLink(t)
	a.close(Options{})
	for what, protocol := range map[string]func(uint16) uint16{
		"as they are":       func(p uint16) uint16 { return p },
		"said to be MACsec": func(uint16) uint16 { return etherTypeMACsec },
		"said to be MKA":    func(uint16) uint16 { return etherTypeEAPOL },
	} {
		fd := a.socket(0)
		got := raw(t, a, b, fd, func(p uint16) unix.Sockaddr {
			p = protocol(p)
			return &unix.SockaddrLinklayer{Ifindex: a.index, Protocol: p<<8 | p>>8}
		}, frames)
		if !slices.Equal(got, want) {
			t.Errorf("%s: left %q, want %q", what, got, want)
		}
	}
	// What others send without encryption is not our leak, and for the device
	// to judge.
	got := through(t, b, a, frames)
	slices.Sort(got)
	if want := []string{"ENCRYPTED", "ENCRYPTED AN 3 end station", "KEY ID", "MKA", "announcement", "changed", "e without c", "eapol start", "protected"}; !slices.Equal(got, want) {
		t.Errorf("came in: %q, want %q", got, want)
	}
}

// TestShortFramesAreStopped: a program that looks beyond the end of a frame
// ends, and with an answer that must not be "pass".
func TestShortFramesAreStopped(t *testing.T) {
	a, b := newLink(t)
	a.close(Options{Allow: LLDP | LACP | Pause})
	sent := uint64(0)
	out := a.socket(0)
	for n := 14; n < 16; n++ {
		for _, typ := range []uint16{0x88e5, 0x888e, 0x8809, 0x8808, 0x0800} {
			transmit(t, a, out, frame(a, b, "", typ)[:n])
			sent++
		}
	}
	if st := a.inspect(Options{Allow: LLDP | LACP | Pause}); st.DroppedEgress.Frames != sent || sent != 10 {
		t.Errorf("%+v, want %d dropped", st, sent)
	}
}

// TestMonitorCountsAndSwitches on a live link.
func TestMonitorCountsAndSwitches(t *testing.T) {
	monitor := Options{Monitor: true}
	a, b := newLink(t)
	a.close(monitor)
	if wire, _ := exchange(t, a, b); !slices.Equal(wire, names(false)) {
		t.Errorf("egress: on the wire %q, want all", wire)
	}
	if _, behind := exchange(t, b, a); len(behind) <= len(names(true)) {
		t.Errorf("ingress: %q, want more", behind)
	}
	st := a.inspect(monitor)
	if st.Closed || !st.InPlace || st.DroppedEgress.Frames != stopped() || st.DroppedIngress.Frames != stopped() || st.DroppedEgress.Octets == 0 {
		t.Errorf("%+v, want %d counted each way", st, stopped())
	}
	if st := a.inspect(Options{}); st.Closed || st.InPlace || !st.Leaks() {
		t.Errorf("as seen in mode enforce: %+v", st)
	}
	// Into mode enforce and back, and what passes in both gets through.
	a.close(Options{})
	stopsAllFrames(t, a, b)
	before := a.places(Egress)
	if n := lossless(t, a, b, false, monitor, Options{}, monitor, Options{}); n != 8 || a.places(Egress) != before {
		t.Errorf("%d steps, want one for each direction and mode; filters %s", n, a.places(Egress))
	}
	stopsAllFrames(t, a, b)
	if st := a.inspect(monitor); !st.Closed && len(st.Findings) != 2 {
		t.Errorf("a closed fence as seen in mode monitor: %+v", st)
	}
}
