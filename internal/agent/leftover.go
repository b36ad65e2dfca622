package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// leftover is what is in the kernel of a link that this agent no longer keeps
// there. Its keys and device go at once, for nobody watches over them any more.
// The fence goes only where somebody has said that plain frames may pass: the
// inventory, by another verdict, or an operator, by lever down. That a link is no
// longer listed says nothing about its custody.
type leftover struct {
	file   linkFile
	fate   fate
	reason string
	since  time.Time
	failed error // of the last attempt to put it right
	// shut is the interface whose fence is known to be closed; 0: none, and anyIndex
	// the one that there is when the agent starts.
	shut   int
	drifts driftSet
}

const anyIndex = -1

// fate is what becomes of the fence of a leftover.
type fate uint8

const (
	barred  fate = iota // it stays, until lever down
	opened              // it goes, with all that is known of the link
	handed              // it is another link's by now
	ignored             // it was not closed, and that is all that is known
)

// movedID is the name of what a link leaves at an interface from which it has
// moved. No link id has an @.
func movedID(link, iface string) string { return link + "@" + iface }

// leave puts on record what is left of a link, and clears it as far as it can be
// cleared now. The link's keeper has ended. s.reconf is held.
func (s *server) leave(lo *leftover) {
	s.place(lo)
	if lo.fate == barred {
		lo.file.Removed, lo.file.Index, lo.file.Up = true, 0, false
		lo.file.Edition = lo.fence().Edition() // as it is closed next
		if err := lo.file.write(s.platform.files, s.opts.RunDir); err != nil {
			s.log.Error("what is left of a link could not be recorded: lever down will not know of it after a restart", "link", lo.file.Link, "error", err)
		}
	}
	if id := lo.file.Link; lo.fate == barred && !s.listed[id] {
		s.mu.Lock()
		s.order = append(slices.DeleteFunc(s.order, func(o string) bool { return o == id }), id)
		s.mu.Unlock()
	}
	s.left[lo.file.Link] = lo
	s.clearUp(lo)
}

// place says what becomes of a leftover by the links that the inventory has now. Its
// interface may be another's, whose fence it is then, and its link may be elsewhere.
func (s *server) place(lo *leftover) {
	f := &lo.file
	l, there := s.named[f.Link], s.at[f.Interface]
	switch {
	case there != nil && there.Verdict.Kind == inventory.Encrypt:
		lo.fate = handed
	case there != nil:
		lo.fate, lo.reason = opened, there.Verdict.Reason
	}
	if l == nil || l == there {
		return
	}
	if l.Verdict.Kind == inventory.Encrypt { // it takes its record along
		if old, err := readLinkFile(s.opts.RunDir, f.Link); err == nil && old != nil {
			s.disown(*old)
		}
	} else if err := removeLinkFile(s.platform.files, s.opts.RunDir, f.Link); err != nil {
		s.log.Warn("the record of a link could not be removed", "link", f.Link, "error", err)
	}
	f.MKA, lo.reason = nil, "link "+l.ID+" has moved to "+l.Local.Interface
	f.Link = movedID(l.ID, f.Interface)
}

// placeAll has what is left of links follow an inventory that is new: it may have them
// again, or others in their place. s.reconf is held.
func (s *server) placeAll() {
	for id, lo := range maps.Clone(s.left) {
		l, there := s.named[id], s.at[lo.file.Interface]
		if l == nil && there == nil {
			continue
		}
		delete(s.left, id)
		if l != nil && l == there && l.Verdict.Kind == inventory.Encrypt { // it is back where it was
			if lo.file.Secure != l.Local.Secure {
				s.dropDevice(&lo.file)
			}
			continue
		}
		was := lo.fate
		s.leave(lo)
		if lo.fate != was || lo.file.Link != id {
			s.log.Info("the inventory changes what is left of a link", "link", id, "interface", lo.file.Interface, "fence", lo.fate.String())
		}
	}
}

// clearUp does what is to be done about a leftover, again until it is done: for a
// link that is barred as often as it is called, since an interface that was
// replaced comes without a fence.
func (s *server) clearUp(lo *leftover) {
	err := s.tryClear(lo)
	if err != nil && (lo.failed == nil || lo.failed.Error() != err.Error()) {
		s.log.Error("what is left of a link could not be put right", "link", lo.file.Link, "error", err)
	}
	lo.failed = err
	lo.drifts.settle(time.Now())
	id := lo.file.Link
	switch {
	case err == nil && lo.fate != barred:
		delete(s.left, id)
		s.supervise(id, func(f *health.Set) bool { return f.Clear(health.LinkFailed) })
		s.forget(id)
	case s.listed[id]: // under another verdict, which has its own status
		if err != nil {
			s.supervise(id, func(f *health.Set) bool {
				return f.Raise(health.Raise(health.LinkFailed, lo.since, "interface", lo.file.Interface, "detail", err))
			})
		}
	default:
		s.setStatusIfNew(lo.status())
	}
}

// checkLeftFences closes again what was closed, at once: the kernel has told that
// somebody changes filters. What fails is tried again later, for an attempt changes
// filters, too.
func (s *server) checkLeftFences() {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	for _, lo := range s.left {
		if lo.fate == barred && lo.failed == nil {
			s.clearUp(lo)
		}
	}
}

func (s *server) tryClear(lo *leftover) error {
	f := &lo.file
	p, err := s.platform.findParent(f.Interface)
	switch {
	case isA[*missingError](err) && lo.fate == barred:
		return nil // and when it comes back its fence is closed
	case isA[*missingError](err): // what was on it is gone with it
	case err != nil:
		return err
	default:
		// Before the device goes: until then nothing passes in the clear anyway.
		if lo.fate == barred {
			changes, err := s.platform.closeFence(p.index, lo.fence())
			lo.note(s.log, p.index, changes)
			if err != nil {
				return fmt.Errorf("close the fence on %s: %w", f.Interface, err)
			}
			lo.shut = p.index
		}
		if !s.owned(f) {
			if err := removeDevice(s.kernel, p, f.Secure); err != nil {
				return err
			}
		}
		if lo.fate == opened {
			if err := s.platform.openFence(p.index); err != nil {
				return fmt.Errorf("open the fence on %s: %w", f.Interface, err)
			}
		}
	}
	if lo.fate == barred || s.kept[f.Link] != nil {
		return nil
	}
	return removeLinkFile(s.platform.files, s.opts.RunDir, f.Link)
}

// note has the status show for a while that the fence was not as it was left, for until
// it was closed again plain frames may have passed.
func (lo *leftover) note(log *slog.Logger, index int, changes []fence.Change) {
	if len(changes) == 0 || lo.shut == 0 {
		return
	}
	if lo.shut != index && lo.shut != anyIndex {
		lo.drifted(log, health.ParentDrift, fmt.Sprintf("interface replaced: %s is another interface now", lo.file.Interface))
		return
	}
	for _, c := range changes {
		kind := "fence filter changed"
		if c.Foreign {
			kind = "filter before the fence"
		}
		lo.drifted(log, health.FenceDrift, kind+": "+c.String())
	}
}

func (lo *leftover) drifted(log *slog.Logger, code health.Code, what string) {
	if _, news := lo.drifts.note(code, what, time.Now()); !news {
		return
	}
	log.Warn("somebody else changed what is left of a link: put right", "link", lo.file.Link, "fault", string(code), "was", what)
}

// owned says whether the device of a leftover is another link's by now.
func (s *server) owned(f *linkFile) bool {
	for _, k := range s.kept {
		k.mu.Lock()
		end := k.spec.link.Local
		k.mu.Unlock()
		if end.Interface == f.Interface && end.Secure == f.Secure {
			return true
		}
	}
	return false
}

// removeDevice deletes the device of a link, if it is there and where it belongs.
func removeDevice(k macsec.Kernel, p parent, name string) error {
	dev, err := k.Device(name)
	switch {
	case errors.Is(err, macsec.ErrNotExist):
		return nil
	case err != nil:
		return err
	case dev.Parent != p.index:
		return nil // another's by now
	}
	return k.DeleteDevice(dev.Index)
}

// shut is the interface whose fence was closed, as far as the record tells: of a link
// that was removed before, it does not say which one.
func (f *linkFile) shut() int {
	switch {
	case f.Fence == nil || f.Fence.options().Monitor || !f.fenced(f.Fence.options()):
		return 0
	case f.Removed:
		return anyIndex
	}
	return f.Index
}

// fence is how the fence of a leftover was closed.
func (lo *leftover) fence() fence.Options {
	o := fence.Options{EtherType: inventory.DefaultMKA().EtherType}
	if lo.file.Fence != nil {
		o = lo.file.Fence.options()
	}
	o.Monitor = false
	return o
}

// status is what is shown of a leftover.
func (lo *leftover) status() LinkStatus {
	f := &lo.file
	st := LinkStatus{
		ID: f.Link, Interface: f.Interface, SecureInterface: f.Secure,
		Verdict: inventory.Encrypt.String(), Reason: lo.reason, State: StateRemoved,
	}
	var faults health.Set
	if lo.fate == barred {
		st.Fence, st.Traffic, st.TrafficDetail = fenceStatus(lo.fence()), TrafficStopped, "the link is no longer in the inventory: its device is gone and its fence is closed"
		faults.Raise(health.Raise(health.LinkRemoved, lo.since, "interface", f.Interface, "link", f.Link))
	}
	for code, d := range lo.drifts {
		faults.Raise(health.Raise(code, d.since, "interface", f.Interface, "detail", strings.Join(d.what, "; ")))
	}
	if lo.failed != nil {
		faults.Raise(health.Raise(health.LinkFailed, lo.since, "interface", f.Interface, "detail", lo.failed))
	}
	st.Faults = faults.List()
	return st
}

// downLeftover is `lever down` of a link that is left over. known says whether it
// is one.
func (s *server) downLeftover(id string) (known bool, err error) {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	lo := s.left[id]
	if lo == nil {
		return false, nil
	}
	s.log.Warn("what is left of a link is taken down: plain traffic may pass from now on", "link", id, "interface", lo.file.Interface)
	again := *lo
	again.fate = opened
	if err := s.tryClear(&again); err != nil {
		return true, fmt.Errorf("take link %s down: %w", id, err)
	}
	delete(s.left, id)
	s.forget(id)
	return true, nil
}

// barred are the interfaces whose fences are left over. s.reconf is held.
func (s *server) barred() map[string]bool {
	at := map[string]bool{}
	for _, lo := range s.left {
		if lo.fate == barred {
			at[lo.file.Interface] = true
		}
	}
	return at
}

// barredAt are those of which an earlier agent has left a record.
func barredAt(runDir string) map[string]bool {
	at := map[string]bool{}
	paths, _ := filepath.Glob(filepath.Join(runDir, linksDir, "*.json")) // the pattern is a good one
	for _, path := range paths {
		f, err := readLinkFile(runDir, strings.TrimSuffix(filepath.Base(path), ".json"))
		if err == nil && f != nil && f.Removed {
			at[f.Interface] = true
		}
	}
	return at
}

// inherit looks for what an earlier agent has left of links that the inventory has
// no more, has elsewhere, or leaves alone: an inventory that was changed while no
// agent ran means the same as one that changes now. s.reconf is held.
func (s *server) inherit(now time.Time) {
	entries, err := os.ReadDir(filepath.Join(s.opts.RunDir, linksDir))
	if err != nil {
		s.log.Error("the run directory cannot be read: what an earlier agent has left is not known", "error", err)
		return
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		f, err := readLinkFile(s.opts.RunDir, id)
		if err != nil || f == nil {
			if s.named[id] == nil {
				s.log.Error("a link that the inventory does not have has a record that cannot be read: look for its device and its fence", "link", id, "error", err)
			}
			continue
		}
		l, there := s.named[id], s.at[f.Interface]
		if l != nil && l == there && l.Verdict.Kind == inventory.Encrypt { // resumed
			if f.Secure != l.Local.Secure {
				s.disown(*f)
				s.dropDevice(f)
			}
			continue
		}
		lo := &leftover{file: *f, since: now, fate: barred, reason: removedReason, shut: f.shut()}
		if f.Fence != nil && f.Fence.options().Monitor {
			lo.fate = ignored
		}
		s.leave(lo)
		s.log.Warn("an earlier agent has left a link that the inventory does not have there: its keys and device go",
			"link", id, "interface", f.Interface, "fence", lo.fate.String())
	}
}

const removedReason = "it is no longer in the inventory"

func (f fate) String() string {
	return [...]string{"stays", "opened", "of another link", "as it was"}[f]
}

// disown has the record of a link say nothing of the device and the interface that
// it is about to leave, which the next session would miss. Its numbers stay.
func (s *server) disown(f linkFile) {
	f.Index, f.Up, f.Removed = 0, false, false
	if err := f.write(s.platform.files, s.opts.RunDir); err != nil {
		s.log.Warn("the record of a link could not be changed", "link", f.Link, "error", err)
	}
}

// dropDevice removes the device of a link that is about to get another one. The
// fence stays closed meanwhile.
func (s *server) dropDevice(f *linkFile) {
	p, err := s.platform.findParent(f.Interface)
	if err == nil {
		err = removeDevice(s.kernel, p, f.Secure)
	}
	if err != nil && !isA[*missingError](err) {
		s.log.Error("the link's old device could not be removed", "link", f.Link, "device", f.Secure, "error", err)
	}
}

// forget takes a link that is no more out of the status, unless the inventory has
// one of that name.
func (s *server) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed[id] {
		return
	}
	delete(s.status, id)
	delete(s.said, id)
	delete(s.supervised, id)
	delete(s.tasks, id)
	s.order = slices.DeleteFunc(s.order, func(o string) bool { return o == id })
	s.wakeWatchers()
}
