// Package metrics shows Prometheus what an agent knows.
//
// What belongs here: the names of the metrics in one table, which the README
// shows as well; their values, out of the same struct that lever status is made
// of; and the HTTP server. What does not: counting, which is the agent's, and
// anything that could hold up a link: a scrape works on a copy. No key, CKN or
// address is a label, so that the number of series is bounded by the inventory.
package metrics

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric is one row of the table.
type Metric struct {
	Name   string
	Type   Type
	Labels []string
	Help   string
}

// Type is what a metric is to Prometheus.
type Type string

// The types that there are here.
const (
	Gauge   Type = "gauge"
	Counter Type = "counter"
)

// The names. They are an interface: alerts are written against them.
const (
	buildInfo   = "lever_build_info"
	startTime   = "lever_start_time_seconds"
	nodeFault   = "lever_node_fault"
	linkInfo    = "lever_link_info"
	linkState   = "lever_link_state"
	linkFault   = "lever_link_fault"
	protected   = "lever_link_traffic_protected"
	epoch       = "lever_link_epoch"
	generation  = "lever_link_epoch_generation"
	assocNumber = "lever_link_association_number"
	keyNumber   = "lever_link_key_number"
	peersLive   = "lever_link_peers_live"
	securedAt   = "lever_link_secured_timestamp_seconds"
	rekeyedAt   = "lever_link_last_rekey_timestamp_seconds"
	rekeys      = "lever_link_rekeys_total"

	sentFrames     = "lever_link_sent_frames_total"
	sentOctets     = "lever_link_sent_octets_total"
	untagged       = "lever_link_untagged_frames_total"
	tooLong        = "lever_link_too_long_frames_total"
	receivedFrames = "lever_link_received_frames_total"
	receivedOctets = "lever_link_received_octets_total"
	rejected       = "lever_link_rejected_frames_total"
	fenceFrames    = "lever_link_fence_dropped_frames_total"
	fenceOctets    = "lever_link_fence_dropped_octets_total"
	mkpdusSent     = "lever_link_mkpdus_sent_total"
	mkpdusReceived = "lever_link_mkpdus_received_total"
	mkpdusRefused  = "lever_link_mkpdus_refused_total"
	mkpdusMissed   = "lever_link_mkpdus_missed_total"
	repairs        = "lever_link_repairs_total"
)

// table is every metric there is. All values are counted since the agent was
// started; the kernel's counters begin when the device was made, if that was
// before, and are read once a second.
var table = []Metric{
	{buildInfo, Gauge, []string{"version", "revision", "goversion"}, "Always 1; the labels say what runs."},
	{startTime, Gauge, nil, "When the agent was started, as Unix time."},
	{nodeFault, Gauge, []string{"code", "severity"}, "1 while the node has this fault, which concerns no single link; else 0."},
	{linkInfo, Gauge, []string{"link", "interface", "secure_interface", "verdict", "cipher"}, "Always 1; the labels say what the inventory says of the link."},
	{linkState, Gauge, []string{"link", "state"}, "1 for the state that the link is in, 0 for the others."},
	{linkFault, Gauge, []string{"link", "code", "severity"}, "1 while the link has this fault, else 0."},
	{protected, Gauge, []string{"link"}, "1 while an SA is in use and frames leave encrypted, whatever MKA says at the moment; else 0: frames are dropped, or nobody knows, or the link was taken down."},
	{epoch, Gauge, []string{"link"}, "The epoch of the key in use; absent with a static key, or none."},
	{generation, Gauge, []string{"link"}, "The generation of that epoch."},
	{assocNumber, Gauge, []string{"link"}, "The AN of the SA that transmits; absent when none does."},
	{keyNumber, Gauge, []string{"link"}, "The KN of the SAK that it has."},
	{peersLive, Gauge, []string{"link"}, "How many members are live at the far end."},
	{securedAt, Gauge, []string{"link"}, "Since when the link has been secured, as Unix time; absent when it is not. Its age is time() minus this."},
	{rekeyedAt, Gauge, []string{"link"}, "When a new SAK was last taken into use, as Unix time; absent before the first time."},
	{rekeys, Counter, []string{"link"}, "SAKs that took the place of another."},
	{sentFrames, Counter, []string{"link", "protection"}, "Frames sent encrypted; or with integrity alone, of which there must be none."},
	{sentOctets, Counter, []string{"link", "protection"}, "Octets of user data in them."},
	{untagged, Counter, []string{"link", "direction"}, "Frames that went through the secured device without MACsec: there must be none."},
	{tooLong, Counter, []string{"link"}, "Frames not sent because they are too long for the parent with MACsec."},
	{receivedFrames, Counter, []string{"link"}, "Frames received whose integrity was verified."},
	{receivedOctets, Counter, []string{"link"}, "Octets of user data in them."},
	{rejected, Counter, []string{"link", "cause"}, "Frames received and not delivered, by IEEE 802.1AE's cause. no_tag counts MKA's own frames too."},
	{fenceFrames, Counter, []string{"link", "direction"}, "Plain frames that the fence stopped; in mode monitor, that it would have."},
	{fenceOctets, Counter, []string{"link", "direction"}, "Octets in them."},
	{mkpdusSent, Counter, []string{"link"}, "MKPDUs that were sent."},
	{mkpdusReceived, Counter, []string{"link"}, "MKPDUs received that passed every check."},
	{mkpdusRefused, Counter, []string{"link", "cause"}, "MKPDUs received that did not."},
	{mkpdusMissed, Counter, []string{"link", "lane"}, "MKPDUs that the kernel dropped because their queue was full: a flood."},
	{repairs, Counter, []string{"link", "kind"}, "What somebody else changed in the kernel and the agent has put right; absent before the first time."},
}

// All returns the table, by name.
func All() []Metric {
	all := slices.Clone(table)
	for i := range all {
		all[i].Labels = slices.Clone(all[i].Labels)
	}
	slices.SortFunc(all, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// descs are the rows as Prometheus wants them.
var descs = func() map[string]*prometheus.Desc {
	m := make(map[string]*prometheus.Desc, len(table))
	for _, d := range table {
		m[d.Name] = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
	return m
}()

var types = func() map[string]prometheus.ValueType {
	m := make(map[string]prometheus.ValueType, len(table))
	for _, d := range table {
		m[d.Name] = prometheus.GaugeValue
		if d.Type == Counter {
			m[d.Name] = prometheus.CounterValue
		}
	}
	return m
}()
