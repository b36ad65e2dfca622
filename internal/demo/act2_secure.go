package demo

import (
	"context"
	"fmt"
	"github.com/lever-link/lever/internal/lab"
	"net"
	"strings"
	"time"

	"github.com/lever-link/lever/macsec"
)

// secureWithin bounds how long securing may take on the slowest machine.
const secureWithin = 15 * time.Second

// secure is act 2: both agents start, and the link is secured.
func (d *demo) secure(ctx context.Context) error {
	d.tell.say("Two agents start, each with its inventory and two directories of key material.")
	first, second := d.routers[0], d.routers[1]
	var macs [2]net.HardwareAddr
	for i, r := range d.routers {
		var err error
		if macs[i], err = r.Space.MAC(d.ends[i].Interface); err != nil {
			return err
		}
	}
	// The second agent starts when the first one waits for it.
	if err := first.Start(); err != nil {
		return err
	}
	err := d.await(ctx, secureWithin, "the first MKPDU of "+first.Name, func() (heard bool, seen string) {
		d.wire.Look(func(c *lab.WireCount) { _, heard = c.First(macs[0], lab.EtherTypeEAPOL) })
		return heard, count(0, "frame")
	})
	if err != nil {
		return err
	}
	started := time.Now()
	if err := second.Start(); err != nil {
		return err
	}
	key, err := d.awaitKey(ctx, secureWithin, "both kernels to use one key", macsec.KeyID{})
	if err != nil {
		return err
	}
	both, err := d.bothStatus(ctx, secureWithin, "both agents to say secured", func(l lab.LinkStatus) bool { return l.State == lab.StateSecured })
	if err != nil {
		return err
	}
	since := both[0].SecuredSince
	if both[1].SecuredSince.After(since) {
		since = both[1].SecuredSince
	}
	var spoke time.Time
	d.wire.Look(func(c *lab.WireCount) { spoke, _ = c.First(macs[1], lab.EtherTypeEAPOL) })

	d.tell.claim(since.After(started), "both ends secured", "%d ms after %s's agent was started", since.Sub(started).Milliseconds(), second.Name)
	d.tell.claim(!spoke.IsZero() && since.After(spoke), "", "%d ms after its first MKPDU on the wire", since.Sub(spoke).Milliseconds())
	return d.tellSecured(both, key)
}

// tellSecured says what was agreed, as both agents and both kernels see it.
func (d *demo) tellSecured(both [2]lab.LinkStatus, key lab.KernelKey) error {
	a, z := both[0], both[1]
	var views [2]*macsec.SecY
	held := true
	for i, r := range d.routers {
		var err error
		if views[i], err = r.SecY(d.ends[i].Secure); err != nil {
			return err
		}
		v := views[i]
		held = held && v.CipherSuite == macsec.GCMAESXPN256 && v.Encrypt && v.Protect && v.Validate == macsec.Strict &&
			strings.EqualFold(both[i].Cipher, v.CipherSuite.String())
	}
	d.tell.claim(held, "cipher", "%s, encryption on, validation strict, at both ends", views[0].CipherSuite)
	d.tell.claim(a.CKN != "" && a.CKN == z.CKN, "CKN", "%s at both ends, of epoch %s", lab.Abbreviated(a.CKN), a.Epoch)
	d.tell.claim(a.KeyServer != "" && a.KeyServer == z.KeyServer && d.keyServer(both) >= 0, "key server",
		"%s, which is %s; both ends agree", a.KeyServer, d.keyServerName(both))
	d.tell.claim(a.AN == z.AN && a.KN == z.KN && a.KN == lab.KeyNumber(key.ID), "SAK", "%s, in both agents and both kernels", key)
	for i, r := range d.routers {
		d.tell.fact(r.Name, "%s", describeSecY(views[i]))
	}
	return nil
}

// keyServer is the index of the router that is key server, or -1.
func (d *demo) keyServer(both [2]lab.LinkStatus) int {
	for i, l := range both {
		if l.LocalSCI != "" && l.LocalSCI == l.KeyServer {
			return i
		}
	}
	return -1
}

func (d *demo) keyServerName(both [2]lab.LinkStatus) string {
	if i := d.keyServer(both); i >= 0 {
		return d.routers[i].Name
	}
	return "neither of them"
}

// describeSecY is what the kernel says, in the words of `ip macsec show`.
func describeSecY(s *macsec.SecY) string {
	parts := []string{fmt.Sprintf("%s: protect %s, encrypt %s, validate %s; TXSC %s on SA %d",
		s.Name, onOff(s.Protect), onOff(s.Encrypt), s.Validate, s.SCI, s.EncodingAN)}
	for _, rx := range s.RxSCs {
		parts = append(parts, fmt.Sprintf("RXSC %s", rx.SCI))
	}
	return strings.Join(parts, "; ")
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
