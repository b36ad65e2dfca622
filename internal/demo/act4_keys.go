package demo

import (
	"context"
	"fmt"
	"github.com/lever-link/lever/internal/lab"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
)

const (
	rekeyCount  = 3
	rekeyWithin = 15 * time.Second
	epochWithin = 20 * time.Second
)

// newKeys is act 4: new SAKs, then a new key epoch, while packets flow.
func (d *demo) newKeys(ctx context.Context) error {
	d.tell.say("%s packets a second each way, numbered, while the keys change.", grouped(lab.StreamRate))
	a, z := d.securedEndpoints()
	s, err := lab.StartStream(ctx, a, z, lab.StreamRate)
	if err != nil {
		return err
	}
	playErr := s.Flowing(ctx)
	if playErr == nil {
		playErr = d.rekeys(ctx)
	}
	if playErr == nil {
		playErr = d.newEpoch(ctx)
	}
	if err := d.tellStream(ctx, s); err != nil {
		return err
	}
	return playErr
}

// rekeys asks for new SAKs, one after the other.
func (d *demo) rekeys(ctx context.Context) error {
	both, err := d.bothStatus(ctx, rekeyWithin, "both agents to say secured", func(l lab.LinkStatus) bool { return l.State == lab.StateSecured })
	if err != nil {
		return err
	}
	key, err := d.awaitKey(ctx, rekeyWithin, "both kernels to use one key", [16]byte{})
	if err != nil {
		return err
	}
	story := []string{fmt.Sprintf("KN %d/AN %d", lab.KeyNumber(key.ID), key.AN)}
	for n := range rekeyCount {
		if key, err = d.rekey(ctx, key, fmt.Sprintf("SAK rekey %d of %d", n+1, rekeyCount)); err != nil {
			return err
		}
		story = append(story, fmt.Sprintf("%d/%d", lab.KeyNumber(key.ID), key.AN))
	}
	d.tell.claim(true, count(rekeyCount, "SAK rekey"), "%s, in both kernels", strings.Join(story, " → "))
	after, err := d.bothStatus(ctx, rekeyWithin, "both agents to say secured with the new SAK", func(l lab.LinkStatus) bool {
		return l.State == lab.StateSecured && l.KN == lab.KeyNumber(key.ID)
	})
	if err != nil {
		return err
	}
	d.tell.claim(after[0].CKN == both[0].CKN && after[1].CKN == both[1].CKN, "", "CKN %s as before", lab.Abbreviated(after[0].CKN))
	return nil
}

// rekey asks for a new SAK and waits until both kernels use it.
func (d *demo) rekey(ctx context.Context, old lab.KernelKey, what string) (lab.KernelKey, error) {
	if _, err := d.routers[0].Lever(ctx, "rekey", d.secured.ID); err != nil {
		return old, err
	}
	return d.awaitKey(ctx, rekeyWithin, what, old.ID)
}

// newEpoch delivers new key material, to one channel first.
func (d *demo) newEpoch(ctx context.Context) error {
	before, err := d.bothStatus(ctx, rekeyWithin, "both agents to say secured", func(l lab.LinkStatus) bool { return l.State == lab.StateSecured })
	if err != nil {
		return err
	}
	if err := d.issue(ctx, channels[0]); err != nil {
		return err
	}
	if err := d.deliver(channels[0]); err != nil {
		return err
	}
	late, err := d.bothStatus(ctx, epochWithin, "both agents to report the late channel", func(l lab.LinkStatus) bool {
		_, reported := l.Fault(string(health.ChannelLate))
		return reported
	})
	if err != nil {
		return err
	}
	unchanged := true
	for i := range late {
		unchanged = unchanged && late[i].CKN == before[i].CKN && late[i].State == lab.StateSecured
	}
	fault, _ := late[0].Fault(string(health.ChannelLate))
	d.tell.claim(unchanged, "epoch in channel a", "changes nothing: still CKN %s, secured", lab.Abbreviated(late[0].CKN))
	d.tell.fact("", "%s: %s", fault.Code, fault.Text)

	if err := d.issue(ctx, channels[1]); err != nil {
		return err
	}
	delivered := time.Now()
	if err := d.deliver(channels[1]); err != nil {
		return err
	}
	after, err := d.bothStatus(ctx, epochWithin, "both agents to be secured under the new epoch", func(l lab.LinkStatus) bool {
		_, reported := l.Fault(string(health.ChannelLate))
		return l.State == lab.StateSecured && l.CKN != before[0].CKN && !reported
	})
	if err != nil {
		return err
	}
	took := time.Since(delivered)
	key, err := d.awaitKey(ctx, rekeyWithin, "both kernels to use the new epoch's key", [16]byte{})
	if err != nil {
		return err
	}
	d.tell.claim(after[0].CKN == after[1].CKN && after[0].Epoch != before[0].Epoch, "and in channel b",
		"CKN %s → %s, epoch %s → %s, %s, seen %.1f s later", lab.Abbreviated(before[0].CKN), lab.Abbreviated(after[0].CKN),
		before[0].Epoch, after[0].Epoch, key, took.Seconds())
	d.tell.claim(after[0].KeyServer == before[0].KeyServer && after[1].KeyServer == before[1].KeyServer, "key server", "%s, as before", after[0].KeyServer)
	return nil
}

// tellStream ends a stream and says what became of every packet.
func (d *demo) tellStream(ctx context.Context, s *lab.Stream) error {
	reports, err := s.Stop(ctx)
	if err != nil {
		return err
	}
	for _, r := range reports {
		d.streamed += r.Sent
		d.tell.claim(r.Clean(), r.From+" → "+r.To, "%s", r)
	}
	rate := float64(reports[0].Sent+reports[1].Sent) / 2 / s.Ran.Seconds()
	d.tell.fact("", "in %.1f s, %.0f a second each way; the longest silence was %d ms", s.Ran.Seconds(), rate, max(reports[0].Longest, reports[1].Longest).Milliseconds())
	return nil
}
