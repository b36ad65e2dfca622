package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/pae"
	"github.com/lever-link/lever/internal/secy"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/mka"
)

// retryDelay is the pause before a link that could not be set up is tried
// again. An event of its own interface ends it at once, and any other one, for it may
// be about what the link lacks, when the last attempt was eventDelay ago.
const (
	retryDelay = time.Second
	eventDelay = 100 * time.Millisecond
)

// task keeps one link encrypted. Everything but its channels belongs to the
// goroutine that runs it.
type task struct {
	server   *leased
	lease    *lease
	log      *slog.Logger
	link     inventory.NodeLink
	policy   inventory.Policy
	channels [2]keys.Channel
	store    keys.States
	events   *subscription
	requests chan request
	changes  chan spec // what the inventory has changed
	fenced   func()    // tells that the fence was closed, or could not be
	pulse    pulse     // beaten each time round, at least every two seconds

	// The state of the current session; zero between sessions.
	parent parent
	// seen is the fence that was last seen closed, at seenAt; zero when the kernel has told
	// of a change since.
	seen      shut
	seenAt    time.Time
	device    *macsec.Device
	secy      secy.SecY
	conn      mkaConn
	focused   pae.Focus // what conn was told
	refocusAt time.Time // not before then; zero unless it would not take it
	arrived   time.Time // when the batch of frames that is being read came; else zero
	port      *mka.Port
	file      linkFile
	ring      *keys.Ring
	chain     *chain    // instead of ring, with an external end
	rollAt    time.Time // when to look at chain or ring again
	refused   string    // what was wrong with the override last
	epochs    map[mka.CKN]keys.Epoch
	inUse     []keys.Epoch // by both ends, which the ring is not told yet
	applying  bool         // a Change of the ring is being carried out
	deadline  time.Time
	began     time.Time
	queue     []mka.Event
	ops       []mka.Op

	faults    health.Set
	shut      shut   // what this task has closed
	found     parent // by the last attempt to set the link up; zero: there was none
	held      bool   // the agent has set its interface down
	staysDown bool   // somebody else has, which is an order
	failed    bool   // the last session could not be set up
	takenDown bool
	// untakenSince is since when a live peer has not had the SAK that this end
	// distributes as key server.
	untakenSince time.Time
	drifts       driftSet
	repairs      map[string]uint64 // by kind
	pns          secy.PNs
	arrivals     map[mka.SCI]secy.Arrivals
	made         bool  // the device was, for this session
	everSet      bool  // the session was set up
	everUp       bool  // the device was set up: it has carried, or carries, traffic
	unmended     error // why the device is not configured as it must be
	uncarried    error // and why it is not up
	heardFrom    map[mka.SCI]time.Time
	lost         map[mka.SCI]time.Time // peers that fell silent, and when they were heard last
	ki           mka.KI                // secured with
	securedAt    time.Time
	lastRekey    time.Time
	rekeys       uint64
	waiting      []chan error // callers of rekey, until a new SAK is in use
	leaving      []chan error // callers of suspend, until every peer has heard of it
	traffic      trafficWatch
	meter        meter
	served       []chan error // callers to answer once the status shows what came of it
	news         bool         // something happened that the status must show at once
	published    time.Time
	lastStatus   string
}

// shut is a fence that was closed: on which interface, and how.
type shut struct {
	index int
	opts  fence.Options
}

func newTask(s *server, sp spec) *task {
	l := &lease{}
	if sp.fenced == nil {
		sp.fenced = func() {}
	}
	t := &task{
		server: newLeased(s, l), lease: l, log: s.log.With("link", sp.link.ID), link: sp.link, policy: sp.policy,
		channels: sp.channels, store: &leasedStates{s.store, l},
		fenced: sp.fenced,
		events: s.links.subscribe(), requests: make(chan request), changes: make(chan spec, 1), heardFrom: map[mka.SCI]time.Time{},
	}
	setUp := t.server.platform.setUp
	t.server.platform.setUp = func(index int, up bool) error {
		if !up {
			t.hold(index)
		}
		return setUp(index, up)
	}
	return t
}

// run keeps the link up until ctx ends: a session that cannot start or that
// loses its interface is followed by another.
func (t *task) run(ctx context.Context) error {
	defer t.events.end()
	said := ""
	for {
		err := t.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errAnew) {
			t.log.Warn("link is set up anew")
			continue
		}
		t.settleDrift(time.Now())
		t.failed = !t.takenDown
		t.explain(err)
		t.publish()
		if err == nil || t.everSet {
			said = ""
		}
		if err != nil && err.Error() != said { // it is tried each second
			said = err.Error()
			t.log.Warn("link is not set up", "error", err)
		}
		if !t.pause(ctx) {
			return nil
		}
	}
}

// fenceAmiss says whether the fence of a link that is not set up may be open: the
// kernel has told of some filter.
func (t *task) fenceAmiss() bool {
	if t.shut.index == 0 {
		return false // it was not closed, and is tried again anyway
	}
	state, err := t.server.platform.inspectFence(t.shut.index, t.fenceOptions())
	return err != nil || !state.InPlace
}

// groundMoved says whether the link's interface is not what the last attempt found: on
// one that has come back each moment without a fence counts.
func (t *task) groundMoved() bool {
	p, _ := t.server.platform.findParent(t.link.Local.Interface)
	return p != t.found
}

// pause waits until another session may help, and answers requests meanwhile.
func (t *task) pause(ctx context.Context) bool {
	began := time.Now()
	retry := time.NewTimer(retryDelay)
	defer retry.Stop()
	for {
		t.pulse.beat()
		select {
		case <-ctx.Done():
			return false
		case r := <-t.requests:
			t.refuse(r)
		case sp := <-t.changes:
			_ = t.update(sp)
			t.publish()
			if !t.takenDown {
				return true
			}
		case <-t.events.fence:
			t.seen = shut{}
			if !t.takenDown && t.fenceAmiss() {
				return true
			}
		case <-t.events.c:
			if t.takenDown {
				continue
			}
			ago := time.Since(began)
			if ago >= eventDelay || t.groundMoved() {
				return true
			}
			retry.Reset(eventDelay - ago)
		case <-retry.C:
			if !t.takenDown {
				return true
			}
			retry.Reset(retryDelay)
		}
	}
}

// session sets the link up and drives it until ctx ends or something under it
// is gone. The order is what keeps it from leaking: fence, device, keys,
// traffic.
func (t *task) session(ctx context.Context) error {
	t.everSet = false
	if err := t.setUpLink(); err != nil {
		t.tearSession()
		return err
	}
	t.everSet = true
	defer t.tearSession()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	frames := make(chan arrival)
	broken := make(chan error, 1)
	t.listen(ctx, t.conn, frames, broken)
	defer func() { _ = t.conn.Close() }() // ends it
	defer t.carryMessages(ctx)()

	deliveries := make(chan keys.Delivery) // what would wait in it at the end nobody would erase
	if t.link.External {
		t.chain = newChain(t.link.Link, t.file.MKA)
		t.rollOver()
		t.closeRevoked()
	} else {
		ring, err := keys.OpenRing(t.identity(), t.store)
		if err != nil {
			return err
		}
		t.ring = ring
		defer ring.Close()
		ring.Wall(t.server.wall)
		t.rollOver()
		id, channels := t.link.ID, t.channels
		go func() {
			err := t.guard(func() error { return keys.Watch(ctx, id, channels[keys.A], channels[keys.B], deliveries) })
			if err != nil {
				select {
				case broken <- err:
				default:
				}
			}
		}()
	}
	t.failed = false
	if t.parent.up || t.staysDown { // else it was set up just now, and an event follows
		if err := t.look(); err != nil {
			return err
		}
	}
	t.events.only(t.parent.index, t.device.Index)
	defer t.events.only()
	t.refocus()
	t.publish()

	timer, roll := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer timer.Stop()
	defer roll.Stop()
	sampling := t.sampleInterval()
	sample := time.NewTicker(sampling)
	defer sample.Stop()
	for {
		wait := time.Hour
		if !t.deadline.IsZero() {
			wait = time.Until(t.deadline)
		}
		if wait <= 0 { // what is due comes before what else there is
			t.step(mka.Event{Kind: mka.EventTick})
			t.refocus()
			t.publish()
			continue
		}
		timer.Reset(wait)
		// Never at once: a timer that is due before select looks at it crashes
		// runtime.maybeRunChan under synctest and the race detector (Go 1.26.8).
		roll.Reset(max(time.Until(t.rollAt), time.Nanosecond))
		if now := t.sampleInterval(); now != sampling {
			sampling = now
			sample.Reset(sampling)
		}
		t.pulse.beat()
		select {
		case <-ctx.Done():
			t.step(mka.Event{Kind: mka.EventLeave})
			return ctx.Err()
		case a := <-frames:
			if t.receive(a) {
				continue
			}
		case <-timer.C:
			t.step(mka.Event{Kind: mka.EventTick})
		case <-roll.C:
			t.rollOver()
		case d := <-deliveries:
			t.apply(t.ring.Update(d.Side, d.Snapshot, time.Now()))
		case r := <-t.requests:
			if done, err := t.handle(r); done {
				return err
			}
		case <-t.events.fence:
			t.seen = shut{}
			if err := t.checkFence(); err != nil {
				return cmp.Or(t.look(), err) // unless the interface itself is gone
			}
		case sp := <-t.changes:
			if err := t.update(sp); err != nil {
				return err
			}
		case <-t.events.c:
			if err := t.look(); err != nil {
				return err
			}
		case <-sample.C:
			if err := t.sample(); err != nil {
				return err
			}
		case err := <-broken:
			return err
		}
		t.refocus()
		t.publish()
	}
}

// step gives the Port an event and does what it asks for, and what comes of
// that, until nothing is left to do. Called from within, it queues the event:
// an Output is valid until the next Step only.
func (t *task) step(ev mka.Event) {
	t.queue = append(t.queue, ev)
	if len(t.queue) > 1 || len(t.ops) > 0 {
		return // whoever is at work comes to it
	}
	for len(t.queue) > 0 || len(t.ops) > 0 {
		if len(t.ops) > 0 {
			op := t.ops[0]
			err := t.secy.Do(op)
			if err != nil {
				t.log.Warn("SecY operation failed", "operation", op.Kind.String(), "an", op.AN, "ki", op.KI.String(), "error", err)
			}
			t.obey(mka.Event{Kind: mka.EventOpDone, OpID: op.ID, Err: err})
			t.ops = t.ops[1:]
			continue
		}
		t.obey(t.queue[0])
		t.queue = t.queue[1:]
	}
	t.queue, t.ops = t.queue[:0], t.ops[:0]
	t.confirm()
}

// obey makes one Step and does of its Output all but the operations.
func (t *task) obey(ev mka.Event) {
	now := t.arrived
	if now.IsZero() {
		now = time.Now()
	}
	out := t.port.Step(now, ev)
	t.deadline = out.Deadline
	if out.Persist != nil {
		t.persist(out.Persist)
	}
	for _, f := range out.Frames {
		if err := t.conn.WriteFrame(f); err != nil && !errors.Is(err, pae.ErrDown) {
			t.log.Warn("MKPDU not sent", "interface", t.parent.name, "error", err)
		}
	}
	t.farewell()
	t.ops = append(t.ops, out.Ops...)
	for _, n := range out.Notices {
		t.notice(n)
		t.news = true
	}
}

// persist stores what a restart resumes from. If that fails the old record
// must go: its ceilings no longer hold.
func (t *task) persist(r *mka.Record) {
	t.file.MKA = r
	if err := t.keep(); err != nil {
		t.faults.Raise(health.Raise(health.RunDirUnwritable, time.Now(), "detail", err))
		if err := removeLinkFile(t.server.platform.files, t.server.opts.RunDir, t.link.ID); err != nil {
			t.log.Error("a stale record could not be removed", "error", err)
		}
		return
	}
	t.faults.Clear(health.RunDirUnwritable)
}

// notice acts on a change that the Port reports, and logs it.
func (t *task) notice(n mka.Notice) {
	attrs := []any{"epoch", t.epochName(n.CKN), "ckn", n.CKN.String()}
	if n.SCI != (mka.SCI{}) {
		attrs = append(attrs, "sci", n.SCI.String())
	}
	if n.KI != (mka.KI{}) {
		attrs = append(attrs, "ki", n.KI.String(), "an", n.AN)
	}
	t.log.Info(n.Kind.String(), attrs...)
	now := time.Now()
	switch n.Kind {
	case mka.NoticeSecured:
		if t.securedAt.IsZero() {
			t.securedAt = now
		}
		t.faults.Clear(health.PNsUsedUp)
		if n.KI != t.ki {
			if t.ki != (mka.KI{}) {
				t.rekeys++
				t.lastRekey = now
			}
			t.ki = n.KI
			t.wake()
		}
		t.carry()
	case mka.NoticeInUse:
		if e, ok := t.epochs[n.CKN]; ok && !e.IsZero() {
			t.inUse = append(t.inUse, e)
		}
		if t.chain != nil {
			t.rollAt = now // an expired key may go
		}
	case mka.NoticePeerLive:
		t.heardFrom[n.SCI] = now
		delete(t.lost, n.SCI)
	case mka.NoticePeerLost:
		t.lose(n.SCI, now)
	case mka.NoticeKeyServer, mka.NoticeSAK, mka.NoticeRetired, mka.NoticeClosed:
	}
}
