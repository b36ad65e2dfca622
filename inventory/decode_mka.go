package inventory

import (
	"math"
	"net"
	"time"

	"gopkg.in/yaml.v3"
)

// refusedEtherTypes may not carry MKA. The fence lets the EtherType of MKA pass
// in the clear, and with one of these it would let traffic pass.
var refusedEtherTypes = map[uint64]string{
	0x0800: "IPv4", 0x0806: "ARP", 0x86dd: "IPv6", 0x8100: "VLAN tags", 0x88a8: "VLAN tags",
	0x8847: "MPLS", 0x8848: "MPLS", 0x8863: "PPPoE", 0x8864: "PPPoE", 0x88e5: "MACsec itself", 0x88e7: "802.1ah",
}

// mka decodes the parameters of the key agreement.
func (d *decoder) mka(l *Link, n *yaml.Node) {
	f, _ := d.mapping(n, &mkaShape)
	l.mkaAt = make(map[string]Position, len(f.values))
	for key, n := range f.values {
		l.mkaAt[key] = d.at(n)
	}
	m := &l.MKA
	if n := f.values["icv_indicator"]; n != nil {
		m.ICVIndicator = d.truth(n, "mka.icv_indicator")
	}
	if n := f.values["replay_window"]; n != nil {
		if v, ok := d.integer(n, "mka.replay_window", 0, math.MaxUint32); ok {
			m.ReplayWindow = uint32(v)
		}
	}
	if n := f.values["delay_protect"]; n != nil {
		if m.DelayProtect = d.truth(n, "mka.delay_protect"); m.DelayProtect {
			m.Hello = boundedHello
		}
	}
	if n := f.values["priority"]; n != nil {
		if v, ok := d.integer(n, "mka.priority", 0, math.MaxUint8); ok {
			m.Priority = uint8(v)
		}
	}
	times := true
	if n := f.values["hello"]; n != nil {
		v, ok := d.duration(n, "mka.hello", 100*time.Millisecond)
		if times = times && ok; ok && m.DelayProtect && v > boundedHello {
			d.errorf(d.at(n), "mka.hello must be at most %s with delay_protect: leave it out; found %s", boundedHello, v)
		} else if ok {
			m.Hello = v
		}
	}
	if n := f.values["life"]; n != nil {
		v, ok := d.duration(n, "mka.life", time.Second)
		if times = times && ok; ok {
			m.Life = v
		}
	}
	if times && m.Life <= m.Hello {
		d.errorf(f.at, "mka.life (%s) must be longer than mka.hello (%s): the peer would be given up before it can speak again",
			m.Life, m.Hello)
	}
	if n := f.values["destination"]; n != nil {
		d.destination(m, n)
	}
	if n := f.values["ethertype"]; n != nil {
		v, ok := d.integer(n, "mka.ethertype", 0x0600, math.MaxUint16)
		if what, refused := refusedEtherTypes[v]; ok && refused {
			d.errorf(d.at(n), "mka.ethertype %#04x is that of %s, which would then pass the fence in the clear", v, what)
		} else if ok {
			m.EtherType = uint16(v)
		}
	}
}

func (d *decoder) destination(m *MKA, n *yaml.Node) {
	s, ok := d.formed(n, "mka.destination", &macPattern)
	if !ok {
		return
	}
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil:
		d.errorf(d.at(n), "mka.destination: %v", err)
	case mac[0]&1 == 0:
		// A receiver drops an MKPDU to an individual address before it looks
		// at anything else.
		d.errorf(d.at(n), "mka.destination must be a group address, with the lowest bit of the first octet set; found %s", s)
	default:
		copy(m.Destination[:], mac)
	}
}
