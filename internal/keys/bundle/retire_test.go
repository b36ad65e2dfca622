package bundle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The policy of an issuer on a schedule.
const (
	testLength = time.Hour
	testMaxAge = 4 * time.Hour
)

// onSchedule issues what is current at the fleet's clock and the next two, and
// retires what is over, as `lever keys issue` does.
func (f *fleet) onSchedule(change func(*Options)) (Result, error) {
	o := f.opts
	hours := int(f.now.Sub(start) / time.Hour)
	o.Epochs = []uint64{epochAt(hours), epochAt(hours + 1), epochAt(hours + 2)}
	o.Retire = epochAt(int((f.now.Sub(start) - testMaxAge - testLength) / time.Hour))
	o.EpochLength, o.BundleLife = testLength, testMaxAge+testLength
	if change != nil {
		change(&o)
	}
	return Issue(f.t.Context(), o)
}

// listed are the hours of the epochs that a node's index lists.
func (f *fleet) listed(node string) (hours []int) {
	f.t.Helper()
	_, x, err := readIndex(f.t.Context(), f.opts.Out, node)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, l := range x.Bundles {
		hours = append(hours, (int(l.Epoch)-int(epochAt(0)))/60)
	}
	return hours
}

// An issuer that issues and does nothing else keeps no more than it must.
func TestIssueForEver(t *testing.T) {
	f := newFleet(t)
	f.opts.Links = f.opts.Links[:1]
	const hours = 24
	for hour := range hours {
		f.now = start.Add(time.Duration(hour) * time.Hour)
		if _, err := f.onSchedule(nil); err != nil {
			t.Fatalf("hour %d: %v", hour, err)
		}
	}
	last := hours - 1
	var want []int
	for h := last - 5; h <= last+2; h++ {
		want = append(want, h)
	}
	if got := f.listed("a"); !slices.Equal(got, want) {
		t.Errorf("listed are %v, want %v", got, want)
	}
}

// One that has as many epochs as it may have issues no more, says so, and retires.
func TestLimitDoesNotBlockRetiring(t *testing.T) {
	f := newFleet(t)
	f.opts.Links = f.opts.Links[:1]
	f.opts.Epochs = nil
	for h := range maxBundles {
		f.opts.Epochs = append(f.opts.Epochs, epochAt(h))
	}
	f.issue(nil)
	o := f.opts
	o.Epochs, o.Retire = []uint64{epochAt(maxBundles), epochAt(maxBundles + 1)}, epochAt(1)
	r, err := Issue(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "retire those that are over") || r.Retired != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := f.listed("b"); got[0] != 1 || got[len(got)-1] != maxBundles {
		t.Errorf("listed are %v", got)
	}
}

// A node that cannot be sealed to holds up neither its own retirement nor others'.
func TestRetireWithoutRecipients(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	delete(f.to, "c")
	o := f.opts
	o.Epochs, o.Retire = nil, epochAt(1)
	_, err := Issue(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), `node "c"`) {
		t.Errorf("%v", err)
	}
	for _, node := range []string{"a", "b", "c"} {
		if got := f.listed(node); !slices.Equal(got, []int{1}) {
			t.Errorf("node %s has %v", node, got)
		}
	}
}

// What is over is not sealed again.
func TestOverIsNotSealedAgain(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	f.now = start.Add(1000 * time.Hour)
	if r := f.issue(nil); r.Bundles != 0 || r.Indexes != 3 {
		t.Errorf("%+v", r)
	}
}

// A clock that is far ahead for once costs nothing that is in use, and a pause ends
// by itself; see doubt.
func TestClockThatJumps(t *testing.T) {
	const year = 365 * 24
	type step struct {
		hour    int
		force   bool
		retired int
		warn    bool
		want    string // what a has then
	}
	at := func(from, to int) string {
		var all []int
		for h := from; h <= to; h++ {
			all = append(all, h)
		}
		return strings.Trim(fmt.Sprint(all), "[]")
	}
	for name, steps := range map[string][]step{
		"ahead once": {
			{0, false, 0, false, at(0, 2)},
			{year, false, 0, true, at(0, 2) + " " + at(year, year+2)},
			{1, false, 0, false, at(0, 3) + " " + at(year, year+2)},
			{2, false, 0, false, at(0, 4) + " " + at(year, year+2)},
			{year + 5, false, 0, true, at(0, 4) + " " + at(year, year+2) + " " + at(year+5, year+7)},
			{6, false, 1, false, at(1, 4) + " " + at(6, 8) + " " + at(year, year+2) + " " + at(year+5, year+7)},
		},
		"a pause": {
			{0, false, 0, false, at(0, 2)},
			{100, false, 0, true, at(0, 2) + " " + at(100, 102)},
			{100, false, 0, true, at(0, 2) + " " + at(100, 102)},
			{101, false, 3, false, at(100, 103)},
		},
		"a pause that is known": {
			{0, false, 0, false, at(0, 2)},
			{100, true, 3, false, at(100, 102)},
		},
		"pauses only": {
			{0, false, 0, false, at(0, 2)},
			{100, false, 0, true, at(0, 2) + " " + at(100, 102)},
			{200, false, 3, true, at(100, 102) + " " + at(200, 202)},
			{300, false, 3, true, at(200, 202) + " " + at(300, 302)},
		},
		"shorter than max_age": {
			{0, false, 0, false, at(0, 2)},
			{4, false, 0, false, at(0, 2) + " " + at(4, 6)},
			{8, false, 3, false, at(4, 6) + " " + at(8, 10)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			for i, s := range steps {
				f.now = start.Add(time.Duration(s.hour) * time.Hour)
				r, err := f.onSchedule(func(o *Options) { o.AfterPause = s.force })
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Trim(fmt.Sprint(f.listed("a")), "[]"); got != s.want || r.Retired != s.retired {
					t.Errorf("step %d: %s, retired %d; want %s, %d", i, got, r.Retired, s.want, s.retired)
				}
				if warned := strings.Contains(strings.Join(r.Warnings, "\n"), "--after-pause"); warned != s.warn {
					t.Errorf("step %d: warnings %q", i, r.Warnings)
				}
				if !s.warn {
					f.verify() // whatever was dated by a wrong clock
				}
			}
		})
	}
}

// Nothing is retired that nothing takes the place of.
func TestRetireEverything(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	f.now = start.Add(9000 * time.Hour)
	for _, force := range []bool{false, true} {
		_, err := f.onSchedule(func(o *Options) { o.Epochs, o.AfterPause = nil, force })
		if force && (err == nil || !strings.Contains(err.Error(), "2027-09-11T12:00Z by this clock")) {
			t.Errorf("%v", err)
		}
		if got := f.listed("a"); !slices.Equal(got, []int{0, 1}) {
			t.Errorf("listed are %v", got)
		}
	}
}

// A revocation is not held up at a far end that cannot be sealed to: it loses the
// whole of what has something that was revoked, and nothing else.
func TestRevokeWithoutRecipients(t *testing.T) {
	f := newFleet(t)
	f.issue(nil)
	delete(f.to, "a")
	for _, test := range []struct {
		name   string
		change func(*Options)
		a, b   int
	}{
		{"nothing", func(*Options) {}, 2, 2},
		{"another link", func(o *Options) { o.Revoke.Links, o.Revoke.Epochs = []string{"bc"}, []uint64{epochAt(0)} }, 2, 2},
		{"a new link", func(o *Options) { o.Links = append(slices.Clone(o.Links), LinkSpec{"ab2", []string{"a", "b"}}) }, 2, 2},
		{"its link", func(o *Options) { o.Revoke.Links, o.Revoke.Epochs = []string{"ab"}, []uint64{epochAt(0)} }, 1, 2},
		{"the far end", func(o *Options) { o.Revoke.Nodes = []string{"c"} }, 0, 2},
	} {
		o := f.opts
		o.Epochs = nil
		test.change(&o)
		_, err := Issue(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), `node "a": it has no recipients`) {
			t.Errorf("%s: %v", test.name, err)
		}
		if a, b := f.listed("a"), f.listed("b"); len(a) != test.a || len(b) != test.b {
			t.Errorf("%s: a has %v, b %v", test.name, a, b)
		}
	}
}
