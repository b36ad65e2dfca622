package fence

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func gact(v rtnl.TcAct) []action { return []action{{kind: kindGact, verdict: v}} }

// have makes a filter as the kernel would list it.
func have(kind string, priority, protocol uint16, handle uint32, actions ...action) filter {
	return filter{kind: kind, priority: priority, protocol: protocol, handle: handle, known: true, actions: actions}
}

// gate makes the fence's filter, as o says.
func gate(t *testing.T, o Options, priority uint16, flags uint32) filter {
	t.Helper()
	r, err := o.gateRule(Egress)
	if err != nil {
		t.Fatal(err)
	}
	f := have(kindBPF, priority, unix.ETH_P_ALL, ownHandle|flags, gact(r.verdict)...)
	f.ops = r.ops
	return f
}

// rows makes what a former Lever left.
func rows() []filter {
	var fs []filter
	for i, r := range (Options{}).rows() {
		fs = append(fs, have(kindMatchall, macsecPriority+uint16(i), r.protocol, ownHandle, gact(r.verdict)...))
	}
	return fs
}

// apply does to a list of filters what the kernel does with them.
func apply(filters []filter, s step) []filter {
	if s.remove != nil {
		return slices.DeleteFunc(slices.Clone(filters), func(f filter) bool {
			return f.priority == s.remove.priority && f.handle == s.remove.handle
		})
	}
	f := have(s.add.kind, s.priority, s.add.protocol, s.handle, gact(s.add.verdict)...)
	f.ops = s.add.ops
	for i, old := range filters {
		switch {
		case old.priority == f.priority && old.handle == f.handle:
			filters = slices.Clone(filters)
			filters[i] = f
			return filters
		case old.priority >= f.priority: // cls_bpf: before those of its own priority
			return slices.Insert(slices.Clone(filters), i, f)
		}
	}
	return append(slices.Clip(filters), f)
}

// TestPlanGate goes round as Close does, until nothing is left to do.
func TestPlanGate(t *testing.T) {
	pass, drop, next := gact(rtnl.TC_ACT_OK), gact(rtnl.TC_ACT_SHOT), gact(rtnl.TC_ACT_UNSPEC)
	all := uint16(unix.ETH_P_ALL)
	flower := func(priority uint16, handle uint32, actions ...action) filter {
		return have("flower", priority, unix.ETH_P_IP, handle, actions...)
	}
	program := func(priority uint16) filter { // somebody's, as cilium has it
		f := have(kindBPF, priority, all, 1)
		f.direct = true
		return f
	}
	altered := gate(t, Options{}, 1, 0)
	altered.actions = pass
	gone := gate(t, Options{}, 1, 0)
	gone.ops = gone.ops[8:]
	mirror := flower(1, 1, action{kind: "mirred"})
	elsewhere := flower(1, 1, pass...)
	elsewhere.chain = 7
	table := have("u32", 1, unix.ETH_P_IP, 0x80000000)
	table.table = true
	unknown := flower(1, 1, drop...)
	unknown.known = false
	sometimes := flower(1, 1, action{kind: kindGact, verdict: rtnl.TC_ACT_SHOT, random: true})
	offloaded := flower(2, 1, action{kind: "mirred"})
	offloaded.hardware = true
	besideGate := have(kindBPF, 1, all, 1)
	besideGate.hardware = true
	trapped := flower(2, 1, drop...)
	trapped.hardware = true
	bare := have("tcindex", 1, all, 0)
	bare.known = false
	monitor := Options{Monitor: true}
	for _, tt := range []struct {
		name    string
		options Options
		filters []filter
		want    string // of each round
		problem string // in the first
		left    string // priorities of ours and, in brackets, of others, as frames meet them
	}{
		{"none", Options{}, nil, "+1", "missing 1 leak", "1"},
		{"in place", Options{}, []filter{gate(t, Options{}, 1, 0)}, "", "", "1"},
		{"made the hooks", Options{}, []filter{gate(t, Options{}, 1, madeHooksFlag)}, "", "", "1"},
		{"was put beside", Options{}, []filter{gate(t, Options{}, 1, besideFlag)}, "", "", "1"},
		{"another verdict", Options{}, []filter{altered}, "=1", "altered 1 leak", "1"},
		{"another program", Options{}, []filter{gone}, "=1", "altered 1 leak", "1"},
		{"of mode monitor", Options{}, []filter{gate(t, monitor, 1, 0)}, "=1", "altered 1 leak", "1"},
		{"into mode monitor", monitor, []filter{gate(t, Options{}, 1, 0)}, "=1", "altered 1 leak", "1"},
		{"another allow-list", Options{Allow: LLDP}, []filter{gate(t, Options{}, 1, 0)}, "=1", "altered 1 leak", "1"},
		{"twice", Options{}, []filter{gate(t, Options{}, 1, besideFlag), gate(t, Options{}, 1, 0)}, "-1", "altered 1", "1"},
		{"a wrong one before the right one", Options{}, []filter{altered, gate(t, Options{}, 1, besideFlag)}, "-1", "altered 1 leak", "1"},

		{"rows of a former Lever", Options{}, rows(), "+1 -5 -4 -3", "missing 1", "1"},
		{"rows and gate", Options{}, append([]filter{gate(t, Options{}, 1, 0)}, rows()...), "-5 -4 -3", "altered 5, altered 4, altered 3", "1"},
		{"rows without their drop", Options{}, rows()[:2], "+1 -4 -3", "missing 1 leak", "1"},

		{"foreign behind", Options{}, []filter{gate(t, Options{}, 1, 0), flower(2, 1, pass...), flower(3, 1)}, "", "", "1 [2] [3]"},
		{"foreign drop before", Options{}, []filter{flower(1, 1, drop...), gate(t, Options{}, 2, 0)}, "", "", "[1] 2"},
		{"foreign drop first", Options{}, []filter{flower(1, 1, drop...), flower(1, 2, next...)}, "+2", "missing 2 leak", "[1] [1] 2"},
		{"foreign drop gone", Options{}, []filter{gate(t, Options{}, 2, 0)}, "+1; -2", "altered 2", "1"},
		{"foreign pass first", Options{}, []filter{flower(1, 1, pass...)}, "+2 !1; +1; -2", "missing 2 leak, foreign 1 leak", "1"},
		{"foreign pass before", Options{}, []filter{flower(1, 1, pass...), gate(t, Options{}, 2, 0)}, "!1; +1; -2", "foreign 1 leak", "1"},
		{"foreign without action", Options{}, []filter{flower(1, 1), gate(t, Options{}, 2, 0)}, "!1; +1; -2", "foreign 1 leak", "1"},
		{"foreign mirror", Options{}, []filter{mirror, gate(t, Options{}, 2, 0)}, "!1; +1; -2", "foreign 1 leak", "1"},
		{"foreign drop at random", Options{}, []filter{sometimes, gate(t, Options{}, 2, 0)}, "!1; +1; -2", "foreign 1 leak", "1"},
		{"foreign of unknown kind", Options{}, []filter{unknown, gate(t, Options{}, 2, 0)}, "!1; +1; -2", "foreign 1 leak", "1"},
		{"foreign pass among drops", Options{}, []filter{flower(1, 1, drop...), flower(1, 2, pass...), gate(t, Options{}, 2, 0)}, "!1", "foreign 1 leak", "[1] 2"},
		{"foreign pass before rows", Options{}, append([]filter{flower(1, 1, pass...)}, rows()...),
			"+2 !1 -5 -4 -3; +1; -2", "missing 2 leak, foreign 1 leak", "1"},
		{"foreign in another chain", Options{}, []filter{elsewhere}, "+1", "missing 1 leak", "1 [1]"},
		{"foreign place without filters", Options{}, []filter{have("flower", 1, 0x800, 0), table}, "+2", "missing 2 leak", "[1] [1] 2"},
		{"foreign place that passes without filters", Options{}, []filter{bare}, "+2 !1; +1; -2", "missing 2 leak, foreign 1 leak", "1"},
		{"and in front", Options{}, []filter{bare, gate(t, Options{}, 2, 0)}, "!1; +1; -2", "foreign 1 leak", "1"},
		{"and behind", Options{}, []filter{gate(t, Options{}, 1, 0), have("fw", 2, all, 0)}, "", "", "1 [2]"},
		{"foreign place of fw with a filter", Options{}, []filter{have("fw", 1, all, 0), have("fw", 1, all, 7, drop...), gate(t, Options{}, 2, 0)}, "", "", "[1] [1] 2"},
		{"foreign in hardware behind", Options{}, []filter{gate(t, Options{}, 1, 0), offloaded}, "!2", "foreign 2 leak", "1"},
		{"foreign program in hardware", Options{}, []filter{gate(t, Options{}, 1, 0), besideGate}, "!1", "foreign 1 leak", "1"},
		{"foreign in hardware that only drops", Options{}, []filter{gate(t, Options{}, 1, 0), trapped}, "", "", "1 [2]"},
		{"foreign in hardware alone", Options{}, []filter{offloaded}, "+1 !2", "missing 1 leak, foreign 2 leak", "1"},
		{"monitor leaves foreign in hardware", monitor, []filter{gate(t, monitor, 1, 0), offloaded}, "", "foreign 2 leak", "1 [2]"},
		{"foreign program first", Options{}, []filter{program(1)}, "+1", "missing 1 leak", "1 [1]"},
		{"foreign program came before", Options{}, []filter{program(1), gate(t, Options{}, 1, 0)}, "+1; -1", "foreign 1 leak", "1 [1]"},
		{"and again", Options{}, []filter{program(1), gate(t, Options{}, 1, besideFlag)}, "+1; -1", "foreign 1 leak", "1 [1]"},
		{"foreign program and pass", Options{}, []filter{flower(1, 1, pass...), program(2)}, "+2 !1; +1; -2", "missing 2 leak, foreign 1 leak", "1 [2]"},

		{"monitor", monitor, nil, "+1", "missing 1 leak", "1"},
		{"monitor leaves foreign", monitor, []filter{flower(1, 1, pass...)}, "+2", "missing 2 leak, foreign 1 leak", "[1] 2"},
		{"monitor leaves foreign program", monitor, []filter{program(1), gate(t, monitor, 1, 0)}, "", "foreign 1 leak", "[1] 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, err := tt.options.wanted()
			if err != nil {
				t.Fatal(err)
			}
			filters := tt.filters
			var did, problems []string
			for round := range rounds + 1 {
				steps, findings := w.plan(filters, Egress)
				for _, f := range findings {
					if round == 0 {
						leak := ""
						if f.Leak {
							leak = " leak"
						}
						problems = append(problems, fmt.Sprintf("%s %d%s", f.Problem, f.Priority, leak))
					}
				}
				if len(steps) == 0 {
					break
				}
				var now []string
				for _, s := range steps {
					filters = apply(filters, s)
					how := map[bool]string{true: "=", false: "+"}[s.instead]
					if s.remove != nil {
						how, s.priority = "-", s.remove.priority
					}
					if s.foreign {
						how = "!"
					}
					now = append(now, fmt.Sprintf("%s%d", how, s.priority))
				}
				did = append(did, strings.Join(now, " "))
			}
			var left []string
			for _, f := range filters {
				text := fmt.Sprint(f.priority)
				if !f.ours() {
					text = "[" + text + "]"
				}
				left = append(left, text)
			}
			for what, got := range map[string][2]string{
				"steps":    {strings.Join(did, "; "), tt.want},
				"findings": {strings.Join(problems, ", "), tt.problem},
				"left":     {strings.Join(left, " "), tt.left},
			} {
				if got[0] != got[1] {
					t.Errorf("%s: %q, want %q", what, got[0], got[1])
				}
			}
		})
	}
}

func TestPlanRow(t *testing.T) {
	drop := Options{}.rows()[2]
	verdict := func(v ...rtnl.TcAct) (as []action) {
		for _, v := range v {
			as = append(as, gact(v)...)
		}
		return as
	}
	row := func(protocol uint16, actions ...action) []filter {
		return []filter{have(kindMatchall, 5, protocol, ownHandle, actions...)}
	}
	for _, tt := range []struct {
		name    string
		filters []filter
		steps   string // a add, r remove
		problem []Problem
	}{
		{"none", nil, "a", []Problem{Missing}},
		{"there", row(3, verdict(rtnl.TC_ACT_SHOT)...), "", nil},
		{"other verdict", row(3, verdict(rtnl.TC_ACT_OK)...), "ra", []Problem{Altered}},
		{"other protocol", row(0x800, verdict(rtnl.TC_ACT_SHOT)...), "ra", []Problem{Altered}},
		{"no action", row(3), "ra", []Problem{Altered}},
		{"two actions", row(3, verdict(rtnl.TC_ACT_OK, rtnl.TC_ACT_SHOT)...), "ra", []Problem{Altered}},
		{"foreign drop in the place", []filter{have("flower", 5, 3, 1, verdict(rtnl.TC_ACT_SHOT)...)}, "", []Problem{Occupied}},
		{"foreign pass in the place", []filter{have("flower", 5, 3, 1, verdict(rtnl.TC_ACT_OK)...)}, "", []Problem{Missing}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps, findings := planRow(tt.filters, Ingress, dropPriority, drop, false)
			got := ""
			for _, s := range steps {
				got += map[bool]string{true: "r", false: "a"}[s.remove != nil]
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
