package demo

import (
	"slices"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	tests := []struct {
		name    string
		arrived []int
		sent    int
		want    streamReport
		clean   bool
	}{
		{"all in order", []int{0, 1, 2, 3}, 4, streamReport{Received: 4}, true},
		{"nothing sent proves nothing", nil, 0, streamReport{}, false},
		{"the last one lost", []int{0, 1, 2}, 4, streamReport{Received: 3, Missing: []string{"3"}}, false},
		{"all lost", nil, 3, streamReport{Missing: []string{"0-2"}}, false},
		{"a duplicate does not hide a loss", []int{0, 1, 1, 3}, 4, streamReport{Received: 3, Duplicates: 1, Missing: []string{"2"}}, false},
		{"reordered", []int{0, 2, 1, 3}, 4, streamReport{Received: 4, Reordered: 1}, false},
		{"a late duplicate is not reordered", []int{0, 1, 2, 0}, 3, streamReport{Received: 3, Duplicates: 1}, false},
		{"ranges, the first few", []int{1, 3, 6, 8, 10}, 12, streamReport{Received: 5, Missing: []string{"0", "2", "4-5", "7"}}, false},
		{"far apart", []int{0, 1000}, 1001, streamReport{Received: 2, Missing: []string{"1-999"}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tally tally
			at := time.Unix(0, 0)
			for _, seq := range tt.arrived {
				at = at.Add(time.Millisecond)
				tally.note(seq, at)
			}
			got := streamReport{
				Sent: tt.sent, Received: tally.received, Duplicates: tally.duplicates,
				Reordered: tally.reordered, Missing: tally.missing(tt.sent, 4),
			}
			tt.want.Sent = tt.sent
			if got.String() != tt.want.String() || !slices.Equal(got.Missing, tt.want.Missing) {
				t.Errorf("accounted %v, want %v", got, tt.want)
			}
			if got.clean() != tt.clean {
				t.Errorf("clean is %v for %v", got.clean(), got)
			}
			if got.Lost() != tt.sent-tally.received {
				t.Errorf("lost %d of %d with %d received", got.Lost(), tt.sent, tally.received)
			}
		})
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
	r := streamReport{Sent: 1, Received: 1, Foreign: 1}
	if r.clean() {
		t.Error("a stream with a foreign packet in it is called clean")
	}
	r = streamReport{Sent: 2, Received: 1, Refused: 1}
	if want := "2 sent, 1 lost, 0 duplicated, 0 reordered, 1 of the lost refused by the sender's kernel"; r.String() != want {
		t.Errorf("%q, want %q", r, want)
	}
}
