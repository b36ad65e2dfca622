package metrics

import (
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
)

// Build is what the binary says of itself.
type Build struct{ Version, Revision, Go string }

// ThisBuild is that of this binary.
func ThisBuild() Build {
	b := Build{Version: "unknown", Revision: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" {
		b.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}

// Collector makes metrics of an observation at each scrape.
type Collector struct {
	observe func() agent.Observation
	build   Build
}

// NewCollector makes the collector of an agent.
func NewCollector(observe func() agent.Observation, build Build) *Collector {
	return &Collector{observe: observe, build: build}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range descs {
		out <- d
	}
}

// scrape is one collection on its way.
type scrape chan<- prometheus.Metric

func (s scrape) add(name string, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(descs[name], types[name], value, labels...)
}

func (s scrape) count(name string, value uint64, labels ...string) {
	s.add(name, float64(value), labels...)
}

func (s scrape) is(name string, yes bool, labels ...string) {
	value := 0.0
	if yes {
		value = 1
	}
	s.add(name, value, labels...)
}

func (s scrape) at(name string, t time.Time, labels ...string) {
	s.add(name, float64(t.UnixMilli())/1000, labels...)
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	s, o := scrape(out), c.observe()
	s.add(buildInfo, 1, c.build.Version, c.build.Revision, c.build.Go)
	s.at(startTime, o.Started)
	s.faults(nodeFault, o.Faults)
	for i := range o.Links {
		l := &o.Links[i]
		s.link(l)
		if l.SecureInterface != "" {
			s.counters(l, o.Counted[l.ID])
		}
	}
}

// faults are all that are declared, so that an alert can tell "no" from "unknown".
func (s scrape) faults(name string, raised []health.Fault, labels ...string) {
	has := make(map[health.Code]bool, len(raised))
	for _, f := range raised {
		has[f.Code] = true
	}
	for _, d := range health.All() {
		s.is(name, has[d.Code], append(slices.Clip(labels), string(d.Code), string(d.Severity))...)
	}
}

func (s scrape) link(l *agent.LinkStatus) {
	s.add(linkInfo, 1, l.ID, l.Interface, l.SecureInterface, l.Verdict, l.Cipher)
	for _, state := range agent.States() {
		s.is(linkState, l.State == state, l.ID, string(state))
	}
	s.faults(linkFault, l.Faults, l.ID)
	if l.Verdict != inventory.Encrypt.String() {
		return
	}
	s.is(protected, l.Traffic == agent.TrafficProtected, l.ID)
	if e, g, ok := strings.Cut(l.Epoch, "."); ok {
		if n, err := strconv.ParseUint(e, 10, 64); err == nil {
			s.count(epoch, n, l.ID)
		}
		if n, err := strconv.ParseUint(g, 10, 64); err == nil {
			s.count(generation, n, l.ID)
		}
	}
	if l.AN != nil {
		s.count(assocNumber, uint64(*l.AN), l.ID)
		s.count(keyNumber, uint64(l.KN), l.ID)
	}
	live := uint64(0)
	for _, p := range l.Peers {
		if p.Live {
			live++
		}
	}
	s.count(peersLive, live, l.ID)
	if l.SecuredSince != nil {
		s.at(securedAt, *l.SecuredSince, l.ID)
	}
	if l.LastRekey != nil {
		s.at(rekeyedAt, *l.LastRekey, l.ID)
	}
	s.count(rekeys, l.Rekeys, l.ID)
}

// counters are there from the begin, with zeros, so that the first frame counted
// is an increase.
func (s scrape) counters(l *agent.LinkStatus, c agent.Counters) {
	s.count(sentFrames, c.Encrypted.Frames, l.ID, "encrypted")
	s.count(sentFrames, c.Protected.Frames, l.ID, "integrity")
	s.count(sentOctets, c.Encrypted.Octets, l.ID, "encrypted")
	s.count(sentOctets, c.Protected.Octets, l.ID, "integrity")
	s.count(untagged, c.UntaggedSent, l.ID, "egress")
	s.count(untagged, c.UntaggedReceived, l.ID, "ingress")
	s.count(tooLong, c.TooLong, l.ID)
	s.count(receivedFrames, c.Validated.Frames, l.ID)
	s.count(receivedOctets, c.Validated.Octets, l.ID)
	for _, cause := range agent.RejectCauses() {
		s.count(rejected, c.Rejected[cause], l.ID, cause)
	}
	for _, d := range []fence.Direction{fence.Egress, fence.Ingress} {
		s.count(fenceFrames, c.FenceDrops[d].Frames, l.ID, d.String())
		s.count(fenceOctets, c.FenceDrops[d].Octets, l.ID, d.String())
	}
	s.count(mkpdusSent, c.Sent, l.ID)
	s.count(mkpdusReceived, c.Received, l.ID)
	for _, cause := range agent.RefuseCauses() {
		s.count(mkpdusRefused, c.Refused[cause], l.ID, cause)
	}
	for _, lane := range agent.Lanes() {
		s.count(mkpdusMissed, c.Missed[lane], l.ID, lane)
	}
	for kind, n := range c.Repairs {
		s.count(repairs, n, l.ID, kind)
	}
}
