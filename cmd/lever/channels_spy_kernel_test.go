//go:build kernel

package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	filippo "filippo.io/age"

	"github.com/lever-link/lever/internal/identity"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/keys/bundle"
	"github.com/lever-link/lever/internal/keys/etcd"
	"github.com/lever-link/lever/internal/lab"
	"github.com/lever-link/lever/internal/secret/secrettest"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
)

// A fleetSpy has what r1 has, and so every key that r1's link ever had: to look for
// those that must be gone.
type fleetSpy struct {
	f    *fleet
	link string
	mu   sync.Mutex
	// material is both channels', by epoch.
	material [2]map[keys.Epoch]keys.Material
}

// spy follows both channels of a link in this process until the test ends.
func (f *fleet) spy(link string) *fleetSpy {
	f.Helper()
	inv, err := inventory.Load(f.routers[0].Path(lab.InventoryFile))
	f.must(err)
	signer, err := signed.ParsePublicKey(inv.Channels.A.Signers[0])
	f.must(err)
	b := inv.Channels.B
	ids := f.routers[0].Path(filepath.Join(lab.StateDir, identity.Dir))
	bundles, err := bundle.New(bundle.Config{
		Source: f.source, Node: "r1", Signers: []signed.PublicKey{signer}, Threshold: 1,
		Identities: func() ([]filippo.Identity, error) { return identity.Load(ids) },
	})
	f.must(err)
	cluster, err := etcd.New(etcd.Config{Endpoints: b.Endpoints, Prefix: b.Prefix, Node: "r1", CA: b.CA, Certificate: b.Certificate, Key: b.Key})
	f.must(err)
	spy := &fleetSpy{f: f, link: link, material: [2]map[keys.Epoch]keys.Material{{}, {}}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for side, c := range []keys.Channel{bundles, cluster} {
		wg.Go(func() {
			f.mustNot(c.Watch(ctx, link, func(s keys.Snapshot) {
				spy.mu.Lock()
				defer spy.mu.Unlock()
				maps.Copy(spy.material[side], s.Keys)
			}))
		})
	}
	f.Cleanup(func() { cancel(); wg.Wait() })
	return spy
}

// searchMemory looks, as root, through all memory of both agents for the keys of
// epochs that are over, and says what it has found.
func (s *fleetSpy) searchMemory() string {
	f := s.f
	f.Helper()
	f.settled()
	now, err := keys.ParseEpoch(f.theEpoch())
	f.must(err)
	id := keys.Identity{Link: s.link, Nodes: []string{"r1", "r2"}}
	var search secrettest.Search
	var gone, halves []string
	inUse := fmt.Sprintf("CAK of epoch %s, in use", now)
	s.mu.Lock()
	for _, e := range slices.SortedFunc(maps.Keys(s.material[0]), keys.Epoch.Compare) {
		a, both := s.material[0][e], false
		var b keys.Material
		if b, both = s.material[1][e]; !both || now.Less(e) {
			continue
		}
		cak, err := keys.Combine(id, e, a, b)
		f.must(err)
		if e == now {
			search.Add(inUse, cak.Key.Bytes())
			continue
		}
		name := fmt.Sprintf("CAK of epoch %s", e)
		search.Add(name, cak.Key.Bytes())
		search.Add(name+": channel a's half", a.Key.Bytes())
		search.Add(name+": channel b's half", b.Key.Bytes())
		gone = append(gone, name, name+": channel a's half")
		halves = append(halves, name+": channel b's half")
	}
	s.mu.Unlock()
	if len(halves) < 2 {
		f.Fatalf("%d epochs are over: %q", len(halves), gone)
	}
	left := 0
	for _, r := range f.routers {
		pid, err := r.PID()
		f.must(err)
		image, err := search.Process(pid)
		f.must(err)
		if !image.Has(inUse) {
			f.Errorf("%s: the %s is not found: the search would not find another either", r.Name, inUse)
		}
		for _, name := range gone {
			if image.Has(name) {
				f.Errorf("%s still has the %s: %s", r.Name, name, image.Where(name))
			}
		}
		for _, name := range halves {
			if image.Has(name) {
				left++
			}
		}
	}
	return fmt.Sprintf("of %d epochs that were over, no CAK and nothing of channel a's was in the memory of either agent; of channel b's, which gRPC and TLS have had, %d of %d",
		len(halves), left, len(halves)*len(f.routers))
}

// betray gives a router all that both channels ever had for the link, as files.
func (s *fleetSpy) betray(r *lab.Router) {
	f := s.f
	f.Helper()
	text, err := os.ReadFile(r.Path(lab.InventoryFile))
	f.must(err)
	before, rest, _ := strings.Cut(string(text), "channels:\n")
	_, after, found := strings.Cut(rest, "sites:\n")
	if !found {
		f.Fatalf("the inventory of %s has no channels before its sites", r.Name)
	}
	f.must(r.SetInventory([]byte(before + "channels:\n  a: {type: dir, path: keys/a}\n  b: {type: dir, path: keys/b}\nsites:\n" + after)))
	s.mu.Lock()
	defer s.mu.Unlock()
	for side, material := range s.material {
		dir := r.Path(filepath.Join("keys", keys.Side(side).String(), s.link))
		f.must(os.MkdirAll(dir, 0o700))
		for e, m := range material {
			f.must(os.WriteFile(filepath.Join(dir, e.String()+".key"), []byte(hex.EncodeToString(m.Key.Bytes())+"\n"), 0o600))
		}
	}
}
