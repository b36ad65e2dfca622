package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/lever-link/lever/macsec"
)

// SupplicantDevice is the name of the MACsec device that wpa_supplicant makes:
// the kernel's next free one, in a namespace that has no other.
const SupplicantDevice = "macsec0"

// A Supplicant is a router that Lever does not run on: wpa_supplicant speaks
// MKA there, with a static CAK, and drives the kernel's MACsec.
type Supplicant struct {
	Name   string
	Space  *Netspace
	iface  string
	dir    string
	kernel *macsec.Client
	daemon process
}

// A SupplicantConfig is what its operator chooses. The CAK has 16 or 32 octets,
// the CKN 1 to 32.
type SupplicantConfig struct {
	CAK, CKN []byte
	Priority int
}

// The names in a supplicant's directory.
const (
	supplicantConfigFile = "wpa.conf"
	SupplicantLogFile    = "wpa.log"
)

// NewSupplicant writes the configuration for an interface and opens what is
// read of the kernel's own view.
func NewSupplicant(name, dir string, ns *Netspace, iface string, c SupplicantConfig) (*Supplicant, error) {
	s := &Supplicant{Name: name, Space: ns, iface: iface, dir: dir, daemon: process{name: "wpa_supplicant of " + name}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of %s: %w", name, err)
	}
	// macsec_policy 1 secures the link, with confidentiality; there is no EAP.
	text := fmt.Sprintf(`eapol_version=3
ap_scan=0
network={
	key_mgmt=NONE
	eapol_flags=0
	macsec_policy=1
	mka_cak=%x
	mka_ckn=%x
	mka_priority=%d
}
`, c.CAK, c.CKN, c.Priority)
	if err := os.WriteFile(s.Path(supplicantConfigFile), []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configure %s: %w", name, err)
	}
	var err error
	if s.kernel, err = macsec.NewNetNS(int(ns.Handle)); err != nil {
		return nil, err
	}
	return s, nil
}

// Path is where something of its is.
func (s *Supplicant) Path(name string) string { return filepath.Join(s.dir, name) }

// Start starts it and returns when its process exists. Its log goes on where it
// was.
func (s *Supplicant) Start() error {
	return s.daemon.start(s.Space, exec.Command("wpa_supplicant",
		"-i", s.iface, "-D", "macsec_linux", "-c", s.Path(supplicantConfigFile),
		"-dd", "-t", "-f", s.Path(SupplicantLogFile)))
}

// End sends it a signal and waits for its end. On SIGTERM it removes its
// device.
func (s *Supplicant) End(sig syscall.Signal, patience time.Duration) error {
	return s.daemon.end(sig, patience)
}

// Close kills it, for what it has made goes with the namespace, and lets go of
// what is open.
func (s *Supplicant) Close() error {
	return errors.Join(s.daemon.end(syscall.SIGKILL, killPatience), s.kernel.Close())
}

// Alive returns an error if it was started and has ended.
func (s *Supplicant) Alive() error { return s.daemon.alive() }

// SetUp waits for the device, gives it an address and sets it up: the
// supplicant leaves that to others.
func (s *Supplicant) SetUp(ctx context.Context, addr *net.IPNet, patience time.Duration) error {
	var l netlink.Link
	err := Await(ctx, patience, s.Name+" to make its device", func() (bool, string) {
		if err := s.Alive(); err != nil {
			return false, err.Error()
		}
		var err error
		l, err = s.Space.Links.LinkByName(SupplicantDevice)
		return err == nil, fmt.Sprint(err)
	})
	if err != nil {
		return err
	}
	if err := s.Space.Links.AddrAdd(l, &netlink.Addr{IPNet: addr}); err != nil {
		return fmt.Errorf("give %s of %s the address %s: %w", SupplicantDevice, s.Name, addr, err)
	}
	return s.Space.Up(SupplicantDevice)
}

// SecY is its device as the kernel has it, but with the key identifiers of MKA:
// wpa_supplicant gives the kernel the KN in the processor's order of octets.
func (s *Supplicant) SecY() (*macsec.SecY, error) {
	dev, err := s.kernel.Device(SupplicantDevice)
	if err != nil {
		return nil, err
	}
	v, err := s.kernel.SecY(dev.Index)
	if err != nil {
		return nil, err
	}
	for i := range v.TxSC.SAs {
		inMKAOrder(&v.TxSC.SAs[i].KeyID)
	}
	for i := range v.RxSCs {
		for j := range v.RxSCs[i].SAs {
			inMKAOrder(&v.RxSCs[i].SAs[j].KeyID)
		}
	}
	return v, nil
}

func inMKAOrder(id *macsec.KeyID) {
	kn := id[len(id)-4:]
	binary.BigEndian.PutUint32(kn, binary.NativeEndian.Uint32(kn))
}

// LastLines returns the end of its log.
func (s *Supplicant) LastLines(n int) []string { return lastLines(s.Path(SupplicantLogFile), n) }
