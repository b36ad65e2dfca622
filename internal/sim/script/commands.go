package script

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

var commands map[string]func(*Script, *args) error

func init() { // a table of functions that use it
	commands = map[string]func(*Script, *args) error{
		"member": (*Script).cmdMember, "peer": (*Script).cmdPeer,
		"start": (*Script).cmdStart, "secure": (*Script).cmdSecure, "kill": (*Script).cmdKill, "restart": (*Script).cmdRestart,
		"cak": (*Script).cmdCAK, "remove": (*Script).cmdRemove, "revoke": (*Script).cmdRevoke,
		"rekey": (*Script).cmdRekey, "leave": (*Script).cmdLeave, "suspend": (*Script).cmdSuspend, "pn": (*Script).cmdPN,
		"fail": (*Script).cmdFail, "slow": (*Script).cmdSlow,
		"cut": (*Script).cmdCut, "heal": (*Script).cmdHeal, "loss": (*Script).cmdLoss, "replay": (*Script).cmdReplay,
		"run": (*Script).cmdRun, "status": (*Script).cmdStatus, "data": (*Script).cmdData, "gaps": (*Script).cmdGaps,
		"show": (*Script).cmdShow, "hide": (*Script).cmdHide, "lenient": (*Script).cmdLenient,
		"say": (*Script).cmdSay, "send": (*Script).cmdSend,
	}
}

// config reads what a device and a Port are made of.
func (s *Script) config(a *args) (change func(*mka.Config), err error) {
	external, delay, icv := a.flag("external"), a.flag("delay-protect"), a.flag("icv-indicator")
	destination, err := parseMAC(a.text("destination", ""))
	if err != nil {
		return nil, err
	}
	priority, etherType := a.number("priority", mka.DefaultPriority), a.number("ethertype", 0)
	suite := a.suite("suite", mka.GCMAESXPN256)
	hello, life, rekey := a.duration("hello", 0), a.duration("life", 0), a.duration("rekey", 0)
	zeroMI := a.text("mi", "") == "zero"
	return func(c *mka.Config) {
		c.External, c.DelayProtect, c.ICVIndicator = external, delay, icv
		c.Destination, c.EtherType, c.Priority, c.Suite = destination, uint16(etherType), uint8(priority), suite
		c.Hello, c.Life, c.SAKRekey = hello, life, rekey
		if zeroMI {
			c.Rand = io.MultiReader(strings.NewReader(strings.Repeat("\x00", 12)), c.Rand)
		}
	}, nil
}

func parseMAC(text string) (mka.MAC, error) {
	var m mka.MAC
	if text == "" {
		return m, nil
	}
	n, err := fmt.Sscanf(text, "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5])
	if err != nil || n != 6 {
		return m, fmt.Errorf("%q is no MAC address", text)
	}
	return m, nil
}

func (s *Script) newName(a *args) (string, byte, error) {
	name, err := a.word("a name")
	if err != nil {
		return "", 0, err
	}
	if _, err := s.station(name); err == nil {
		return "", 0, fmt.Errorf("%s is there already", name)
	}
	return name, byte(a.number("address", uint64(len(s.stations)+1))), nil
}

func (s *Script) cmdMember(a *args) error {
	name, n, err := s.newName(a)
	if err != nil {
		return err
	}
	change, err := s.config(a)
	if err != nil {
		return err
	}
	s.stations = append(s.stations, &station{name: name, member: s.sim.Add(name, n, change)})
	return nil
}

func (s *Script) cmdPeer(a *args) error {
	name, n, err := s.newName(a)
	if err != nil {
		return err
	}
	kind := a.text("kind", "scripted")
	if kind == "wpa_supplicant" && !slices.ContainsFunc(a.list, func(x argument) bool { return x.Key == "suite" }) {
		a.list = append(a.list, argument{Key: "suite", Vals: []string{"gcm-aes-128"}})
	}
	hello := a.duration("hello", 2*time.Second) // a scripted one's
	answers := !a.flag("mute")
	change, err := s.config(a)
	if err != nil {
		return err
	}
	st := &station{name: name}
	switch kind {
	case "wpa_supplicant":
		st.wpa = s.sim.AddWPA(name, n, change)
		st.member = st.wpa.Member
	case "mkadaemon":
		st.mkad = s.sim.AddMKAdaemon(name, n, change)
		st.member = st.mkad.Member
	case "scripted":
		st.hand = newHand(s, s.sim.AddOther(name, n, change), hello, answers)
		st.member = st.hand.Member
	default:
		return fmt.Errorf("there is no kind %q", kind)
	}
	s.stations = append(s.stations, st)
	return nil
}

// cak reads a CAK by its name: epoch-2 has the rank 2 and octets of 2.
func (s *Script) cak(name string, a *args) sim.CAK {
	c := sim.CAK{CKN: mka.CKN(name), Octet: 1, Rank: 1}
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		if n, err := strconv.ParseUint(name[i+1:], 10, 8); err == nil {
			c.Octet, c.Rank = byte(n), n
		}
	}
	c.Octet, c.Rank = byte(a.number("octet", uint64(c.Octet))), a.number("rank", c.Rank)
	c.Length = int(a.number("length", 0))
	s.learn(c)
	return c
}

func (s *Script) cmdStart(a *args) error {
	names := a.words()
	c := s.cak(a.text("cak", "epoch-1"), a)
	record, mn, kn := a.text("record", "last"), a.number("mn", 0), a.number("kn", 0)
	for _, name := range names {
		st, err := s.station(name)
		if err != nil {
			return err
		}
		if len(st.caks) == 0 {
			st.caks = []sim.CAK{c}
		}
		if err := s.start(st, record, uint32(mn), uint32(kn)); err != nil {
			return err
		}
	}
	return nil
}

// cmdSecure is start, and run until=secured, without the diary of it.
func (s *Script) cmdSecure(a *args) error {
	s.muted = true
	err := s.cmdStart(a)
	took, ok := s.sim.Net.RunUntil(time.Minute, s.secured)
	s.muted = false
	if ok {
		s.line("all are secured, after %v", took)
	} else {
		s.line("not all are secured within a minute")
	}
	s.gaps = gaps{}
	return err
}

// start starts a station with the CAKs that it has. Greater than zero, mn and kn are
// the ceilings that its record is made to say.
func (s *Script) start(st *station, record string, mn, kn uint32) error {
	switch {
	case st.wpa != nil:
		return st.wpa.Run(st.caks[0])
	case st.mkad != nil:
		return st.mkad.Run(st.caks[0])
	case st.hand != nil:
		return st.hand.start(st.caks[0])
	}
	r := st.member.Record
	switch record {
	case "last":
	case "earlier":
		r = st.member.Earlier
	case "none":
		r = nil
	default:
		return fmt.Errorf("there is no record %q", record)
	}
	if r != nil && (mn > 0 || kn > 0) {
		c := *r
		c.Participants = slices.Clone(c.Participants)
		if mn > 0 {
			c.Participants[0].MN = mn
		}
		if kn > 0 {
			c.Participants[0].KN = kn
		}
		r = &c
	}
	st.member.StartFrom(r, st.caks...)
	return nil
}

func (s *Script) cmdKill(a *args) error {
	return s.each(a, func(st *station) error {
		switch {
		case st.wpa != nil:
			st.wpa.Kill()
		case st.mkad != nil:
			st.mkad.Kill()
		case st.hand != nil:
			st.hand.Kill()
		default:
			st.member.Kill()
			delete(s.state, st.member)
		}
		return nil
	})
}

func (s *Script) each(a *args, do func(*station) error) error {
	names := a.words()
	if len(names) == 0 {
		return errors.New("whom?")
	}
	for _, name := range names {
		st, err := s.station(name)
		if err != nil {
			return err
		}
		if err := do(st); err != nil {
			return err
		}
	}
	return nil
}

func (s *Script) cmdRestart(a *args) error {
	down, record := a.duration("down", 0), a.text("record", "last")
	mn, kn := a.number("mn", 0), a.number("kn", 0)
	rest := newArgs(a.list)
	if err := s.cmdKill(a); err != nil {
		return err
	}
	s.run(down)
	return s.each(rest, func(st *station) error { return s.start(st, record, uint32(mn), uint32(kn)) })
}

func (s *Script) cmdCAK(a *args) error {
	st, ckn, err := s.who2(a)
	if err != nil {
		return err
	}
	c := s.cak(ckn, a)
	st.caks = append(st.caks, c)
	st.member.AddCAK(c)
	return nil
}

// who2 takes a member of ours, which is alive, and a CKN.
func (s *Script) who2(a *args) (*station, string, error) {
	st, err := s.alive(a)
	if err != nil {
		return nil, "", err
	}
	ckn, err := a.word("the CKN")
	return st, ckn, err
}

func (s *Script) alive(a *args) (*station, error) {
	name, err := a.word("a name")
	if err != nil {
		return nil, err
	}
	st, err := s.station(name)
	if err == nil && st.member.Port == nil {
		err = fmt.Errorf("%s is no member that is alive", name)
	}
	return st, err
}

func (s *Script) cmdRemove(a *args) error {
	st, ckn, err := s.who2(a)
	if err == nil {
		st.drop(ckn)
		st.member.RemoveCAK(mka.CKN(ckn))
	}
	return err
}

func (s *Script) cmdRevoke(a *args) error {
	st, ckn, err := s.who2(a)
	if err == nil {
		st.drop(ckn)
		st.member.RevokeCAK(mka.CKN(ckn))
	}
	return err
}

func (st *station) drop(ckn string) {
	st.caks = slices.DeleteFunc(st.caks, func(c sim.CAK) bool { return c.CKN == mka.CKN(ckn) })
}

func (s *Script) cmdRekey(a *args) error {
	return s.each(a, func(st *station) error {
		switch {
		case st.wpa != nil:
			st.wpa.Rekey()
		case st.mkad != nil:
			st.mkad.Rekey()
		case st.member.Port == nil:
			return fmt.Errorf("%s is not alive", st.name)
		default:
			if err := st.member.Port.CanRekey(); err != nil {
				s.line("%s cannot rekey: %v", st.name, err)
			}
			st.member.Rekey()
		}
		return nil
	})
}

func (s *Script) cmdLeave(a *args) error {
	return s.each(a, func(st *station) error {
		if st.member.Port == nil {
			return fmt.Errorf("%s is not alive", st.name)
		}
		st.member.Step(mka.Event{Kind: mka.EventLeave})
		return nil
	})
}

func (s *Script) cmdSuspend(a *args) error {
	st, err := s.alive(a)
	if err != nil {
		return err
	}
	text, err := a.word("how long")
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	if err := st.member.Port.CanSuspend(); err != nil {
		s.line("%s cannot suspend: %v", st.name, err)
	}
	st.member.Step(mka.Event{Kind: mka.EventSuspend, Suspend: d})
	return nil
}

// cmdPN has a device use packet numbers up, so that the next one is the one given.
func (s *Script) cmdPN(a *args) error {
	st, err := s.named(a, "a name")
	if err != nil {
		return err
	}
	text, err := a.word("the packet number")
	if err != nil {
		return err
	}
	pn, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		return err
	}
	y, err := st.member.Kernel.SecY(st.member.Index)
	if err != nil {
		return err
	}
	for _, sa := range y.TxSC.SAs {
		if sa.AN == y.EncodingAN {
			return st.member.Kernel.MoveTx(st.member.Index, macsec.AN(sa.AN), pn-sa.NextPN)
		}
	}
	return fmt.Errorf("%s has no transmit SA", st.name)
}

func (s *Script) cmdFail(a *args) error {
	st, err := s.named(a, "a name")
	if err != nil {
		return err
	}
	kind, left := strings.ReplaceAll(a.text("op", ""), "-", " "), a.number("n", math.MaxUint64)
	st.member.OpFault = func(op mka.Op) error {
		if left == 0 || !strings.EqualFold(op.Kind.String(), kind) {
			return nil
		}
		left--
		return errors.New("the kernel refuses")
	}
	return nil
}

func (s *Script) cmdSlow(a *args) error {
	st, err := s.named(a, "a name")
	if err != nil {
		return err
	}
	text, err := a.word("how long an operation takes")
	if err != nil {
		return err
	}
	st.member.OpDelay, err = time.ParseDuration(text)
	return err
}
