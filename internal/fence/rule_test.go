package fence

import (
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestRules(t *testing.T) {
	tests := []struct {
		etherType uint16
		mka       uint16
		err       string
	}{
		{0, 0x888e, ""},
		{0x888e, 0x888e, ""},
		{0x876f, 0x876f, ""},
		{unix.ETH_P_ALL, 0, "below 0600"},
		{0x05ff, 0, "below 0600"},
		{unix.ETH_P_IP, 0, "user traffic"},
		{unix.ETH_P_IPV6, 0, "user traffic"},
		{unix.ETH_P_ARP, 0, "user traffic"},
		{unix.ETH_P_8021Q, 0, "user traffic"},
		{unix.ETH_P_8021AD, 0, "user traffic"},
		{0x88e5, 0, "MACsec's own"},
	}
	for _, tt := range tests {
		rules, err := Options{EtherType: tt.etherType}.rules()
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%04X: error %v, want one with %q", tt.etherType, err, tt.err)
			}
			continue
		}
		want := []rule{{3, 0x88e5, netlink.TC_ACT_OK}, {4, tt.mka, netlink.TC_ACT_OK}, {5, unix.ETH_P_ALL, netlink.TC_ACT_SHOT}}
		if err != nil || !slices.Equal(rules, want) {
			t.Errorf("%04X: rules %v, %v, want %v", tt.etherType, rules, err, want)
		}
	}
}

// have makes a filter as the kernel would list it.
func have(handle uint32, prio, proto uint16, acts ...netlink.TcAct) filter {
	m := &netlink.MatchAll{FilterAttrs: netlink.FilterAttrs{Handle: handle, Priority: prio, Protocol: proto}}
	for _, a := range acts {
		m.Actions = append(m.Actions, &netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: a}})
	}
	return filter{m.Attrs(), m}
}

func TestCompare(t *testing.T) {
	drop := rule{dropPriority, unix.ETH_P_ALL, netlink.TC_ACT_SHOT}
	chain := uint32(7)
	elsewhere := have(1, 5, unix.ETH_P_ALL, netlink.TC_ACT_OK)
	elsewhere.attrs.Chain = &chain
	tests := []struct {
		name    string
		filters []filter
		steps   string // a add, r remove and add
		problem []Problem
	}{
		{"none", nil, "a", []Problem{Missing}},
		{"there", []filter{have(ownHandle, 5, 3, netlink.TC_ACT_SHOT)}, "", nil},
		{"there, made the hooks", []filter{have(ownHandle|1, 5, 3, netlink.TC_ACT_SHOT)}, "", nil},
		{"other priorities", []filter{have(1, 1, 3, netlink.TC_ACT_OK), have(ownHandle, 4, 0x888e, netlink.TC_ACT_OK)}, "a", []Problem{Missing}},
		{"other verdict", []filter{have(ownHandle, 5, 3, netlink.TC_ACT_OK)}, "r", []Problem{Altered}},
		{"other protocol", []filter{have(ownHandle, 5, 0x800, netlink.TC_ACT_SHOT)}, "r", []Problem{Altered}},
		{"no action", []filter{have(ownHandle, 5, 3)}, "r", []Problem{Altered}},
		{"two actions", []filter{have(ownHandle, 5, 3, netlink.TC_ACT_OK, netlink.TC_ACT_SHOT)}, "r", []Problem{Altered}},
		{"foreign in the place", []filter{have(1, 5, 3, netlink.TC_ACT_SHOT)}, "", []Problem{Occupied}},
		{"foreign in another chain", []filter{elsewhere}, "a", []Problem{Missing}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			steps, findings := drop.compare(tt.filters, Ingress)
			got := ""
			for _, s := range steps {
				if s.add != drop {
					t.Errorf("step adds %v", s.add)
				}
				if s.remove != nil {
					got += "r"
				} else {
					got += "a"
				}
			}
			var problems []Problem
			for _, f := range findings {
				problems = append(problems, f.Problem)
			}
			if got != tt.steps || !slices.Equal(problems, tt.problem) {
				t.Errorf("steps %q, findings %v, want %q, %v", got, findings, tt.steps, tt.problem)
			}
		})
	}
}
