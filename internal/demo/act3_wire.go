package demo

import (
	"context"
	"github.com/lever-link/lever/internal/lab"
	"time"
)

// onTheWire is act 3: what an outsider sees, and what passes.
func (d *demo) onTheWire(ctx context.Context) error {
	d.tell.say("A capture on %s has been running since before the agents started.", d.ends[0].Interface)
	a, z := d.securedEndpoints()
	for _, way := range [][2]lab.Endpoint{{a, z}, {z, a}} {
		answered, err := lab.Ping(ctx, way[0].Space, way[0].Addr, way[1].Addr, pings, pingPatience)
		if err != nil {
			return err
		}
		d.tell.claim(answered == pings, "ping, secured", "%d of %d answered, %s to %s", answered, pings, way[0].Name, way[1].Name)
	}
	answered, err := d.plainPing(ctx)
	if err != nil {
		return err
	}
	d.tell.claim(answered == 0 && d.bareAnswers == pings, "ping, plain", "%d of %d answered on %s; before the agents started, %d of %[2]d",
		answered, pings, d.ends[0].Interface, d.bareAnswers)
	left := d.left.Ends[0]
	if answered, err = lab.Ping(ctx, d.spaceOf(left.Node), leftAddrs[0], leftAddrs[1], pings, pingPatience); err != nil {
		return err
	}
	d.tell.claim(answered == pings, "ping, inside link", "%d of %d answered on %s, which is left alone", answered, pings, left.Interface)
	return d.tellWire(ctx)
}

// tellWire says what the capture has seen so far.
func (d *demo) tellWire(ctx context.Context) error {
	dropped := 0
	err := lab.Await(ctx, 5*time.Second, "the capture to read all that it has been given", func() (bool, string) {
		all, lost, err := d.wire.Drained()
		dropped = lost
		if err != nil {
			return false, err.Error()
		}
		return all, "frames wait in its socket"
	})
	if err != nil {
		return err
	}
	d.wire.Look(func(c *lab.WireCount) {
		d.tell.claim(c.MACsec() > 0, "88E5  MACsec", "%s", count(c.MACsec(), "frame"))
		d.tell.claim(c.EAPOL() > 0, "888E  EAPOL-MKA", "%s", count(c.EAPOL(), "frame"))
		if plain := c.Plain(); plain > 0 {
			d.tell.claim(false, "plain", "%s: %s", count(plain, "frame"), c.PlainKinds())
		} else {
			d.tell.claim(true, "plain", "%s", count(0, "frame"))
		}
		d.tell.claim(c.Readable == 0, "readable payload", "%s; the capture missed %d", count(c.Readable, "frame"), dropped)
	})
	if dropped > 0 {
		d.tell.claim(false, "capture", "%s dropped for want of room: the counts above are not complete", count(dropped, "frame"))
	}
	return nil
}
