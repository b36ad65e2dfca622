package demo

import (
	"context"
	"github.com/lever-link/lever/internal/lab"
	"time"
)

const resumeWithin = 20 * time.Second

// agentKilled is act 5: an agent is killed and started again while packets
// flow.
func (d *demo) agentKilled(ctx context.Context) error {
	both, err := d.bothStatus(ctx, rekeyWithin, "both agents to say secured", func(l lab.LinkStatus) bool { return l.State == lab.StateSecured })
	if err != nil {
		return err
	}
	// The key server is the harder one to lose.
	victim := d.routers[max(0, d.keyServer(both))]
	d.tell.say("The same stream, while %s's agent, the key server's, gets a SIGKILL.", victim.Name)
	a, z := d.securedEndpoints()
	s, err := lab.StartStream(ctx, a, z, lab.StreamRate)
	if err != nil {
		return err
	}
	playErr := s.Flowing(ctx)
	if playErr == nil {
		playErr = d.killAndRestart(ctx, victim)
	}
	if err := d.tellStream(ctx, s); err != nil {
		return err
	}
	if playErr != nil {
		return playErr
	}
	d.tell.say("And the wire, over the whole run:")
	return d.tellWire(ctx)
}

func (d *demo) killAndRestart(ctx context.Context, victim *lab.Router) error {
	before, err := d.awaitKey(ctx, rekeyWithin, "both kernels to use one key", [16]byte{})
	if err != nil {
		return err
	}
	if err := victim.Kill(); err != nil {
		return err
	}
	died := time.Now()
	answered, err := d.plainPing(ctx)
	if err != nil {
		return err
	}
	d.tell.claim(answered == 0, "while it is dead", "plain ping on %s: %d of %d answered", d.ends[0].Interface, answered, pings)

	started := time.Now()
	if err := victim.Start(); err != nil {
		return err
	}
	both, err := d.bothStatus(ctx, resumeWithin, "both agents to say secured again", func(l lab.LinkStatus) bool { return l.State == lab.StateSecured })
	if err != nil {
		return err
	}
	// When the new agent says since when, that is nearer than when we heard it.
	again := time.Now()
	for i, r := range d.routers {
		if since := both[i].SecuredSince; r == victim && since.After(started) {
			again = since
		}
	}
	d.tell.claim(true, "secured again", "%d ms after the restart, as its status says; dead for %d ms",
		again.Sub(started).Milliseconds(), started.Sub(died).Milliseconds())
	now, err := d.awaitKey(ctx, rekeyWithin, "both kernels to use one key", [16]byte{})
	if err != nil {
		return err
	}
	if now.ID == before.ID {
		d.tell.fact("SAK", "%s: the same as before, resumed", now)
	} else {
		d.tell.fact("SAK", "%s → %s: negotiated afresh", before, now)
	}
	after, err := d.rekey(ctx, now, "a SAK rekey after the restart")
	if err != nil {
		return err
	}
	d.tell.claim(after.ID != now.ID, "a SAK rekey", "%s → %s", now, after)
	return nil
}
