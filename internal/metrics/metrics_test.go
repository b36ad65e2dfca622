package metrics

import (
	"bytes"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lever-link/lever/internal/agent"
	"github.com/lever-link/lever/internal/fence"
	"github.com/lever-link/lever/internal/health"
)

var update = flag.Bool("update", false, "rewrite testdata/exposition.golden")

// day is when everything happens here.
var day = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

// example is a node with a link of each kind, and every counter different.
func example() agent.Observation {
	since, rekey := day.Add(time.Hour), day.Add(90*time.Minute+250*time.Millisecond)
	secured := agent.LinkStatus{
		ID: "fra1-ams1-017", Interface: "eth4", SecureInterface: "eth4-sec", Verdict: "encrypt", Reason: "segment 2", State: agent.StateSecured,
		Cipher: "GCM-AES-XPN-256", CKN: "82c8397275af", Epoch: "42.1", KeyServer: "0245a3b2c4d50001", LocalSCI: "0245a3b2c4d50001",
		AN: new(uint8(2)), KN: 19, Traffic: agent.TrafficProtected,
		Peers: []agent.PeerStatus{{SCI: "0245a3b2c4d60001", Live: true}, {SCI: "0245a3b2c4d70001"}}, SecuredSince: &since, LastRekey: &rekey, Rekeys: 18,
	}
	waiting := agent.LinkStatus{
		ID: "fra1-ams1-018", Interface: "eth5", SecureInterface: "eth5-sec", Verdict: "encrypt", Reason: "segment 2", State: agent.StateWaiting,
		Cipher: "GCM-AES-XPN-256", Traffic: agent.TrafficStopped, Faults: []health.Fault{health.Raise(health.NoKeys, day, "where_a", "a", "where_b", "b")},
	}
	inside := agent.LinkStatus{ID: "fra1-r1-r2-001", Interface: "eth1", Verdict: "inside", Reason: "in one building", State: agent.StateInside}
	n := uint64(1000)
	next := func() uint64 { n++; return n }
	each := func(names []string) map[string]uint64 {
		m := map[string]uint64{}
		for _, name := range names {
			m[name] = next()
		}
		return m
	}
	return agent.Observation{
		Status: agent.Status{
			Node: "fra1-r1", Links: []agent.LinkStatus{secured, waiting, inside},
			Faults: []health.Fault{health.Raise(health.InventoryInvalid, day, "detail", "net.yaml")},
		},
		Started: day,
		Counted: map[string]agent.Counters{secured.ID: {
			Encrypted: agent.Volume{Frames: next(), Octets: next()}, Protected: agent.Volume{Frames: next(), Octets: next()},
			Validated: agent.Volume{Frames: next(), Octets: next()}, Rejected: each(agent.RejectCauses()),
			UntaggedSent: next(), UntaggedReceived: next(), TooLong: next(),
			FenceDrops: [2]agent.Volume{fence.Egress: {Frames: next(), Octets: next()}, fence.Ingress: {Frames: next(), Octets: next()}},
			Sent:       next(), Received: next(), Refused: each(agent.RefuseCauses()), Missed: each(agent.Lanes()),
			Repairs: map[string]uint64{"encrypt off": next()},
		}},
	}
}

func registry(t *testing.T, o agent.Observation) *prometheus.Registry {
	t.Helper()
	// A pedantic one checks each metric against its description.
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(NewCollector(func() agent.Observation { return o }, Build{"v1.2.3", "abcdef", "go1.26"})); err != nil {
		t.Fatal(err)
	}
	return r
}

// exposition is what a scrape answers.
func exposition(t *testing.T, o agent.Observation) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	promhttp.HandlerFor(registry(t, o), promhttp.HandlerOpts{}).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// Of the faults of a link, which are many and all alike, the golden file has
// those that are raised, and one that is not.
var otherFault = regexp.MustCompile(`(?m)^lever_(link|node)_fault\{code="[^"]*",.*\} 0\n`)

func shortened(text string) string {
	return otherFault.ReplaceAllStringFunc(text, func(line string) string {
		if strings.Contains(line, `"peer-lost"`) {
			return line
		}
		return ""
	})
}

// TestExposition holds what Prometheus reads to a file that is read before it is
// committed: go test ./internal/metrics -run TestExposition -update writes it.
func TestExposition(t *testing.T) {
	const golden = "testdata/exposition.golden"
	got := []byte(shortened(exposition(t, example())))
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("it differs from %s; look at it, and rewrite it with -update:\n%s", golden, got)
	}
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(registry(t, example()))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Every row of the table is in use, says what it is, and has no label of which
// anybody outside of the inventory could make many.
func TestTable(t *testing.T) {
	families, err := registry(t, example()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, f := range families {
		there[f.GetName()] = true
	}
	bounded := []string{
		"link", "interface", "secure_interface", "verdict", "cipher", "state", "code", "severity", "protection", "direction", "cause", "lane", "kind",
		"version", "revision", "goversion",
	}
	var names []string
	for _, m := range All() {
		names = append(names, m.Name)
		if !there[m.Name] {
			t.Errorf("nothing gives %s a value", m.Name)
		}
		if len(m.Help) < 12 || !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: %q", m.Name, m.Help)
		}
		if strings.HasSuffix(m.Name, "_total") != (m.Type == Counter) {
			t.Errorf("%s is a %s", m.Name, m.Type)
		}
		for _, l := range m.Labels {
			if !slices.Contains(bounded, l) {
				t.Errorf("%s has the label %s", m.Name, l)
			}
		}
	}
	if len(names) != len(there) || !slices.IsSorted(names) {
		t.Errorf("the table has %q, the exposition %d families", names, len(there))
	}
	if text := exposition(t, example()); strings.Contains(text, "82c8397275af") || strings.Contains(text, "0245a3b2c4d") {
		t.Error("a CKN or an SCI is shown: they are many")
	}
}

// Counters are there from the begin, so that the first frame is an increase.
func TestZerosBeforeTheFirstSample(t *testing.T) {
	o := example()
	o.Counted = nil
	text := exposition(t, o)
	for _, want := range []string{
		`lever_link_sent_frames_total{link="fra1-ams1-018",protection="encrypted"} 0`,
		`lever_link_rejected_frames_total{cause="not_valid",link="fra1-ams1-018"} 0`,
		`lever_link_fence_dropped_frames_total{direction="egress",link="fra1-ams1-017"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	// Of a link that is left alone nothing is counted.
	if strings.Contains(text, `_total{link="fra1-r1-r2-001"`) {
		t.Error("an inside link has counters")
	}
}
