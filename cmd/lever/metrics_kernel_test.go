//go:build kernel

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/internal/metrics"
)

const metricsSocket = lab.RunDir + "/metrics.sock"

// scrape is what an agent tells Prometheus.
func (s *site) scrape(i int) string {
	s.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.routers[i].Path(metricsSocket))
	}}
	request, err := http.NewRequestWithContext(s.ctx(), http.MethodGet, "http://lever/metrics", nil)
	s.must(err)
	response, err := transport.RoundTrip(request)
	s.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	s.must(err)
	if response.StatusCode != http.StatusOK {
		s.Fatalf("the metrics of r%d: %s: %s", i+1, response.Status, body)
	}
	return string(body)
}

// value finds a sample by its name and labels.
func (s *site) value(text, series string) int {
	s.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		s.Fatalf("no %s in\n%s", series, text)
	}
	f, err := strconv.ParseFloat(m[1], 64)
	s.must(err)
	return int(f)
}

const (
	sentSeries     = `lever_link_sent_frames_total{link="link-1",protection="encrypted"}`
	receivedSeries = `lever_link_received_frames_total{link="link-1"}`
	rekeysSeries   = `lever_link_rekeys_total{link="link-1"}`
	droppedSeries  = `lever_link_fence_dropped_frames_total{direction="egress",link="link-1"}`
)

// What Prometheus counts is what was sent: each packet of a stream, over rekeys,
// once at each end and in each direction.
func TestMetricsCountAStream(t *testing.T) {
	s := newPair(t)
	for i, r := range s.routers {
		s.must(r.Space.Do(func() error { // whose stack speaks on every new device
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		}))
		s.routers[i].Args = []string{"--metrics", "unix:" + s.routers[i].Path(metricsSocket)}
	}
	s.deliver(1, "ab")
	s.start()
	s.secured()
	for i, from := range s.routers { // nothing but the stream: nobody need ask where anybody is
		mac, err := s.routers[1-i].Space.MAC(theDevice)
		s.must(err)
		s.must(from.Space.Neighbour(theDevice, inner(1-i).AsSlice(), mac))
	}
	counts := func() (all [4]int) {
		t.Helper()
		for i := range s.routers {
			text := s.scrape(i)
			all[2*i], all[2*i+1] = s.value(text, sentSeries), s.value(text, receivedSeries)
		}
		return all
	}
	// The agent reads the kernel's counters once a second.
	inKernel := func() (all [4]int) {
		t.Helper()
		for i, r := range s.routers {
			y, err := r.SecY(theDevice)
			s.must(err)
			all[2*i] = int(y.TxSC.Stats.OutPktsEncrypted)
			for _, sc := range y.RxSCs {
				all[2*i+1] += int(sc.Stats.InPktsOK)
			}
		}
		return all
	}
	caughtUp := func() [4]int {
		t.Helper()
		s.must(lab.Await(s.ctx(), patience, "the metrics to show what the kernels have", func() (bool, string) {
			return counts() == inKernel(), "not yet"
		}))
		return counts()
	}
	before := caughtUp()
	stream, err := lab.StartStream(s.ctx(), lab.Endpoint{Name: "r1", Space: s.routers[0].Space, Addr: inner(0)}, lab.Endpoint{Name: "r2", Space: s.routers[1].Space, Addr: inner(1)}, besides)
	s.must(err)
	s.must(stream.Flowing(s.ctx()))
	for range 3 {
		s.lever(0, "rekey", theLink)
	}
	reports, err := stream.Stop(s.ctx())
	s.must(err)
	after := caughtUp()
	sent := [2]int{reports[0].Sent, reports[1].Sent}
	if want := ([4]int{sent[0], sent[1], sent[1], sent[0]}); !reports[0].Clean() || !reports[1].Clean() || minus(after, before) != want {
		t.Errorf("sent and received at r1 and r2 by the metrics: %v, by the stream: %v (%s; %s)", minus(after, before), want, reports[0], reports[1])
	}

	text := s.scrape(0)
	for series, want := range map[string]int{
		rekeysSeries: 3,
		`lever_link_state{link="link-1",state="secured"}`:                      1,
		`lever_link_state{link="link-1",state="negotiating"}`:                  0,
		`lever_link_traffic_protected{link="link-1"}`:                          1,
		`lever_link_peers_live{link="link-1"}`:                                 1,
		`lever_link_epoch{link="link-1"}`:                                      1,
		`lever_link_untagged_frames_total{direction="egress",link="link-1"}`:   0,
		`lever_link_rejected_frames_total{cause="not_valid",link="link-1"}`:    0,
		`lever_link_fault{code="fence-open",link="link-1",severity="warning"}`: 0,
		`lever_link_sent_frames_total{link="link-1",protection="integrity"}`:   0,
	} {
		if got := s.value(text, series); got != want {
			t.Errorf("%s is %d, want %d", series, got, want)
		}
	}
	dropped := s.value(text, droppedSeries)
	if n := s.plainPings(0, 1); n != 0 {
		t.Errorf("%d plain pings were answered", n)
	}
	s.must(lab.Await(s.ctx(), patience, "the fence's drops to be counted", func() (bool, string) {
		now := s.value(s.scrape(0), droppedSeries)
		return now == dropped+3, strconv.Itoa(now - dropped)
	}))
	for _, m := range metrics.All() {
		if m.Name != "lever_link_repairs_total" && !strings.Contains(text, "\n"+m.Name) {
			t.Errorf("nothing says %s", m.Name)
		}
	}
	for _, secret := range s.secrets {
		if strings.Contains(text, hex.EncodeToString(secret)) || bytes.Contains([]byte(text), secret) {
			t.Error("the metrics hold key material")
		}
	}
	// An address that is taken is an error at the start, and costs no traffic.
	out, said, status := s.exits(1, nil, s.routers[1].Binary, "agent", "--inventory", s.routers[1].Path(lab.InventoryFile), "--node", "r2",
		"--run-dir", t.TempDir(), "--state-dir", t.TempDir(), "--metrics", "nonsense")
	if status == 0 {
		t.Errorf("an agent that cannot serve its metrics starts: %s%s", out, said)
	}
}

func minus(a, b [4]int) [4]int {
	for i := range a {
		a[i] -= b[i]
	}
	return a
}
