package lab

import (
	"slices"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	tests := []struct {
		Name    string
		arrived []int
		Sent    int
		want    StreamReport
		Clean   bool
	}{
		{"all in order", []int{0, 1, 2, 3}, 4, StreamReport{Received: 4}, true},
		{"nothing sent proves nothing", nil, 0, StreamReport{}, false},
		{"the last one lost", []int{0, 1, 2}, 4, StreamReport{Received: 3, Missing: []string{"3"}}, false},
		{"all lost", nil, 3, StreamReport{Missing: []string{"0-2"}}, false},
		{"a duplicate does not hide a loss", []int{0, 1, 1, 3}, 4, StreamReport{Received: 3, Duplicates: 1, Missing: []string{"2"}}, false},
		{"reordered", []int{0, 2, 1, 3}, 4, StreamReport{Received: 4, Reordered: 1}, false},
		{"a late duplicate is not reordered", []int{0, 1, 2, 0}, 3, StreamReport{Received: 3, Duplicates: 1}, false},
		{"ranges, the first few", []int{1, 3, 6, 8, 10}, 12, StreamReport{Received: 5, Missing: []string{"0", "2", "4-5", "7"}}, false},
		{"far apart", []int{0, 1000}, 1001, StreamReport{Received: 2, Missing: []string{"1-999"}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			var tally tally
			at := time.Unix(0, 0)
			for _, seq := range tt.arrived {
				at = at.Add(time.Millisecond)
				tally.note(seq, at)
			}
			got := StreamReport{
				Sent: tt.Sent, Received: tally.received, Duplicates: tally.duplicates,
				Reordered: tally.reordered, Missing: tally.missing(tt.Sent, 4),
			}
			tt.want.Sent = tt.Sent
			if got.String() != tt.want.String() || !slices.Equal(got.Missing, tt.want.Missing) {
				t.Errorf("accounted %v, want %v", got, tt.want)
			}
			if got.Clean() != tt.Clean {
				t.Errorf("clean is %v for %v", got.Clean(), got)
			}
			if got.Lost() != tally.lacks(tt.Sent) {
				t.Errorf("lacks %d of %d with %d received", tally.lacks(tt.Sent), tt.Sent, tally.received)
			}
			if got.Lost() != tt.Sent-tally.received {
				t.Errorf("lost %d of %d with %d received", got.Lost(), tt.Sent, tally.received)
			}
		})
	}
}

// Numbers that are not asked for do not count.
func TestTallyLacksOfTheFirst(t *testing.T) {
	var tally tally
	for _, seq := range []int{0, 1, 63, 64, 130, 200} {
		tally.note(seq, time.Unix(0, 0))
	}
	for sent, want := range map[int]int{0: 0, 1: 0, 2: 0, 3: 1, 64: 61, 65: 61, 131: 126, 200: 195, 201: 195, 500: 494} {
		if got := tally.lacks(sent); got != want {
			t.Errorf("of the first %d it lacks %d, want %d", sent, got, want)
		}
	}
}

func TestTallyLongestSilence(t *testing.T) {
	var tally tally
	at := time.Unix(0, 0)
	for seq, pause := range []time.Duration{0, 1, 40, 2} {
		at = at.Add(pause * time.Millisecond)
		tally.note(seq, at)
	}
	if tally.longest != 40*time.Millisecond {
		t.Errorf("longest silence %v, want 40ms", tally.longest)
	}
}

func TestForeignPacketsAreNotClean(t *testing.T) {
	r := StreamReport{Sent: 1, Received: 1, Foreign: 1}
	if r.Clean() {
		t.Error("a stream with a foreign packet in it is called clean")
	}
	r = StreamReport{Sent: 2, Received: 1, Refused: 1}
	if want := "2 sent, 1 lost, 0 duplicated, 0 reordered, 1 of the lost refused by the sender's kernel"; r.String() != want {
		t.Errorf("%q, want %q", r, want)
	}
}
