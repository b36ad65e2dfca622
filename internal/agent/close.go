package agent

import (
	"fmt"
	"time"

	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
)

// ensureFence closes the fence on the parent, or opens it in mode monitor. A
// fence that cannot be closed leaves the parent down: the mode says that no
// plain frame may pass, and the first one would be one too many.
func (t *task) ensureFence() error {
	on, index := &t.server.platform, t.parent.index
	if t.policy.Mode != inventory.Enforce {
		if err := on.openFence(index); err != nil {
			return &fenceError{err}
		}
		return nil
	}
	opts := t.fenceOptions()
	err := on.closeFence(index, opts)
	state, seeErr := on.inspectFence(index, opts)
	if seeErr != nil && err == nil {
		err = seeErr
	}
	if err != nil {
		if seeErr != nil || state.Leaks() {
			if downErr := on.setUp(index, false); downErr != nil {
				err = fmt.Errorf("%w; and %s cannot be set down: %w", err, t.parent.name, downErr)
			}
		}
		return &fenceError{err}
	}
	t.faults.Clear(health.FenceForeign)
	for _, f := range state.Findings {
		if f.Problem == fence.Foreign {
			t.faults.Raise(health.Raise(health.FenceForeign, time.Now(), "interface", t.parent.name, "detail", f))
		}
	}
	return nil
}
