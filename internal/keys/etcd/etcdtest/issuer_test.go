package etcdtest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/etcd"
)

// issuerEnv has this process issue instead of testing, so that it can be killed.
const issuerEnv = "LEVER_ETCDTEST_ISSUER"

type issuing struct {
	Endpoints            []string
	CA, Certificate, Key string
	Links                int
	Numbers              []uint64
}

func many(n int) (links []etcd.LinkSpec) {
	for i := range n {
		links = append(links, etcd.LinkSpec{ID: "l" + strconv.Itoa(i), Nodes: []string{"r1", "r2"}})
	}
	return links
}

func issuerMain() {
	text := os.Getenv(issuerEnv)
	if text == "" {
		return
	}
	var i issuing
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		panic(err)
	}
	a, err := etcd.OpenAdmin(etcd.AdminConfig{Endpoints: i.Endpoints, CA: i.CA, Certificate: i.Certificate, Key: i.Key})
	if err != nil {
		panic(err)
	}
	_, err = a.Issue(context.Background(), many(i.Links), i.Numbers, life, func(p etcd.Progress) { fmt.Println(p.Done) })
	if err != nil {
		panic(err)
	}
	os.Exit(0)
}

// An issuer that is killed, several times, leaves neither a gap nor a duplicate: run
// again it writes what is missing and nothing that is there.
func TestIssuerKilled(t *testing.T) {
	s := ownSite(t)
	ctx := within(t)
	pair := s.pair(t, "issuer")
	const links = 1000
	numbers := []uint64{1, 2}
	text := string(do[[]byte](t)(json.Marshal(issuing{s.c.Endpoints(), s.c.CA.File, pair.Certificate, pair.Key, links, numbers})))
	for range 3 {
		cmd := exec.CommandContext(ctx, do[string](t)(os.Executable()))
		cmd.Env = append(os.Environ(), issuerEnv+"="+text)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if n, _ := strconv.Atoi(lines.Text()); n >= 150 {
				break
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	root := do[*clientv3.Client](t)(s.c.Admin())
	defer func() { _ = root.Close() }()
	before := values(t, root)
	if len(before) == 0 || len(before) >= links*len(numbers)*2 {
		t.Fatalf("the killed issuers have written %d values", len(before))
	}
	a := s.issuer(t)
	calls := 0
	p := do[etcd.Progress](t)(a.Issue(ctx, many(links), numbers, life, func(etcd.Progress) { calls++ }))
	if p.Total != 2*links || p.Done != p.Total || calls != p.Done || p.Failed+p.Revoked+p.Repaired != 0 || p.Present != len(before)/2 || p.Issued != p.Total-p.Present {
		t.Errorf("%+v after %d values, %d calls", p, len(before), calls)
	}
	after := values(t, root)
	if len(after) != links*len(numbers)*2 {
		t.Errorf("%d values, want %d", len(after), links*len(numbers)*2)
	}
	for name, version := range after {
		if version != 1 {
			t.Errorf("%s was written %d times", name, version)
		}
	}
	looked, wrong, err := a.Verify(ctx, many(links))
	if must(t, err); looked != links*len(numbers) || len(wrong) > 0 {
		t.Errorf("verified %d, wrong: %v", looked, wrong)
	}
}

// values are the versions of all values, by name.
func values(t *testing.T, root *clientv3.Client) map[string]int64 {
	t.Helper()
	out := make(map[string]int64)
	for _, kv := range do[*clientv3.GetResponse](t)(root.Get(within(t), "lever/nodes/", clientv3.WithPrefix(), clientv3.WithKeysOnly())).Kvs {
		out[string(kv.Key)] = kv.Version
	}
	return out
}

// What only some nodes have is copied, what they have differently is not touched, and
// the list says how it is.
func TestRepairAndList(t *testing.T) {
	s := theSite(t)
	a, ctx := s.issuer(t), within(t)
	root := do[*clientv3.Client](t)(s.c.Admin())
	defer func() { _ = root.Close() }()
	links := between("rep1", "rep2", "rep3", "rep4")
	began := time.Now().Truncate(time.Second)
	if p, err := a.Issue(ctx, links, []uint64{7}, life, nil); err != nil || !p.Since.IsZero() {
		t.Errorf("%+v, %v", p, err)
	}
	do[*clientv3.DeleteResponse](t)(root.Delete(ctx, "lever/nodes/r2/links/rep1/7.0"))
	do[etcd.Progress](t)(a.Issue(ctx, between("rep2"), []uint64{8}, life, nil))
	other := do[*clientv3.GetResponse](t)(root.Get(ctx, "lever/nodes/r1/links/rep2/8.0")).Kvs[0].Value
	do[*clientv3.DeleteResponse](t)(root.Delete(ctx, "lever/nodes/r1/links/rep2/8.0"))
	do[*clientv3.PutResponse](t)(root.Put(ctx, "lever/nodes/r1/links/rep2/7.0", string(other)))
	do[etcd.Progress](t)(a.Revoke(ctx, between("rep3"), nil, nil))
	state := func() map[string]etcd.State {
		out := make(map[string]etcd.State)
		for _, e := range do[[]etcd.Entry](t)(a.List(ctx, links)) {
			if slices.ContainsFunc(links, func(l etcd.LinkSpec) bool { return l.ID == e.Link }) {
				out[e.Link+" "+e.Epoch.String()] = e.State
				if e.State == etcd.Complete && (len(e.Nodes) != 2 || e.Fingerprint == keys.Fingerprint{} || !e.Expires.After(e.Issued)) {
					t.Errorf("%+v", e)
				}
			}
		}
		return out
	}
	want := map[string]etcd.State{
		"rep1 7.0": etcd.Partial, "rep2 7.0": etcd.Refused, "rep2 8.0": etcd.Partial, "rep3 7.0": etcd.RevokedState, "rep4 7.0": etcd.Complete,
	}
	if got := state(); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	p, err := a.Issue(ctx, links, []uint64{7}, life, nil)
	if err == nil || p.Repaired != 1 || p.Present != 1 || p.Issued != 1 || p.Failed != 1 || p.Since.Before(began) {
		t.Errorf("%+v, %v", p, err)
	}
	want["rep1 7.0"], want["rep3 7.1"] = etcd.Complete, etcd.Complete // the revoked one has a successor
	if got := state(); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Another generation follows what was issued, and what was revoked; what is over is
// retired, but not without a successor.
func TestReissueAndRetire(t *testing.T) {
	s := ownSite(t)
	a, ctx := s.issuer(t), within(t)
	l := between("gen")
	if p, err := a.Reissue(ctx, l, 4, life, nil); err == nil || p.Failed != 1 {
		t.Errorf("an epoch was reissued that was never issued: %+v", p)
	}
	do[etcd.Progress](t)(a.Issue(ctx, l, []uint64{4, 9, 10}, life, nil))
	do[etcd.Progress](t)(a.Reissue(ctx, l, 4, life, nil))
	f := follow(t, do[*etcd.Channel](t)(etcd.New(s.config(t, "r1"))), "gen")
	x := f.epochs("4.0 4.1 9.0 10.0")
	if x.keys[keys.Epoch{Number: 4}] == x.keys[keys.Epoch{Number: 4, Generation: 1}] {
		t.Error("the generations have the same material")
	}
	do[etcd.Progress](t)(a.Revoke(ctx, l, func(e keys.Epoch) bool { return e.Number == 4 }, nil))
	do[etcd.Progress](t)(a.Reissue(ctx, l, 4, life, nil))
	f.epochs("4.2 9.0 10.0")
	if n := do[int](t)(a.Retire(ctx, 10)); n != 2+2+2 { // 4.2 and 9.0 at both nodes, the marks of 4.0 and 4.1
		t.Errorf("%d were retired", n)
	}
	f.epochs("10.0")
	if n := do[int](t)(a.Retire(ctx, 100)); n != 0 {
		t.Errorf("%d were retired that have no successor", n)
	}
}

// BenchmarkIssue issues two epochs for many links of two nodes, on three members and
// one issuer that share this machine.
func BenchmarkIssue(b *testing.B) {
	s := ownSite(b)
	a := s.issuer(b)
	specs := make([]etcd.LinkSpec, *links)
	const nodes = 1000
	for i := range specs {
		specs[i] = etcd.LinkSpec{ID: fmt.Sprintf("site-%06d", i), Nodes: []string{fmt.Sprintf("router-%03d", i%nodes), fmt.Sprintf("router-%03d", (i+1+i/nodes)%nodes)}}
		if specs[i].Nodes[0] == specs[i].Nodes[1] {
			specs[i].Nodes[1] = "router-x"
		}
	}
	number := uint64(1)
	for b.Loop() {
		began := time.Now()
		p, err := a.Issue(context.Background(), specs, []uint64{number, number + 1}, etcd.Options{Lifetime: time.Hour}, nil)
		if err != nil || p.Issued != 2*len(specs) {
			b.Fatalf("%+v, %v", p, err)
		}
		b.ReportMetric(float64(len(specs))/time.Since(began).Seconds(), "links/s")
		number += 2
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/(1<<20), "issuer-MiB")
	if root, err := s.c.Admin(); err == nil {
		if status, err := root.Status(context.Background(), s.c.Endpoints()[0]); err == nil {
			b.ReportMetric(float64(status.DbSize)/(1<<20), "store-MiB")
		}
		_ = root.Close()
	}
}
