package inventory

import (
	"maps"
	"slices"
)

func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// maxWords is how many words are gone through for a hint.
const maxWords = 500

// hint is didYouMean for the names of things. It does not even sort what is too
// many to go through: a wrong file may have as many errors as links.
func hint[V any](got string, named map[string]V) string {
	if len(named) > maxWords {
		return ""
	}
	return didYouMean(got, keysOf(named))
}

// didYouMean returns a hint with the word closest to a mistyped one, or nothing
// when none is close.
func didYouMean(got string, words []string) string {
	if len(got) < 3 || len(got) > 64 || len(words) > maxWords {
		return "" // nothing to go by, or too much to go through for a hint
	}
	best, limit := "", 3 // a third of a short word changed is no longer a slip
	if len(got) < 6 {
		limit = 2
	}
	for _, w := range words {
		if d := distance(got, w, limit); d < limit {
			best, limit = w, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// distance is the number of octets to insert, delete, replace or swap with their
// neighbour, or limit when it is that or more.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= limit {
		return limit
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cur[j+1] = min(cur[j+1], prev2[j-1]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return min(prev[len(b)], limit)
}

func abs(n int) int { return max(n, -n) }
