//go:build kernel

package main

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
)

// The demo is the acceptance test of the whole. Here it runs on the kernel that
// this test runs on, with this program, under its name of lever, as the binary.
func TestDemo(t *testing.T) {
	capture := filepath.Join(t.TempDir(), "demo.pcap")
	before := entries(t, "/run") + entries(t, "/run/netns")
	cmd := exec.CommandContext(t.Context(), "lever", "demo", "--pcap", capture)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Run(); err != nil {
		t.Fatalf("lever demo: %v", err)
	}
	kinds := etherTypes(t, capture)
	if kinds[0x88E5] == 0 || kinds[0x888E] == 0 || len(kinds) != 2 {
		t.Errorf("frames by EtherType %x; want 88e5 and 888e alone", kinds)
	}
	if _, err := os.Stat("/run/lever-demo"); err == nil {
		t.Error("/run/lever-demo is still there")
	}
	if after := entries(t, "/run") + entries(t, "/run/netns"); after > before+1 { // netns itself stays
		t.Errorf("%d entries in /run and /run/netns, %d before", after, before)
	}
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return len(names)
}

func etherTypes(t *testing.T, file string) map[uint16]int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[uint16]int{}
	for {
		frame, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return kinds
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds[binary.BigEndian.Uint16(frame[12:])]++
	}
}
