package agent

import "sync/atomic"

// pulse shows from outside whether a task comes round its loop.
type pulse struct{ beats atomic.Uint64 }

func (p *pulse) beat() { p.beats.Add(1) }
