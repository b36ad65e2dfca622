package keys_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/lever-link/lever/internal/keys"
)

func TestPairOfSmallGenerations(t *testing.T) {
	// In the order of the pairs: each generation there is, without a gap.
	want := [][2]uint32{{0, 0}, {0, 1}, {1, 0}, {1, 1}, {0, 2}, {1, 2}, {2, 0}, {2, 1}, {2, 2}}
	for g, w := range want {
		e := keys.Epoch{Number: 7, Generation: uint32(g)}
		a, b := e.Sides()
		if a != (keys.Epoch{Number: 7, Generation: w[0]}) || b != (keys.Epoch{Number: 7, Generation: w[1]}) {
			t.Errorf("%s is of %s and %s, want %v", e, a, b, w)
		}
	}
}

// Every pair of generations below 600 has an epoch of its own, from which both can be
// told, and each greater generation makes a greater epoch.
func TestPairIsABijection(t *testing.T) {
	const n = 600
	seen := make([]bool, n*n)
	pair := func(x, y uint32) uint32 {
		a, b := keys.Epoch{Number: 3, Generation: x}, keys.Epoch{Number: 3, Generation: y}
		e, ok := keys.Pair(a, b)
		if gotA, gotB := e.Sides(); !ok || gotA != a || gotB != b || e.Side(keys.A) != a || e.Side(keys.B) != b {
			t.Fatalf("%s and %s: %s, which is of %s and %s", a, b, e, gotA, gotB)
		}
		return e.Generation
	}
	for x := range uint32(n) {
		for y := range uint32(n) {
			g := pair(x, y)
			if g >= n*n || seen[g] {
				t.Fatalf("%d and %d: %d is taken, or too great", x, y, g)
			}
			seen[g] = true
			if g >= pair(x+1, y) || g >= pair(x, y+1) {
				t.Fatalf("%d and %d: %d does not grow", x, y, g)
			}
		}
	}
}

func TestPairProperties(t *testing.T) {
	generation := rapid.Uint32Range(0, keys.MaxGeneration)
	rapid.Check(t, func(t *rapid.T) {
		x, y := generation.Draw(t, "a"), generation.Draw(t, "b")
		e, ok := keys.Pair(keys.Epoch{Number: 9, Generation: x}, keys.Epoch{Number: 9, Generation: y})
		a, b := e.Sides()
		if !ok || a.Generation != x || b.Generation != y || a.Number != 9 || b.Number != 9 {
			t.Fatalf("%d and %d: %s, which is of %s and %s", x, y, e, a, b)
		}
		if x < keys.MaxGeneration {
			if next, _ := keys.Pair(keys.Epoch{Number: 9, Generation: x + 1}, b); !e.Less(next) {
				t.Fatalf("%s after %s", next, e)
			}
		}
		if y < keys.MaxGeneration {
			if next, _ := keys.Pair(a, keys.Epoch{Number: 9, Generation: y + 1}); !e.Less(next) {
				t.Fatalf("%s after %s", next, e)
			}
		}
		// And the other way round: each generation is of one pair.
		one := keys.Epoch{Number: 9, Generation: rapid.Uint32().Draw(t, "any")}
		a, b = one.Sides()
		if back, ok := keys.Pair(a, b); !ok || back != one {
			t.Fatalf("%s is of %s and %s, which make %s", one, a, b, back)
		}
	})
}

func TestPairRefuses(t *testing.T) {
	for _, c := range [][2]string{{"1.0", "2.0"}, {"1.65536", "1.0"}, {"1.0", "1.65536"}, {"1.4294967295", "1.4294967295"}} {
		if e, ok := keys.Pair(epoch(t, c[0]), epoch(t, c[1])); ok {
			t.Errorf("%s and %s make %s", c[0], c[1], e)
		}
	}
	if e, ok := keys.Pair(epoch(t, "1.65535"), epoch(t, "1.65535")); !ok || e != epoch(t, "1.4294967295") {
		t.Errorf("the last of both make %s, %v", e, ok)
	}
	if got := epoch(t, "42.2").Pairing(); got != "42.2 (42.1 of channel a, 42.0 of channel b)" {
		t.Error(got)
	}
}
