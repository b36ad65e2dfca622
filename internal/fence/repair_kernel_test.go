//go:build kernel

package fence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	mdl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// as runs f with the kernel's filters of the interface.
func (e *end) as(f func(*tc) error) {
	e.t.Helper()
	e.do(func() error {
		t, err := openTC(e.index)
		if err != nil {
			return err
		}
		defer t.close()
		return f(t)
	})
}

func (e *end) filters(d Direction) (fs []filter) {
	e.t.Helper()
	e.as(func(t *tc) (err error) { fs, err = t.list(d); return err })
	return slices.DeleteFunc(fs, func(f filter) bool { return !f.matches() })
}

// places are the priorities of the filters: in brackets if they are others'.
func (e *end) places(d Direction) string {
	e.t.Helper()
	var s []string
	for _, f := range e.filters(d) {
		if f.ours() {
			s = append(s, fmt.Sprintf("%s %d", f.kind, f.priority))
		} else {
			s = append(s, fmt.Sprintf("[%s %d]", f.kind, f.priority))
		}
	}
	return strings.Join(s, ", ")
}

func attrs(e *end, d Direction, priority, protocol uint16) netlink.FilterAttrs {
	return netlink.FilterAttrs{LinkIndex: e.index, Parent: d.parent(), Handle: 1, Priority: priority, Protocol: protocol}
}

func verdict(v netlink.TcAct) []netlink.Action {
	return []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: v}}}
}

// matchall adds somebody else's filter. So do the others; they run in the
// namespace.
func (e *end) matchall(d Direction, priority uint16, v netlink.TcAct) error {
	return netlink.FilterAdd(&netlink.MatchAll{FilterAttrs: attrs(e, d, priority, unix.ETH_P_ALL), Actions: verdict(v)})
}

func (e *end) flower(d Direction, priority uint16, v netlink.TcAct) error {
	return netlink.FilterAdd(&netlink.Flower{FilterAttrs: attrs(e, d, priority, unix.ETH_P_IP), EthType: unix.ETH_P_IP, Actions: verdict(v)})
}

// program adds one of cls_bpf that passes everything.
func (e *end) program(d Direction, priority uint16) error {
	b, err := ops([]bpf.Instruction{bpf.RetConstant{Val: mustNot}})
	if err != nil {
		return err
	}
	t, err := openTC(e.index)
	if err != nil {
		return err
	}
	defer t.close()
	return t.add(d, priority, 1, rule{"pass all", kindBPF, unix.ETH_P_ALL, b, netlink.TC_ACT_OK})
}

// deleteAll is `tc filter del dev … egress`, with a priority or without.
func (e *end) deleteAll(d Direction, priority, protocol uint16) error {
	c, err := openTC(e.index)
	if err != nil {
		return err
	}
	defer c.close()
	return c.change(unix.RTM_DELTFILTER, 0, tcmsg{index: e.index, parent: d.parent(), info: info(priority, protocol)}, mdl.NewAttributeEncoder())
}

// former closes the fence as Lever did before it had the gate.
func (e *end) former() {
	e.t.Helper()
	e.as(func(t *tc) error {
		if _, err := t.ensureHooks(); err != nil {
			return err
		}
		for _, d := range directions() {
			for i, r := range (Options{}).rows() {
				if err := t.add(d, macsecPriority+uint16(i), ownHandle|madeHooksFlag, r); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// stopsAllFrames sends all frames both ways.
func stopsAllFrames(t *testing.T, a, b *end) {
	t.Helper()
	if wire, _ := exchange(t, a, b); !slices.Equal(wire, names(true)) {
		t.Errorf("egress: on the wire %q, want %q", wire, names(true))
	}
	if _, behind := exchange(t, b, a); !slices.Equal(behind, names(true)) {
		t.Errorf("ingress: behind the fence %q, want %q", behind, names(true))
	}
}

// TestCloseRepairs does to the fence what people and programs do.
func TestCloseRepairs(t *testing.T) {
	change := func(d Direction, edit func(f filter, r *rule)) func(*end) error {
		return func(a *end) error {
			c, err := openTC(a.index)
			if err != nil {
				return err
			}
			defer c.close()
			fs, err := c.list(d)
			if err != nil {
				return err
			}
			for _, f := range fs {
				if f.ours() {
					r := rule{"altered", f.kind, f.protocol, f.ops, f.actions[0].verdict}
					edit(f, &r)
					return c.add(d, f.priority, f.handle, r)
				}
			}
			return fmt.Errorf("no filter of the fence among %v", fs)
		}
	}
	passAll := bpf.RetConstant{Val: mayPass}
	for _, d := range directions() {
		for _, tt := range []struct {
			name    string
			do      func(a *end) error
			problem Problem
			after   string // filters of that direction
			removed bool   // a filter of somebody else's
		}{
			{"tc filter del", func(a *end) error {
				return a.deleteAll(d, 0, 0)
			}, Missing, "bpf 1", false},
			{"tc filter del prio 1", func(a *end) error {
				return a.deleteAll(d, 1, unix.ETH_P_ALL)
			}, Missing, "bpf 1", false},
			{"tc qdisc del clsact", func(a *end) error { return netlink.QdiscDel((&tc{index: a.index}).hooks()) }, Missing, "bpf 1", false},
			{"another verdict", change(d, func(_ filter, r *rule) { r.verdict = netlink.TC_ACT_OK }), Altered, "bpf 1", false},
			{"another program", change(d, func(_ filter, r *rule) { r.ops, _ = ops([]bpf.Instruction{passAll}) }), Altered, "bpf 1", false},
			{"tc actions change", func(a *end) error { return a.changeAction(d) }, Altered, "bpf 1", false},
			{"a program in the same place", func(a *end) error { return a.program(d, 1) }, Foreign, "bpf 1, [bpf 1]", false},
			{"deleted and displaced", func(a *end) error {
				if err := a.deleteAll(d, 0, 0); err != nil {
					return err
				}
				return a.matchall(d, 1, netlink.TC_ACT_OK)
			}, Foreign, "bpf 1", true},
			{"deleted and something harmless in its place", func(a *end) error {
				if err := a.deleteAll(d, 0, 0); err != nil {
					return err
				}
				return a.flower(d, 1, netlink.TC_ACT_SHOT)
			}, Missing, "[flower 1], bpf 2", false},
		} {
			t.Run(fmt.Sprintf("%s: %s", d, tt.name), func(t *testing.T) {
				a, b := newLink(t)
				a.close(Options{})
				a.do(func() error { return tt.do(a) })
				st := a.inspect(Options{})
				if st.Closed || st.InPlace || !st.Leaks() || !slices.ContainsFunc(st.Findings, func(f Finding) bool { return f.Problem == tt.problem && f.Direction == d }) {
					t.Fatalf("after sabotage: %+v", st)
				}
				var changes []Change
				a.do(func() (err error) { changes, err = Close(a.index, Options{}); return err })
				if got := slices.ContainsFunc(changes, func(c Change) bool { return c.Foreign }); got != tt.removed || len(changes) == 0 {
					t.Errorf("changes %v", changes)
				}
				if st := a.inspect(Options{}); !st.Closed || !st.InPlace || len(st.Findings) > 0 {
					t.Errorf("after repair: %+v", st)
				}
				if got := a.places(d); got != tt.after {
					t.Errorf("filters %s, want %s", got, tt.after)
				}
				if got := a.places(1 - d); got != "bpf 1" {
					t.Errorf("filters of the other direction: %s", got)
				}
				stopsAllFrames(t, a, b)
				a.do(func() error { return Open(a.index) })
				if q := qdiscs(a); slices.Contains(q, "clsact") != strings.Contains(tt.after, "[") {
					t.Errorf("qdiscs %q after Open: the repair forgot who had made clsact", q)
				}
			})
		}
	}
}

// changeAction turns the verdict of the fence's action, by its index, as `tc
// actions change action gact pass index …` does.
func (e *end) changeAction(d Direction) error {
	c, err := openTC(e.index)
	if err != nil {
		return err
	}
	defer c.close()
	index, err := c.actionIndex(d)
	if err != nil {
		return err
	}
	ae := mdl.NewAttributeEncoder()
	ae.Nested(nl.TCA_ACT_TAB, func(ae *mdl.AttributeEncoder) error {
		ae.Nested(1, func(ae *mdl.AttributeEncoder) error {
			ae.String(nl.TCA_ACT_KIND, kindGact)
			ae.Nested(nl.TCA_ACT_OPTIONS, func(ae *mdl.AttributeEncoder) error {
				p := gactParms(netlink.TC_ACT_OK)
				binary.NativeEndian.PutUint32(p, index)
				ae.Bytes(nl.TCA_GACT_PARMS, p)
				return nil
			})
			return nil
		})
		return nil
	})
	attributes, err := ae.Encode()
	if err != nil {
		return err
	}
	_, err = c.conn.Execute(mdl.Message{
		Header: mdl.Header{Type: unix.RTM_NEWACTION, Flags: mdl.Request | mdl.Acknowledge | mdl.Create | mdl.Replace},
		Data:   append(make([]byte, 4), attributes...), // struct tcamsg
	})
	return err
}

// actionIndex is that of the action of the fence's filter.
func (t *tc) actionIndex(d Direction) (uint32, error) {
	answers, err := t.conn.Execute(mdl.Message{
		Header: mdl.Header{Type: unix.RTM_GETTFILTER, Flags: mdl.Request | mdl.Dump},
		Data:   tcmsg{index: t.index, parent: d.parent()}.encode(),
	})
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		b := m.Data[tcmsgSize:]
		for _, typ := range []uint16{unix.TCA_OPTIONS, nl.TCA_BPF_ACT, 1, nl.TCA_ACT_OPTIONS, nl.TCA_GACT_PARMS} {
			var inner []byte
			if err := eachAttribute(b, func(ad *mdl.AttributeDecoder) {
				if ad.Type() == typ {
					inner = ad.Bytes()
				}
			}); err != nil {
				return 0, err
			}
			b = inner
		}
		if len(b) >= 4 {
			return binary.NativeEndian.Uint32(b), nil
		}
	}
	return 0, errors.New("no filter with an action")
}

// TestRepairOfAFormerLeversFence upgrades it while MACsec frames pass.
func TestRepairOfAFormerLeversFence(t *testing.T) {
	a, b := newLink(t)
	a.former()
	for _, d := range directions() {
		if got := a.places(d); got != "matchall 3, matchall 4, matchall 5" {
			t.Fatalf("%s: %s", d, got)
		}
	}
	if st := a.inspect(Options{}); st.Leaks() || !st.Closed || len(st.Findings) != 2 || st.Findings[0].Problem != Weak {
		t.Errorf("a former Lever's fence: %+v", st)
	}
	if n := lossless(t, a, b, true, Options{}); n != 8 {
		t.Errorf("%d steps, want a new filter and three that go, each way", n)
	}
	if st := a.inspect(Options{}); !st.Closed || !st.InPlace || len(st.Findings) > 0 {
		t.Errorf("upgraded: %+v", st)
	}
	for _, d := range directions() {
		if got := a.places(d); got != "bpf 1" {
			t.Errorf("%s: %s", d, got)
		}
	}
	stopsAllFrames(t, a, b)
	a.do(func() error { return Open(a.index) })
	if q := qdiscs(a); slices.Contains(q, "clsact") {
		t.Errorf("qdiscs %q after Open: the upgrade forgot that the fence had made clsact", q)
	}
}

// lossless closes the fence by each of the options in turn, and sends a MACsec
// and a plain frame both ways after every step of it: none of the first may get
// lost, and with a fence that is to be closed all the time none of the others
// pass. It returns how many steps there were.
func lossless(t *testing.T, a, b *end, closed bool, turns ...Options) int {
	t.Helper()
	wire, behind, plain := b.socket(unix.ETH_P_ALL), a.socket(etherTypeMACsec), a.socket(unix.ETH_P_IP)
	outA, outB := a.socket(0), b.socket(0)
	steps := 0
	probe := func() {
		transmit(t, a, outA, frame(a, b, "name:plain", 0x0800))
		transmit(t, b, outB, frame(b, a, "name:plain", 0x0800))
		transmit(t, a, outA, frame(a, b, secTAG+fmt.Sprintf("name:%d", steps), 0x88e5))
		transmit(t, b, outB, frame(b, a, secTAG+fmt.Sprintf("name:%d", steps), 0x88e5))
	}
	probe()
	for _, o := range turns {
		w, err := o.wanted()
		if err != nil {
			t.Fatal(err)
		}
		w.after = func() { steps++; probe() }
		a.do(func() error { _, err := w.close(a.index); return err })
	}
	count := func(fd int) map[string]int {
		got, buf := map[string]int{}, make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			if err != nil {
				return got
			}
			if _, name, ok := strings.Cut(string(buf[:n]), "name:"); ok {
				got[strings.TrimRight(name, "\x00")]++
			}
		}
	}
	out, in, leaked := count(wire), count(behind), count(plain)
	if closed && (out["plain"] > 0 || len(leaked) > 0) {
		t.Errorf("%d plain frames left, %v came in", out["plain"], leaked)
	}
	delete(out, "plain")
	if len(out) != steps+1 || len(in) != steps+1 {
		t.Errorf("of %d MACsec frames %d left and %d came in", steps+1, len(out), len(in))
	}
	return steps
}

// TestRepairIsLossless when somebody's filter has to make way.
func TestRepairIsLossless(t *testing.T) {
	for name, do := range map[string]func(a *end, d Direction) error{
		"removed": func(a *end, d Direction) error {
			return errors.Join(a.deleteAll(d, 0, 0), a.matchall(d, 1, netlink.TC_ACT_OK))
		},
		"passed by": func(a *end, d Direction) error { return a.program(d, 1) },
	} {
		a, b := newLink(t)
		a.close(Options{})
		for _, d := range directions() {
			a.do(func() error { return do(a, d) })
		}
		if n := lossless(t, a, b, false, Options{}); n < 4 {
			t.Errorf("%s: %d steps", name, n)
		}
		stopsAllFrames(t, a, b)
	}
}

// TestCloseWhileSomebodyDeletes loses its ground after each of its steps.
func TestCloseWhileSomebodyDeletes(t *testing.T) {
	for step := 1; step <= 2; step++ {
		a, b := newLink(t)
		w, err := Options{}.wanted()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		w.after = func() {
			if n++; n == step {
				if err := netlink.QdiscDel((&tc{index: a.index}).hooks()); err != nil {
					t.Error(err)
				}
			}
		}
		a.do(func() error { _, err := w.close(a.index); return err })
		if st := a.inspect(Options{}); !st.Closed || !st.InPlace {
			t.Errorf("deleted after step %d: %+v", step, st)
		}
		stopsAllFrames(t, a, b)
		a.do(func() error { return Open(a.index) })
		if q := qdiscs(a); slices.Contains(q, "clsact") {
			t.Errorf("qdiscs %q after Open", q)
		}
	}
	// What goes on for ever is given up.
	a, _ := newLink(t)
	w, err := Options{}.wanted()
	if err != nil {
		t.Fatal(err)
	}
	w.after = func() { _ = netlink.QdiscDel((&tc{index: a.index}).hooks()) }
	if err := a.try(func() error { _, err := w.close(a.index); return err }); err == nil {
		t.Error("closed although somebody deletes it after every step")
	}
}

func TestForeignFilters(t *testing.T) {
	add := func(a *end, d Direction, priority uint16, v netlink.TcAct) error { return a.matchall(d, priority, v) }
	for _, d := range directions() {
		for _, tt := range []struct {
			priority uint16
			verdict  netlink.TcAct
			after    string
		}{
			{1, netlink.TC_ACT_OK, "bpf 1"},
			{1, netlink.TC_ACT_UNSPEC, "[matchall 1], bpf 2"},
			{2, netlink.TC_ACT_OK, "bpf 1, [matchall 2]"},
			{5, netlink.TC_ACT_OK, "bpf 1, [matchall 5]"},
			{49152, netlink.TC_ACT_OK, "bpf 1, [matchall 49152]"},
		} {
			t.Run(fmt.Sprintf("%s %d %s", d, tt.priority, tt.verdict), func(t *testing.T) {
				a, b := newLink(t)
				a.do(func() error {
					if err := netlink.QdiscAdd((&tc{index: a.index}).hooks()); err != nil {
						return err
					}
					return add(a, d, tt.priority, tt.verdict)
				})
				// Monitor takes nothing away.
				a.close(Options{Monitor: true})
				if got := a.places(d); !strings.Contains(got, fmt.Sprintf("[matchall %d]", tt.priority)) {
					t.Errorf("mode monitor: %s", got)
				}
				a.close(Options{})
				if st := a.inspect(Options{}); !st.Closed || !st.InPlace || len(st.Findings) > 0 {
					t.Errorf("%+v", st)
				}
				if got := a.places(d); got != tt.after {
					t.Errorf("filters %s, want %s", got, tt.after)
				}
				stopsAllFrames(t, a, b)
				a.do(func() error { return Open(a.index) })
				if q := qdiscs(a); !slices.Contains(q, "clsact") {
					t.Errorf("qdiscs after Open: %q, want the clsact of others", q)
				}
			})
		}
	}
}

// TestNobodyComesBeforeTheFence tries what people do by hand.
func TestNobodyComesBeforeTheFence(t *testing.T) {
	a, _ := newLink(t)
	a.close(Options{})
	for _, d := range directions() {
		for what, f := range map[string]func() error{
			"matchall at priority 1": func() error { return a.matchall(d, 1, netlink.TC_ACT_OK) },
			"flower at priority 1":   func() error { return a.flower(d, 1, netlink.TC_ACT_OK) },
		} {
			if err := a.try(f); err == nil {
				t.Errorf("%s: %s was added: %s", d, what, a.places(d))
			}
		}
		a.do(func() error { return a.matchall(d, 0, netlink.TC_ACT_OK) }) // the kernel chooses
		if got := a.places(d); got != "bpf 1, [matchall 49152]" {
			t.Errorf("%s: %s", d, got)
		}
	}
	if st := a.inspect(Options{}); !st.Closed || len(st.Findings) > 0 {
		t.Errorf("%+v", st)
	}
}

// TestWithoutBPF is what a kernel without cls_bpf says: the same error, for
// another name.
func TestWithoutBPF(t *testing.T) {
	without := Options{classifier: "nothing", Allow: LLDP}
	a, b := newLink(t)
	a.close(without)
	for _, d := range directions() {
		if got := a.places(d); got != "matchall 3, matchall 4, matchall 5" {
			t.Errorf("%s: %s", d, got)
		}
	}
	if _, asked := lacking.Load("nothing"); !asked {
		t.Error("the kernel would be asked for the classifier at every look")
	}
	st := a.inspect(without)
	if !st.Closed || !st.InPlace || len(st.Findings) != 2 || st.Findings[0].Problem != Weak || !strings.Contains(st.Findings[0].Text, "lldp is stopped") {
		t.Errorf("%+v", st)
	}
	stopsAllFrames(t, a, b)
	for _, d := range directions() {
		for priority := uint16(macsecPriority); priority <= dropPriority; priority++ {
			a.as(func(c *tc) error {
				fs, err := c.list(d)
				for _, f := range fs {
					if f.priority == priority && f.ours() && err == nil {
						err = c.remove(d, &f)
					}
				}
				return err
			})
			if st := a.inspect(without); st.InPlace || st.Leaks() != (priority == dropPriority) {
				t.Errorf("%s without priority %d: %+v", d, priority, st)
			}
			a.close(without)
			if st := a.inspect(without); !st.InPlace || !st.Closed {
				t.Errorf("%s priority %d repaired: %+v", d, priority, st)
			}
		}
	}
	a.close(Options{classifier: "nothing", Monitor: true})
	if wire, _ := exchange(t, a, b); !slices.Equal(wire, names(false)) {
		t.Errorf("mode monitor: on the wire %q", wire)
	}
	if st := a.inspect(Options{classifier: "nothing", Monitor: true}); st.Closed || !st.InPlace || st.DroppedEgress.Frames != stopped() {
		t.Errorf("mode monitor: %+v", st)
	}
	a.close(without)
	stopsAllFrames(t, a, b)

	// In its places, what does no harm is in the way, and what does is removed.
	c, _ := newLink(t)
	c.do(func() error {
		if err := netlink.QdiscAdd((&tc{index: c.index}).hooks()); err != nil {
			return err
		}
		return errors.Join(c.matchall(Egress, 5, netlink.TC_ACT_OK), c.matchall(Ingress, 4, netlink.TC_ACT_SHOT))
	})
	err := c.try(func() error { _, err := Close(c.index, without); return err })
	var occupied *OccupiedError
	if !errors.As(err, &occupied) || len(occupied.Findings) != 1 || occupied.Findings[0].Direction != Ingress {
		t.Errorf("Close: %v", err)
	}
	if got := c.places(Egress); got != "matchall 3, matchall 4, matchall 5" {
		t.Errorf("egress: %s", got)
	}
}

// A filter of kind fw that has no options ends the kernel's dump with an error: what
// comes after it cannot be told, so the fence is not said to be in place, and the error
// says what to remove.
func TestFilterThatEndsTheDump(t *testing.T) {
	a, _ := newLink(t)
	a.close(Options{})
	bare := tcmsg{index: a.index, parent: Egress.parent(), info: info(9, unix.ETH_P_ALL)}
	change := func(typ mdl.HeaderType, flags mdl.HeaderFlags) {
		t.Helper()
		a.as(func(c *tc) error {
			ae := mdl.NewAttributeEncoder()
			ae.String(unix.TCA_KIND, "fw")
			return c.change(typ, flags, bare, ae)
		})
	}
	change(unix.RTM_NEWTFILTER, mdl.Create|mdl.Excl)
	err := a.try(func() error { _, err := Inspect(a.index, Options{}); return err })
	if !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), "a filter of kind fw without handle and options; remove it (tc filter del dev … egress pref …)") {
		t.Errorf("got %v", err)
	}
	change(unix.RTM_DELTFILTER, 0)
	if st := a.inspect(Options{}); !st.Closed || !st.InPlace {
		t.Errorf("%+v", st)
	}
}
