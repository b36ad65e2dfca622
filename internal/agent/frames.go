package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/mka"
)

// publishEvery is how soon the status shows what frames changed quietly, such
// as a counter or a fault's age; a change of state shows at once.
const publishEvery = 500 * time.Millisecond

// batchFrames is how many frames are read at once: few enough that whatever
// else the task has to do waits for no more than some tens of microseconds.
const batchFrames = 64

// pace is how often a lane is read: once in a while, and as many times more at
// once as were saved up. No link that works comes near it.
type pace struct {
	every time.Duration
	burst int
}

// paces keep a flood from waking the agent up for each frame: what comes in
// meanwhile waits in the socket, for no longer than a frame is often under way.
// Frames under CKNs that this link does not have are worth a diagnosis and no
// more, so there it is a frame that counts.
var paces = [pae.Lanes]pace{
	pae.Peers:     {10 * time.Millisecond, 32},
	pae.Known:     {10 * time.Millisecond, 32},
	pae.Strangers: {50 * time.Millisecond, 16},
}

// cost is how many times of a pace a batch was.
func cost(l pae.Lane, b *pae.Batch) int {
	switch {
	case l == pae.Strangers:
		return b.Len()
	case b.Full():
		return 0 // there is more
	}
	return 1
}

// arrival is a batch on its way from a lane's reader to the task, and where it
// goes when it is read: nothing is allocated, and what the task does not keep
// up with is left in the socket, for the kernel to drop.
type arrival struct {
	frames *pae.Batch
	back   chan<- *pae.Batch
}

// listen reads all lanes of conn. All readers send into one channel, which lets
// them in in turn: a lane that is flooded delays a batch of another by one of
// its own.
func (t *task) listen(ctx context.Context, conn mkaConn, arrivals chan<- arrival, broken chan<- error) {
	name := t.link.Local.Interface
	for l := range pae.Lane(pae.Lanes) {
		go func() {
			err := t.guard(func() error { return readLane(ctx, l, conn, arrivals) })
			if err == nil {
				return
			}
			select {
			case broken <- fmt.Errorf("receive MKPDUs on %s: %w", name, err):
			default:
			}
		}()
	}
}

// readLane returns nil when ctx ends.
func readLane(ctx context.Context, l pae.Lane, conn mkaConn, arrivals chan<- arrival) error {
	room := batchFrames
	if l == pae.Strangers {
		room = 1
	}
	// One is read by the task while the other is filled.
	back := make(chan *pae.Batch, 2)
	back <- pae.NewBatch(room)
	back <- pae.NewBatch(room)
	p := paces[l]
	var due time.Time // when what was read so far would be done with at this pace
	for {
		var b *pae.Batch
		select {
		case b = <-back:
		case <-ctx.Done():
			return nil
		}
		err := conn.ReadFrames(l, b)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, pae.ErrDown) {
			return err
		}
		n := cost(l, b) // before the task has it
		// After ErrDown the next read waits until it is up again, or gone.
		select {
		case arrivals <- arrival{b, back}:
		case <-ctx.Done():
			return nil
		}
		now := time.Now()
		if earliest := now.Add(-time.Duration(p.burst) * p.every); due.Before(earliest) {
			due = earliest
		}
		due = due.Add(time.Duration(n) * p.every)
		if wait := due.Sub(now); wait > 0 && !sleep(ctx, wait) {
			return nil
		}
	}
}

// sleep says whether it was left in peace.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// receive gives MKPDUs to the Port and says whether the status can wait: a
// flood must not cost more than its decoding. No deadline waits for the end of
// a batch, since the Port does in each Step what is due by then.
func (t *task) receive(a arrival) (quiet bool) {
	t.arrived = time.Now() // for all: where there is no vDSO, to look is a call
	for i := range a.frames.Len() {
		t.step(mka.Event{Kind: mka.EventFrame, Frame: a.frames.Frame(i)})
	}
	quiet = !t.news && t.arrived.Sub(t.published) < publishEvery
	t.arrived = time.Time{}
	a.back <- a.frames
	return quiet
}

// refocus tells the sockets which CKNs and peers there are by now. A peer of
// before a restart is known by the address in its SCI, which is that of its port as
// a rule (IEEE 802.1AE 9.9), until it is heard.
func (t *task) refocus() {
	var f pae.Focus
	for _, pa := range t.port.Status().Participants {
		f.CKNs = append(f.CKNs, string(pa.CKN))
		for i := range pa.Peers {
			address := [6]byte(pa.Peers[i].Address)
			if address == ([6]byte{}) {
				address = [6]byte(pa.Peers[i].SCI[:6])
			}
			if pa.Peers[i].Live && !slices.Contains(f.Peers, address) {
				f.Peers = append(f.Peers, address)
			}
		}
	}
	// After a refusal the lanes are sorted by some of both.
	if f.Equal(t.focused) && t.refocusAt.IsZero() || time.Now().Before(t.refocusAt) {
		return
	}
	if err := t.conn.Focus(f); err != nil {
		if t.refocusAt.IsZero() {
			t.log.Warn("MKPDUs are sorted as before, until it is tried again: a flood may disturb the link", "interface", t.parent.name, "error", err)
		}
		t.refocusAt = time.Now().Add(refocusEvery)
		return
	}
	t.focused, t.refocusAt = f, time.Time{}
}

// refocusEvery is how often at most it is tried again to set the filters.
const refocusEvery = time.Second
