package agent

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

const (
	// judgeEvery bounds how long verdicts are not looked at: the wall clock may be
	// set, and a timer knows nothing of it.
	judgeEvery = time.Minute
	// expiresWithin is how long before its end evidence is a fault: time to renew it.
	expiresWithin = 30 * 24 * time.Hour
	// graveSettles is how long an inventory that interrupts links must stay as it is
	// before it is believed.
	graveSettles = 5 * time.Second
	// clearEvery is how often what is left of links is looked at.
	clearEvery = 2 * time.Second
)

// begin takes up the links of an inventory that was read just now.
func (s *server) begin(inv *inventory.Inventory, links []inventory.NodeLink) {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	now := s.date()
	s.inv = inv
	s.inForce.Store(inv)
	s.list(links)
	s.inherit(now)
	for _, l := range links {
		s.take(l)
	}
}

// list sets which links the status shows, and in which order. What is left of
// others comes last. s.reconf is held.
func (s *server) list(links []inventory.NodeLink) {
	s.at, s.named = map[string]*inventory.NodeLink{}, map[string]*inventory.NodeLink{}
	for i := range links {
		s.at[links[i].Local.Interface], s.named[links[i].ID] = &links[i], &links[i]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.order
	s.order, s.listed = nil, map[string]bool{}
	for _, l := range links {
		s.order = append(s.order, l.ID)
		s.listed[l.ID] = true
	}
	for _, id := range old {
		if !s.listed[id] {
			s.order = append(s.order, id)
		}
	}
}

// take gives a link of the inventory its task, or says why it is left alone.
func (s *server) take(l inventory.NodeLink) {
	if l.Verdict.Kind != inventory.Encrypt {
		s.setStatus(leftAlone(l, s.inv.Policy, s.started, s.date()))
		return
	}
	delete(s.left, l.ID)
	s.mu.Lock()
	delete(s.supervised, l.ID)
	s.mu.Unlock()
	s.keep(spec{link: l, policy: s.inv.Policy, channels: s.channels, fenced: s.unfenced.add()})
}

// follow keeps up with the inventory until ctx ends: with its files, with SIGHUP,
// and with the dates in it.
func (s *server) follow(ctx context.Context, changed <-chan struct{}) error {
	events := s.links.subscribe()
	defer events.end()
	clearing := time.NewTicker(clearEvery)
	defer clearing.Stop()
	judge := time.NewTimer(s.untilJudged())
	defer judge.Stop()
	again := time.NewTimer(graveSettles) // for a change that interrupts links
	defer again.Stop()
	if !s.waits() {
		again.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			again.Stop()
			if !s.reload("its files changed", false) {
				again.Reset(graveSettles)
			}
		case <-again.C:
			if !s.reload("its files changed and have stayed so", false) {
				again.Reset(graveSettles)
			}
		case <-s.opts.Reload:
			again.Stop()
			s.reload("SIGHUP", true)
		case <-judge.C:
			s.judge()
		case <-events.c:
			s.catchUp()
			continue
		case <-events.fence:
			s.checkLeftFences()
			continue
		case <-clearing.C:
			s.catchUp()
			continue
		}
		judge.Reset(s.untilJudged())
	}
}

// date is the time by which verdicts are judged: the wall clock's, which may be
// set forward, but never back, nor by a restart: a machine may start without the time.
// A clock that is wrong for a while must not turn a verdict of encrypt into another one.
func (s *server) date() time.Time {
	if now := s.wall(); now.After(s.judged) {
		s.judged = now
	}
	return s.judged
}

func (s *server) untilJudged() time.Duration {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	now := s.date()
	if next, ok := s.inv.NextChange(now); ok {
		return min(max(next.Sub(now), time.Millisecond), judgeEvery)
	}
	return judgeEvery
}

// reload reads the inventory again and does what that changes. One with mistakes
// changes nothing.
//
// One that interrupts links is not certain to be whole: a file that is cut off
// between two links is as good as one without the others, and whoever writes in
// place has it like that for a moment, or for good where the disk is full. So it
// must stay as it is for a while, unless somebody has asked for it, and end where
// its author ended it. Reload reports whether it is done with it.
func (s *server) reload(why string, sure bool) (done bool) {
	defer s.reloading()()
	s.reconf.Lock()
	defer s.reconf.Unlock()
	defer func() {
		if done && s.begun != nil {
			s.begun()
		}
	}()
	r, err := readInventory(s.opts.Inventory, s.opts.Node, s.date())
	var paths []string
	if err == nil {
		paths, err = Paths(r.inv, s.opts.Node)
	}
	if err == nil && s.opts.Admit != nil {
		err = s.opts.Admit(paths...)
	}
	if err != nil {
		s.refuse(err, why)
		return true
	}
	if links := slices.Concat(interrupted(s.inv, r.inv, s.opts.Node), uncovered(r.inv, s.opts.Node, s.barred())); len(links) > 0 {
		if err := notWhole(s.inv, r, links); err != nil {
			s.refuse(err, why)
			return true
		}
		if !sure && !s.settled(r) {
			s.log.Info("the inventory interrupts links: it must stay as it is for a while", "links", links, "for", graveSettles.String())
			return false
		}
	}
	s.grave = nil
	s.nodeFault(func(f *health.Set) bool { return f.Clear(health.InventoryInvalid) })
	s.log.Info("inventory read again", "reason", why, "links_changed", s.adopt(r.inv))
	s.files = r.files
	s.keepLastGood(r)
	return true
}

// waits says whether there is an inventory that must stay as it is for a while.
func (s *server) waits() bool {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	return s.grave != nil
}

// settled says whether an inventory has been as it is for long enough.
func (s *server) settled(r *read) bool {
	if s.grave != nil && reflect.DeepEqual(s.grave.files, r.files) {
		return time.Since(s.graveSince) >= graveSettles
	}
	s.grave, s.graveSince = r, time.Now()
	return false
}

// interrupted are the links of a node whose traffic an inventory interrupts or
// uncovers.
func interrupted(last, next *inventory.Inventory, node string) (links []string) {
	for _, c := range changesAt(node, last, next) {
		switch c.end.Session {
		case inventory.Untouched, inventory.Resumed, inventory.Started:
			if c.end.Fence != inventory.FenceOpened {
				continue
			}
		case inventory.Remade, inventory.TakenDown, inventory.Dropped, inventory.Moved:
		}
		links = append(links, c.Link)
	}
	return links
}

// uncovered are the links of an inventory that plain frames may pass on, and at whose
// interfaces the fences of others are left over, at: they would be opened.
func uncovered(next *inventory.Inventory, node string, at map[string]bool) (links []string) {
	here, _ := next.ForNode(node) // one that has lost this node was refused
	for _, l := range here {
		if at[l.Local.Interface] && l.Verdict.Kind != inventory.Encrypt {
			links = append(links, l.ID)
		}
	}
	return links
}

// notWhole is what is wrong with an inventory that interrupts links, and of which a file
// does not end as text files do, or that has lost its policy: the defaults trust more
// than many a policy does, and a file that is missing says nothing about custody.
func notWhole(last *inventory.Inventory, r *read, links []string) error {
	if none := (inventory.Position{}); last.PolicyAt != none && r.inv.PolicyAt == none {
		return fmt.Errorf("it would interrupt %s and has no policy any more, which was at %s: write policy: {} if the defaults are meant", strings.Join(links, ", "), last.PolicyAt)
	}
	for _, f := range r.files {
		if !bytes.HasSuffix(f.Data, []byte("\n")) {
			return fmt.Errorf("%s: it would interrupt %s and does not end with a newline: it may be cut off; write it anew, complete, and rename it into place", f.Name, strings.Join(links, ", "))
		}
	}
	return nil
}

// refuse says what is wrong with an inventory that was not accepted.
func (s *server) refuse(err error, why string) {
	s.log.Error("the inventory was not accepted: the last good one stays in force", "reason", why, "error", oneLine(err))
	s.nodeFault(func(f *health.Set) bool {
		return f.Raise(health.Raise(health.InventoryInvalid, time.Now(), "detail", oneLine(err)))
	})
}

// judge lets time pass in the inventory.
func (s *server) judge() {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	if s.adopt(s.inv.At(s.date())) > 0 { // which no restart takes back, whatever its clock says
		s.keepLastGood(&read{inv: s.inv, files: s.files})
	}
	// What is about to expire is said of links that stay as they are.
	links, err := s.inv.ForNode(s.opts.Node)
	if err != nil {
		return
	}
	for _, l := range links {
		if s.kept[l.ID] == nil {
			s.setStatusIfNew(leftAlone(l, s.inv.Policy, s.started, s.date()))
		}
	}
}

// nodeFault changes the faults of the node as a whole.
func (s *server) nodeFault(change func(*health.Set) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if change(&s.nodeFaults) {
		s.wakeWatchers()
	}
}

// adopt makes next the inventory in force, and returns how many links of this node
// that changes. What it does at each is what inventory.Diff says, no more: links
// that are not in it are not touched. s.reconf is held.
func (s *server) adopt(next *inventory.Inventory) (changed int) {
	last := s.inv
	links, err := next.ForNode(s.opts.Node)
	if err != nil {
		s.log.Error("the inventory has lost this node", "error", err) // not from reload
		return 0
	}
	changes := changesAt(s.opts.Node, last, next)
	s.inv = next
	s.inForce.Store(next)
	asked := next.Channels.A.KeyService() || next.Channels.B.KeyService()
	if !last.Channels.Equal(next.Channels) || asked && last.Policy.CAKEpoch != next.Policy.CAKEpoch {
		s.channels = s.open(next, s.log)
	}
	s.list(links)
	// What ends comes first: another link may want its interface or its name.
	var begin []*inventory.EndChange
	for i := range changes {
		e := &changes[i].end
		s.log.Info("the inventory changes a link", "link", changes[i].Link, "fields", fmt.Sprint(changes[i].Fields),
			"session", e.Session.String(), "fence", e.Fence.String(), "does", e.Words())
		if s.endOf(e) {
			begin = append(begin, e)
		}
	}
	s.placeAll()
	for _, e := range begin {
		s.take(*e.After)
	}
	return len(changes)
}

// hereChange is a change as it is at one node.
type hereChange struct {
	inventory.Change
	end inventory.EndChange
}

func changesAt(node string, last, next *inventory.Inventory) (out []hereChange) {
	for _, c := range inventory.Diff(last, next) {
		for _, e := range c.Ends {
			if e.Node == node {
				out = append(out, hereChange{c, e})
			}
		}
	}
	return out
}

// linkOf is the link that changes.
func linkOf(e *inventory.EndChange) string {
	if e.Before == nil {
		return e.After.ID
	}
	return e.Before.ID
}

// endOf does what a change ends, and says whether e.After is to be taken up. What
// becomes of a link whose task is stuck waits until that is over.
func (s *server) endOf(e *inventory.EndChange) (begin bool) {
	id := linkOf(e)
	if first := s.behind[id]; first != nil {
		s.behind[id] = whileStuck(first, e)
		return false
	}
	if e.Before == nil {
		return true
	}
	k, down := s.kept[id], s.isDown(id)
	if e.After != nil && k != nil && e.After.Verdict.Kind == inventory.Encrypt &&
		(e.Session == inventory.Untouched || down && e.Session != inventory.Moved) {
		// A link that an operator has taken down stays so until the agent starts anew.
		k.change(spec{link: *e.After, policy: s.inv.Policy, channels: s.channels})
		return false
	}
	if k != nil {
		if err := k.end(); err != nil {
			s.log.Error("the link cannot follow the inventory yet", "link", id, "error", err)
			s.behind[id] = e
			return false
		}
		k.spec.fenced() // nobody closes it any more
		delete(s.kept, id)
		s.mu.Lock()
		delete(s.tasks, id)
		delete(s.supervised, id)
		s.mu.Unlock()
	}
	f := linkFile{Link: id, Interface: e.Before.Local.Interface, Secure: e.Before.Local.Secure}
	if old, err := readLinkFile(s.opts.RunDir, id); err == nil && old != nil {
		f = *old
		if e.Session == inventory.Remade {
			s.disown(f)
		}
	}
	lo := &leftover{file: f, since: time.Now(), reason: removedReason, shut: f.shut()}
	switch e.Session {
	case inventory.Untouched, inventory.Started:
		if e.After == nil && s.left[id] == nil {
			s.forget(id)
		}
		return e.After != nil
	case inventory.Resumed:
		s.widen(e)
		return e.After != nil
	case inventory.Remade:
		s.dropDevice(&f)
		return true
	case inventory.TakenDown:
		lo.fate, lo.reason = opened, e.After.Verdict.Reason
	case inventory.Dropped:
		lo.fate = s.fateOf(e)
	case inventory.Moved:
		lo.fate = s.fateOf(e)
	}
	if down { // there is nothing left, and the fence was opened by an operator
		if lo.fate == barred || lo.fate == ignored {
			s.forget(id)
			return e.After != nil
		}
	}
	s.leave(lo)
	return e.After != nil
}

// fateOf is what a change says of the fence of a link that is dropped or moved.
func (s *server) fateOf(e *inventory.EndChange) fate {
	switch e.Fence {
	case inventory.FenceStays:
		return barred
	case inventory.FenceReplaced, inventory.FenceOpened:
		for _, l := range s.inv.Links {
			if l.ID == e.Heir && l.Verdict.Kind != inventory.Encrypt {
				return opened
			}
		}
		return handed
	case inventory.FenceSame, inventory.FenceClosed, inventory.FenceRedone:
	}
	return ignored
}

// catchUp does again what could not be done: what is left of links, and links that
// could not follow the inventory because their task was stuck.
func (s *server) catchUp() {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	for id, e := range s.behind {
		if k := s.kept[id]; k != nil {
			select {
			case <-k.done:
			default:
				continue
			}
		}
		delete(s.behind, id)
		if s.endOf(e) {
			s.take(*e.After)
		}
	}
	for _, lo := range s.left {
		s.clearUp(lo)
	}
}

// widen gives a device that stays the replay window that its link has now, for the
// next session must not take it for something that somebody else has changed.
func (s *server) widen(e *inventory.EndChange) {
	was, is := e.Before.MKA.ReplayWindow, e.After.MKA.ReplayWindow
	dev, err := s.kernel.Device(e.After.Local.Secure)
	if was == is || err != nil || dev.ReplayWindow != was {
		return
	}
	if err := s.kernel.UpdateDevice(dev.Index, macsec.DeviceUpdate{ReplayProtect: new(true), ReplayWindow: new(is)}); err != nil {
		s.log.Warn("the replay window could not be changed yet", "link", e.After.ID, "device", dev.Name, "error", err)
	}
}

// whileStuck is two changes of a link in one, of which the first could not be
// carried out yet.
func whileStuck(first, second *inventory.EndChange) *inventory.EndChange {
	both := &inventory.EndChange{Node: second.Node, Before: first.Before, After: second.After, Fence: second.Fence, Heir: second.Heir}
	switch {
	case both.After == nil:
		both.Session, both.Fence = inventory.Dropped, inventory.FenceStays
	case both.After.Local.Interface != both.Before.Local.Interface:
		both.Session, both.Fence = inventory.Moved, inventory.FenceStays
	case both.After.Verdict.Kind != inventory.Encrypt:
		both.Session = inventory.TakenDown
	default:
		both.Session = inventory.Remade
	}
	return both
}

// isDown reports whether a link was taken down by an operator.
func (s *server) isDown(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status[id].State == StateDown
}

// update gives the task what has changed in its link without ending the session.
func (t *task) update(sp spec) error {
	t.link, t.policy, t.channels = sp.link, sp.policy, sp.channels
	if t.port == nil {
		return nil
	}
	if err := t.ensureFence(); err != nil {
		return err
	}
	t.file.Fence, t.file.Edition = fenceStatus(t.fenceOptions()), t.fenceOptions().Edition()
	t.persist(t.file.MKA)
	if t.ring != nil {
		t.rollOver() // with other limits of age, perhaps
	}
	if t.everUp {
		t.ensureAddresses()
	}
	return nil
}

// oneLine is a list of mistakes in one line.
func oneLine(err error) string {
	const most = 8
	lines := strings.Split(err.Error(), "\n")
	if more := len(lines) - most; more > 0 {
		lines = append(lines[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}
