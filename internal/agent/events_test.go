//go:build !kernel

package agent

import "testing"

func TestEventsReachWhoWantsThem(t *testing.T) {
	for _, c := range []struct {
		name   string
		only   []int
		signal int
		told   bool
	}{
		{"all, of one", nil, 7, true},
		{"two, of one of them", []int{7, 9}, 9, true},
		{"two, of another", []int{7, 9}, 8, false},
		{"two, of whatever may have been lost", []int{7, 9}, 0, true},
	} {
		e := &linkEvents{}
		s, ended := e.subscribe(), e.subscribe()
		ended.end()
		s.only(c.only...)
		for range 3 { // one who does not look holds nobody up
			e.signal(c.signal)
		}
		if told := len(s.c) == 1; told != c.told {
			t.Errorf("%s: told %v", c.name, told)
		}
		if len(ended.c) != 0 {
			t.Errorf("%s: one that ended is told", c.name)
		}
	}
}
