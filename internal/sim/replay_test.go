package sim_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/lever-link/lever/internal/sim"
)

// A seed is worth nothing if it does not lead to the same run every time.
func TestASeedReplaysItsRunToTheLastFrame(t *testing.T) {
	run := func(seed uint64) (string, sim.Result) {
		sum := sha256.New()
		r := sim.Run(seed, 0, 10*time.Minute, func(h *sim.Hour) {
			names := &sim.Namer{}
			h.Trace = func(e sim.Entry) { _, _ = io.WriteString(sum, fmt.Sprint(e.At, h.Line(names, e), e.Frame)) }
		})
		return fmt.Sprintf("%x", sum.Sum(nil)), r
	}
	diaries := map[string]uint64{}
	for seed := range uint64(min(4, fewSeeds)) {
		first, a := run(seed)
		again, b := run(seed)
		if first != again || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("seed %d: two runs, two diaries", seed)
		}
		if other, known := diaries[first]; known {
			t.Errorf("seeds %d and %d are the same run", seed, other)
		}
		diaries[first] = seed
		if bare := sim.Run(seed, 0, 10*time.Minute, nil); fmt.Sprint(bare) != fmt.Sprint(a) {
			t.Errorf("seed %d: the diary changes the run", seed)
		}
	}
}
