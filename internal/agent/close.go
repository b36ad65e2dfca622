package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
)

// ensureFence closes the fence on the parent, or has it count in mode monitor. A
// fence that cannot be closed leaves the parent down: the mode says that no
// plain frame may pass, and the first one would be one too many.
func (t *task) ensureFence() error { return t.fence(false) }

// checkFence puts right what somebody has changed of the fence, and reports it.
func (t *task) checkFence() error { return t.fence(true) }

// lookAtFence is checkFence when nothing is known to be amiss: it looks first, which
// is less work.
func (t *task) lookAtFence() error {
	state, err := t.server.platform.inspectFence(t.parent.index, t.fenceOptions())
	if err != nil || !state.InPlace {
		return t.checkFence()
	}
	t.showFence(state, nil)
	return nil
}

// fence acts before it looks: as long as something is amiss, each moment counts.
func (t *task) fence(stood bool) error {
	on, index, opts := &t.server.platform, t.parent.index, t.fenceOptions()
	changes, err := on.closeFence(index, opts)
	for _, c := range changes {
		switch {
		case c.Foreign:
			t.drifted(health.FenceDrift, "filter before the fence", c.String(), time.Now())
		case stood:
			t.drifted(health.FenceDrift, "fence filter changed", c.String(), time.Now())
		}
	}
	state, seeErr := on.inspectFence(index, opts)
	if seeErr != nil {
		poor := scarce(seeErr) && (err == nil || scarce(err))
		err = errors.Join(err, seeErr)
		if poor && t.seen == (shut{index, opts}) && time.Since(t.seenAt) < fenceTrusted {
			t.log.Warn("the fence could not be looked at; it was closed a moment ago, and is looked at again", "interface", t.parent.name, "error", err)
			return nil
		}
	}
	if err != nil && !opts.Monitor {
		if seeErr != nil || state.Leaks() {
			if downErr := on.setUp(index, false); downErr != nil {
				err = fmt.Errorf("%w; and %s cannot be set down: %w", err, t.parent.name, downErr)
			}
		}
		return &fenceError{err}
	}
	t.showFence(state, err)
	return nil
}

// fenceTrusted is how long a fence that was seen closed counts as closed when this
// process, or the kernel, lacks what it takes to look: unless another one is wanted by
// now, or the kernel has told of a change. It is looked at each driftPeriod.
const fenceTrusted = 5 * time.Second

// scarce says whether what failed has failed for want of descriptors or memory, which
// says nothing of the fence.
func scarce(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS}, func(e error) bool { return errors.Is(err, e) })
}

// showFence raises what an operator should know of the fence as it is now.
func (t *task) showFence(state fence.State, err error) {
	if err == nil && !state.Leaks() {
		t.seen, t.seenAt = shut{t.parent.index, t.fenceOptions()}, time.Now()
	}
	t.meter.fence(state)
	var found []health.Fault
	var weak []string
	for _, f := range state.Findings {
		switch f.Problem {
		case fence.Foreign:
			found = append(found, health.Raise(health.FenceForeign, time.Now(), "interface", t.parent.name, "detail", f))
		case fence.Weak:
			weak = append(weak, fmt.Sprintf("%s: %s", f.Direction, f.Text))
		case fence.Missing, fence.Altered, fence.Occupied: // Close's business
		}
	}
	if len(weak) > 0 {
		found = append(found, health.Raise(health.FenceWeak, t.began, "interface", t.parent.name, "detail", strings.Join(weak, "; ")))
	}
	if t.policy.Mode != inventory.Enforce {
		detail := fmt.Sprintf("enforce would have stopped %d frames on their way out and %d on their way in",
			state.DroppedEgress.Frames, state.DroppedIngress.Frames)
		if err != nil {
			detail = fmt.Sprintf("and they cannot be counted: %v", err)
		}
		found = append(found, health.Raise(health.FenceOpen, t.began, "interface", t.parent.name, "detail", detail))
	}
	t.faults.Replace([]health.Code{health.FenceForeign, health.FenceWeak, health.FenceOpen}, found)
}

// fenceOptions is the fence as the inventory wants it.
func (t *task) fenceOptions() fence.Options {
	o := fence.Options{EtherType: t.link.MKA.EtherType, Monitor: t.policy.Mode != inventory.Enforce}
	for _, p := range t.link.Allow {
		switch p {
		case inventory.LLDP:
			o.Allow |= fence.LLDP
		case inventory.LACP:
			o.Allow |= fence.LACP
		case inventory.Pause:
			o.Allow |= fence.Pause
		}
	}
	return o
}
