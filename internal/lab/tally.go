package lab

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// A tally accounts for the numbered packets that one end has received. It
// remembers each of them, so that a duplicate never hides a loss.
type tally struct {
	seen       []uint64 // a bit a sequence number
	received   int      // distinct numbers
	duplicates int
	reordered  int // arrived after a higher number
	next       int // one more than the highest number so far
	last       time.Time
	longest    time.Duration // between two arrivals
}

// note records the arrival of packet seq, which counts from 0.
func (t *tally) note(seq int, now time.Time) {
	if !t.last.IsZero() {
		t.longest = max(t.longest, now.Sub(t.last))
	}
	t.last = now
	word, bit := seq/64, uint64(1)<<(seq%64)
	for word >= len(t.seen) {
		t.seen = append(t.seen, 0)
	}
	if t.seen[word]&bit != 0 {
		t.duplicates++
		return
	}
	t.seen[word] |= bit
	t.received++
	if seq < t.next {
		t.reordered++
	}
	t.next = max(t.next, seq+1)
}

// missing lists the ranges of the first sent numbers that never arrived, at
// most limit of them.
func (t *tally) missing(sent, limit int) []string {
	var ranges []string
	for seq := 0; seq < sent && len(ranges) < limit; seq++ {
		if t.has(seq) {
			continue
		}
		from := seq
		for seq+1 < sent && !t.has(seq+1) {
			seq++
		}
		if from == seq {
			ranges = append(ranges, fmt.Sprint(from))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", from, seq))
		}
	}
	return ranges
}

// lacks is how many of the first sent packets have never arrived.
func (t *tally) lacks(sent int) int {
	n := sent
	for word := 0; word < len(t.seen) && word*64 < sent; word++ {
		seen := t.seen[word]
		if rest := sent - word*64; rest < 64 {
			seen &= 1<<rest - 1
		}
		n -= bits.OnesCount64(seen)
	}
	return n
}

func (t *tally) has(seq int) bool {
	return seq/64 < len(t.seen) && t.seen[seq/64]&(1<<(seq%64)) != 0
}

// A StreamReport is the account of one direction of a stream.
type StreamReport struct {
	From, To   string
	Sent       int // numbers used, whether or not the kernel took the packet
	Received   int // of them, each once
	Refused    int // of them, by the sender's kernel; they count as lost
	Duplicates int
	Reordered  int
	Foreign    int // packets that were not of this stream
	Longest    time.Duration
	Missing    []string
}

// Lost is what was sent and did not arrive.
func (r StreamReport) Lost() int { return r.Sent - r.Received }

// Clean reports whether every packet arrived once and in order.
func (r StreamReport) Clean() bool {
	return r.Sent > 0 && r.Lost() == 0 && r.Duplicates == 0 && r.Reordered == 0 && r.Foreign == 0
}

// Brief is the account of a stream that may lose.
func (r StreamReport) Brief() string {
	return fmt.Sprintf("%d from %s to %s, of which %d lost", r.Sent, r.From, r.To, r.Lost())
}

// String is the account in one line.
func (r StreamReport) String() string {
	s := fmt.Sprintf("%d sent, %d lost, %d duplicated, %d reordered", r.Sent, r.Lost(), r.Duplicates, r.Reordered)
	if r.Refused > 0 {
		s += fmt.Sprintf(", %d of the lost refused by the sender's kernel", r.Refused)
	}
	if r.Foreign > 0 {
		s += fmt.Sprintf(", %d foreign", r.Foreign)
	}
	if len(r.Missing) > 0 {
		s += "; missing " + strings.Join(r.Missing, ", ")
	}
	return s
}
