package fence

import (
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestPasses(t *testing.T) {
	for _, tt := range []struct {
		options Options
		err     string
	}{
		{Options{}, ""},
		{Options{EtherType: 0x888e}, ""},
		{Options{EtherType: 0x876f, Allow: LLDP | LACP | Pause}, ""},
		{Options{EtherType: unix.ETH_P_ALL}, "below 0600"},
		{Options{EtherType: 0x05ff}, "below 0600"},
		{Options{EtherType: unix.ETH_P_IP}, "user traffic"},
		{Options{EtherType: unix.ETH_P_IPV6}, "user traffic"},
		{Options{EtherType: unix.ETH_P_ARP}, "user traffic"},
		{Options{EtherType: unix.ETH_P_8021Q}, "user traffic"},
		{Options{EtherType: unix.ETH_P_8021AD}, "user traffic"},
		{Options{EtherType: 0x88e5}, "MACsec's own"},
		{Options{Allow: 8}, "0x8: only lldp, lacp and pause"},
		{Options{Allow: 0x80 | LLDP}, "lldp, 0x80"},
	} {
		for _, d := range directions() {
			_, err := tt.options.gateRule(d)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v %s: error %v, want one with %q", tt.options, d, err, tt.err)
			}
		}
	}
}

// The addresses of frames; the second is the source's.
const (
	host    = "020000000001" + "020000000002"
	bridges = "0180c2000000" + "020000000002"
	flow    = "0180c2000001" + "020000000002"
	slow    = "0180c2000002" + "020000000002"
	pae     = "0180c2000003" + "020000000002"
	nearest = "0180c200000e" + "020000000002"
	beyond  = "0180c2000010" + "020000000002"
)

func TestProgram(t *testing.T) {
	const none, out, in, both = "", "e", "i", "ei"
	all := LLDP | LACP | Pause
	for _, tt := range []struct {
		name    string
		options Options
		frame   string
		pass    string // directions
	}{
		{"encrypted, SCI", Options{}, host + "88e5" + "2c00000000010200000000020001", both},
		{"encrypted, AN 3", Options{}, host + "88e5" + "0f2000000001", both},
		{"encrypted, end station", Options{}, host + "88e5" + "4c0000000001", both},
		{"encrypted, SCB", Options{}, host + "88e5" + "1c0000000001", both},
		{"protected only", Options{}, host + "88e5" + "2000000000010200000000020001", in},
		{"changed and not encrypted", Options{}, host + "88e5" + "2400000000010200000000020001", in},
		{"E without C", Options{}, host + "88e5" + "2800000000010200000000020001", in},
		{"another version of SecTAG", Options{}, host + "88e5" + "ac00000000010200000000020001", in},
		{"MKA", Options{}, pae + "888e" + "0305002c", both},
		{"MKA to a host", Options{}, host + "888e" + "0305002c", both},
		{"EAPOL start", Options{}, pae + "888e" + "02010000", in},
		{"announcement of a key id", Options{}, pae + "888e" + "03060008" + "fe06" + "4a4c5601" + "6869", both},
		{"announcement of a long one", Options{}, pae + "888e" + "03060196" + "ff94" + "4a4c5601" + "6869", both},
		{"announcement too long", Options{}, pae + "888e" + "03060208" + "ff06" + "4a4c5601" + "6869", in},
		{"announcement of somebody else", Options{}, pae + "888e" + "03060008" + "fe06" + "0080c201" + "6869", in},
		{"announcement of another subtype", Options{}, pae + "888e" + "03060008" + "fe06" + "4a4c5602" + "6869", in},
		{"announcement of something else", Options{}, pae + "888e" + "03060008" + "de06" + "4a4c5601" + "6869", in},
		{"announcement that is cut off", Options{}, pae + "888e" + "03060008" + "fe06" + "4a4c56", in},
		{"announcement to a host", Options{}, host + "888e" + "03060008" + "fe06" + "4a4c5601" + "6869", in},
		{"announcement, specific", Options{}, pae + "888e" + "03070008" + "fe06" + "4a4c5601" + "6869", in},
		{"announcement under another EtherType", Options{EtherType: 0x876f}, pae + "876f" + "03060008" + "fe06" + "4a4c5601" + "6869", in},
		{"MKA under another EtherType", Options{EtherType: 0x876f}, pae + "876f" + "0305002c", both},
		{"MKA under the standard's", Options{EtherType: 0x876f}, pae + "888e" + "0305002c", none},
		{"another EtherType", Options{}, pae + "876f" + "0305002c", none},
		{"IPv4", Options{Allow: all}, host + "0800" + "4500", none},
		{"IPv6", Options{Allow: all}, host + "86dd" + "6000", none},
		{"ARP", Options{Allow: all}, host + "0806" + "0001", none},
		{"802.3 length", Options{Allow: all}, host + "0026" + "4242", none},
		{"spanning tree", Options{Allow: all}, bridges + "0026" + "424203", none},
		{"tag within", Options{Allow: all}, host + "8100" + "000788e52c00", none},
		{"IPv4 that begins as a SecTAG does", Options{}, host + "0800" + "2c00", none},

		{"LLDP, not allowed", Options{Allow: LACP | Pause}, nearest + "88cc" + "0207", none},
		{"LLDP, nearest bridge", Options{Allow: LLDP}, nearest + "88cc" + "0207", both},
		{"LLDP, nearest non-TPMR bridge", Options{Allow: LLDP}, pae + "88cc" + "0207", both},
		{"LLDP, nearest customer bridge", Options{Allow: LLDP}, bridges + "88cc" + "0207", both},
		{"LLDP, slow group", Options{Allow: LLDP}, slow + "88cc" + "0207", none},
		{"LLDP, group that is forwarded", Options{Allow: LLDP}, beyond + "88cc" + "0207", none},
		{"LLDP, to a host", Options{Allow: LLDP}, host + "88cc" + "0207", none},
		{"LACP, not allowed", Options{Allow: LLDP | Pause}, slow + "8809" + "0101", none},
		{"LACP", Options{Allow: LACP}, slow + "8809" + "0101", both},
		{"LACP, to a host", Options{Allow: LACP}, host + "8809" + "0101", none},
		{"LACP, wrong group", Options{Allow: LACP}, nearest + "8809" + "0101", none},
		{"marker", Options{Allow: LACP}, slow + "8809" + "0201", none},
		{"OAM, which has a loopback", Options{Allow: LACP}, slow + "8809" + "0300", none},
		{"organisation's own slow protocol", Options{Allow: LACP}, slow + "8809" + "0a00", none},
		{"pause, not allowed", Options{Allow: LLDP | LACP}, flow + "8808" + "0001ffff", none},
		{"pause", Options{Allow: Pause}, flow + "8808" + "0001ffff", both},
		{"priority pause", Options{Allow: Pause}, flow + "8808" + "010100ff", both},
		{"pause, to a host", Options{Allow: Pause}, host + "8808" + "0001ffff", none},
		{"other MAC control", Options{Allow: Pause}, flow + "8808" + "0002", none},
		{"everything allowed, still MKA", Options{Allow: all}, pae + "888e" + "0305", both},
		{"everything allowed, still MACsec", Options{Allow: all}, host + "88e5" + "2c00", both},
		{"everything allowed, still not in the clear", Options{Allow: all}, host + "88e5" + "2000", in},
	} {
		frame, err := hex.DecodeString(tt.frame)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got := ""
		for _, d := range directions() {
			ps, err := tt.options.passes(d)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if n := int(leastFrame(ps)); len(frame) < n {
				t.Errorf("%s: %d octets, and %d are looked for", tt.name, len(frame), n)
			}
			// The VM knows no tags beside a frame: kernel tests do.
			vm, err := bpf.NewVM(body(ps))
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			switch answer, err := vm.Run(frame); {
			case err != nil:
				t.Fatalf("%s: %v", tt.name, err)
			case uint32(answer) == mayPass:
				got += d.String()[:1]
			case uint32(answer) != mustNot:
				t.Errorf("%s: %s answers %#x", tt.name, d, answer)
			}
		}
		if got != tt.pass {
			t.Errorf("%s: passes %q, want %q", tt.name, got, tt.pass)
		}
	}
}

// A frame that ends before what is looked for would end the program with a pass.
func TestProgramStopsShortFrames(t *testing.T) {
	for _, o := range []Options{{}, {Allow: LLDP | LACP | Pause}} {
		for _, d := range directions() {
			ps, err := o.passes(d)
			if err != nil {
				t.Fatal(err)
			}
			code := program(ps, d)
			guard := append(code[:3:3], bpf.RetConstant{Val: mayPass})
			vm, err := bpf.NewVM(guard)
			if err != nil {
				t.Fatal(err)
			}
			least := int(leastFrame(ps))
			for n := range 64 {
				answer, err := vm.Run(make([]byte, n))
				if err != nil || (uint32(answer) == mustNot) != (n < least) {
					t.Errorf("%+v %s: %d octets: %#x, %v; %d are looked for", o, d, n, answer, err, least)
				}
			}
			if least < 14 || least > 16 {
				t.Errorf("%+v %s: frames of less than %d octets are stopped", o, d, least)
			}
		}
	}
}
