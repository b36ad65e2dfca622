//go:build !kernel

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/internal/signed"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec/macsectest"
)

const channelsInventory = `apiVersion: lever/v1
channels:
  a: {type: bundle, path: bundles, signers: [FyUcNGg+EPTS2N1Zgvt1ZR7GR6hXnOgFSxwyBNSS+lE=]}
  b: {type: KIND}
sites: {s: {custody: controlled-building}}
nodes: {r1: {site: s}, r2: {site: s}, r3: {site: s}}
links:
  - {id: l1, a: r1/eth0, z: r2/eth0}
  - {id: l2, a: r3/eth0, z: r2/eth1}
`

// Each type of channel that an inventory may name is opened, and none of them has
// anything of the other's.
func TestOpenChannels(t *testing.T) {
	for kind, fields := range map[string]string{
		"dir":     "dir, path: keys",
		"etcd":    `etcd, endpoints: ["https://127.0.0.1:1"], ca: ca.pem, certificate: n.pem, key: n.key`,
		"etsi014": `etsi014, url: "https://127.0.0.1:1", ca: ca.pem, certificate: n.pem, key: n.key`,
		"skip":    `skip, url: "https://127.0.0.1:1", ca: ca.pem, certificate: n.pem, key: n.key`,
	} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "net.yaml")
			if err := os.WriteFile(file, []byte(strings.Replace(channelsInventory, "KIND", fields, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			inv, err := inventory.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newServer(Options{Node: "r1", StateDir: dir, Log: slog.New(slog.DiscardHandler)}, newMachine(t, "r1").platform(), macsectest.New(), &linkEvents{})
			s.inForce.Store(inv)
			c := s.openChannels(inv, s.log)
			for side, want := range []string{"bundle", kind} {
				if c[side].Kind() != want {
					t.Errorf("channel %s is of type %s (%s), want %s", keys.Side(side), c[side].Kind(), c[side].Where("l1"), want)
				}
				if _, broken := c[side].(unopened); broken {
					t.Errorf("channel %s could not be opened: %v", keys.Side(side), c[side])
				}
			}
			if a, b := s.channelDir(keys.A), s.channelDir(keys.B); a == b || strings.HasPrefix(a, b) || strings.HasPrefix(b, a) {
				t.Errorf("the channels keep what they remember at %s and %s", a, b)
			}
			if nodes := s.nodesOf("l1"); len(nodes) != 2 || s.nodesOf("l2") != nil {
				t.Errorf("l1 is between %q, and of l2 this node knows %q", nodes, s.nodesOf("l2"))
			}
			if s.linksDigest() == "" {
				t.Error("there is no digest of this node's links")
			}
		})
	}
}

// A channel that cannot be opened is a fault of each link, and revokes nothing.
func TestUnopenedChannel(t *testing.T) {
	s := newServer(Options{Node: "r1", StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}, newMachine(t, "r1").platform(), macsectest.New(), &linkEvents{})
	inv := &inventory.Inventory{Channels: inventory.Channels{
		A: inventory.Channel{Type: "pigeon"}, B: inventory.Channel{Type: "bundle", Path: "/b", Signers: []string{"?"}},
	}}
	for side, c := range s.openChannels(inv, s.log) {
		ctx, cancel := context.WithCancel(t.Context())
		got := keys.Snapshot{}
		if err := c.Watch(ctx, "l1", func(s keys.Snapshot) { got = s; cancel() }); err != nil {
			t.Error(err)
		}
		if !got.Unavailable || len(got.Findings) != 1 || got.Findings[0].Code != health.ChannelUnreachable || got.Findings[0].Detail == "" {
			t.Errorf("channel %s delivers %+v", keys.Side(side), got)
		}
	}
}

// An override counts when two of the inventory's signers have signed it, for the
// links that it names and until it ends.
func TestReadOverride(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var signers []string
	var ks []*signed.Key
	for _, name := range []string{"one", "two", "stranger"} {
		path := filepath.Join(dir, name)
		public, err := signed.GenerateKey(path)
		if err != nil {
			t.Fatal(err)
		}
		k, err := signed.ReadKey(path)
		if err != nil {
			t.Fatal(err)
		}
		ks = append(ks, k)
		if name != "stranger" {
			signers = append(signers, public.String())
		}
	}
	file := filepath.Join(dir, "age.override")
	where := inventory.AgeOverride{File: file, Signers: signers}
	write := func(by ...*signed.Key) {
		t.Helper()
		s, err := signed.NewOverride(signed.Override{Links: []string{"l1"}, Reason: "ticket 4711", Issued: now, Expires: now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range by {
			if err := s.Sign(k); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, s.Text(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(what, link string, at time.Time, wantErr string) {
		t.Helper()
		o, err := newOverrides().read(where, link, at)
		if !o.Until.IsZero() || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: %+v, %v", what, o, err)
		}
	}
	none("no file", "l1", now, "")
	write(ks[0])
	none("signed by one", "l1", now, file)
	write(ks[0], ks[2])
	none("signed by one and a stranger", "l1", now, file)
	write(ks[0], ks[1])
	none("another link", "l2", now, "")
	none("after its end", "l1", now.Add(time.Hour), "")
	o, err := newOverrides().read(where, "l1", now)
	if err != nil || !o.Until.Equal(now.Add(time.Hour)) || o.Reason != "ticket 4711" || len(o.Signers) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
	// Whatever is there instead of it holds nobody up.
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	none("a large file", "l1", now, "more than 67764 octets")
	if err := errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	none("a FIFO", "l1", now, "not a regular file")
	where.File = ""
	none("an inventory without one", "l1", now, "")
}

// A disk that hangs costs one read, however many links ask for however long, and is
// asked again when it has answered.
func TestOverrideOnADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		answer := make(chan struct{})
		r := newOverrides()
		r.file = func(string) ([]byte, error) {
			reads.Add(1)
			<-answer
			return []byte("a statement"), nil
		}
		for range 100 {
			if _, err := r.text("age.override"); err == nil || !strings.Contains(err.Error(), "has not answered") {
				t.Fatalf("got %v", err)
			}
		}
		if n := reads.Load(); n != 1 {
			t.Errorf("%d reads of one file at the same time", n)
		}
		close(answer)
		synctest.Wait()
		if text, err := r.text("age.override"); err != nil || string(text) != "a statement" || reads.Load() != 2 {
			t.Errorf("%q, %v after %d reads", text, err, reads.Load())
		}
	})
}
