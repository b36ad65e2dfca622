package keys

import (
	"fmt"
	"math"
)

// MaxGeneration is the last generation that a channel can issue an epoch's number
// in: two of them still fit into one.
const MaxGeneration = 1<<16 - 1

// Pair is the epoch of the CAK that comes of channel a's and channel b's epochs of
// one number. Each channel counts its generations by itself, so that one of them
// can be issued again alone; the generation of the two together is Szudzik's
// pairing of theirs, which is another for every two, and the greater the greater
// either is. It is not ok with two numbers, and with a generation above
// MaxGeneration.
func Pair(a, b Epoch) (e Epoch, ok bool) {
	if a.Number != b.Number || a.Generation > MaxGeneration || b.Generation > MaxGeneration {
		return Epoch{}, false
	}
	x, y := a.Generation, b.Generation
	if x < y {
		return Epoch{a.Number, y*y + x}, true
	}
	return Epoch{a.Number, x*x + x + y}, true
}

// Sides are the epochs of channel a and of channel b that e is the Pair of.
func (e Epoch) Sides() (a, b Epoch) {
	root := uint32(math.Sqrt(float64(e.Generation))) // exact: 32 bits of 53
	rest := e.Generation - root*root
	if rest < root {
		return Epoch{e.Number, rest}, Epoch{e.Number, root}
	}
	return Epoch{e.Number, root}, Epoch{e.Number, rest - root}
}

// Side is what a channel calls its part of e.
func (e Epoch) Side(s Side) Epoch {
	a, b := e.Sides()
	if s == B {
		return b
	}
	return a
}

// Pairing is e with the channels' names for it, where those are others.
func (e Epoch) Pairing() string {
	if e.Generation == 0 {
		return e.String()
	}
	a, b := e.Sides()
	return fmt.Sprintf("%s (%s of channel a, %s of channel b)", e, a, b)
}
