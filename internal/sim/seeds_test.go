package sim_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/lever-link/lever/internal/sim"
	"github.com/lever-link/lever/internal/simlink"
)

var (
	firstSeed = flag.Uint64("sim.first", 1, "the first seed of TestSeeds")
	seeds     = flag.Uint64("sim.seeds", fewSeeds, "how many seeds TestSeeds runs")
	runFor    = flag.Duration("sim.for", 0, "no seed begins later than this; 0 leaves it to their number")
	members   = flag.Int("sim.members", 0, "how many members each seed has; 0 leaves it to the seed")
)

// shown is how many failed seeds are told of.
const shown = 5

// TestSeeds lets everything that can go wrong go wrong for an hour, once a seed.
func TestSeeds(t *testing.T) {
	began := time.Now()
	tally, failed := sim.Seeds(*firstSeed, *seeds, *members, time.Hour, func(r sim.Result) bool {
		return *stop && len(r.Failures) > 0 || *runFor > 0 && time.Since(began) >= *runFor
	})
	took := time.Since(began).Seconds()
	fmt.Printf("%d seeds in %.1f s, %.1f a second: %v\n", tally.Runs, took, float64(tally.Runs)/took, &tally)
	for i, r := range failed {
		if i == shown {
			var more []uint64
			for _, r := range failed[shown:] {
				more = append(more, r.Seed)
			}
			t.Errorf("and %d seeds more: %v", len(more), more)
			break
		}
		name, err := keep(filepath.Join(t.ArtifactDir(), fmt.Sprintf("sim-%d", r.Seed)), r)
		if err != nil {
			t.Errorf("no diary: %v", err)
		}
		what := strings.Join(r.Failures, "\n")
		if len(what) > 2000 {
			what = what[:2000] + " …"
		}
		t.Errorf("seed %d, %d members: %s\nreplay: go test ./internal/sim -run TestSeeds -sim.first=%d -sim.seeds=1 -sim.members=%d -artifacts -outputdir=.\ndiary and capture, with -artifacts: %s.txt, .pcap",
			r.Seed, r.Members, what, r.Seed, *members, name)
	}
}

// TestSeedsThatFailed has what no shorter scenario shows: a restarted key server's SAK
// that the others were just leaving (7310529), a member in a stall that has not heard of a
// revocation yet (7310650), and one that went back past a SAK that all others use (3590).
func TestSeedsThatFailed(t *testing.T) {
	for _, seed := range []uint64{3590, 7310529, 7310650} {
		if r := sim.Run(seed, 0, time.Hour, nil); len(r.Failures) > 0 {
			t.Errorf("seed %d: %s", seed, strings.Join(r.Failures, "\n"))
		}
	}
}

// keep runs a seed once more, with a diary and a capture of the MKPDUs.
func keep(name string, r sim.Result) (string, error) {
	diary, err := os.Create(name + ".txt")
	if err != nil {
		return name, err
	}
	defer func() { _ = diary.Close() }()
	capture, err := os.Create(name + ".pcap")
	if err != nil {
		return name, err
	}
	defer func() { _ = capture.Close() }()
	text, packets := bufio.NewWriter(diary), bufio.NewWriter(capture)
	w := pcapgo.NewWriter(packets)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		return name, err
	}
	again := sim.Run(r.Seed, *members, time.Hour, func(h *sim.Hour) {
		names := &sim.Namer{}
		h.Trace = func(e sim.Entry) {
			if e.Kind != sim.TraceReceived { // each frame is told once
				_, _ = fmt.Fprintf(text, "%14v  %s\n", e.At, h.Line(names, e))
			}
		}
		tap := h.Segment.Tap
		h.Segment.Tap = func(at time.Time, from *simlink.Station, frame []byte) {
			_ = w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(frame), Length: len(frame)}, frame)
			tap(at, from, frame)
		}
	})
	if strings.Join(again.Failures, "\n") != strings.Join(r.Failures, "\n") {
		return name, fmt.Errorf("seed %d does not replay: %q and then %q", r.Seed, r.Failures, again.Failures)
	}
	if err := text.Flush(); err != nil {
		return name, err
	}
	return name, packets.Flush()
}
