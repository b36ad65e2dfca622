//go:build !kernel

package agent

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

// TestDriftThatCannotBePutRight has the kernel refuse what would put a device right:
// nobody may say that it was, nor that the link is secured.
func TestDriftThatCannotBePutRight(t *testing.T) {
	for name, u := range map[string]macsec.DeviceUpdate{
		"encrypt":  {Encrypt: new(false)},
		"protect":  {Protect: new(false)},
		"validate": {Validate: new(macsec.Disabled)},
		"up":       {Up: new(false)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSecuredPair(t)
				n := p.r1
				var refuse atomic.Bool
				n.kernel.Before(func(o macsectest.Operation) error {
					if refuse.Load() && o.Op == macsec.OpUpdateDevice && (o.DeviceUpdate.Encrypt != nil || o.DeviceUpdate.Protect != nil || o.DeviceUpdate.Validate != nil || o.DeviceUpdate.Up != nil) {
						return syscall.EPERM
					}
					return nil
				})
				if err := n.kernel.UpdateDevice(n.device().Index, u); err != nil {
					t.Fatal(err)
				}
				refuse.Store(true)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				st := n.status()
				if st.State != StateFailed || st.Traffic != "" || st.SecuredSince != nil {
					t.Errorf("the link says that it is %s, and traffic %s: %s", st.State, st.Traffic, st.TrafficDetail)
				}
				failed := false
				for _, f := range st.Faults {
					failed = failed || f.Code == health.LinkFailed && strings.Contains(f.Text, "not permitted")
					if f.Code == health.SecYDrift {
						t.Errorf("it was not put right: %s", f.Text)
					}
				}
				if !failed {
					t.Errorf("faults %+v", st.Faults)
				}
				refuse.Store(false)
				mended := time.Now()
				p.secured(driftShown + 2*driftPeriod)
				if since := n.status().SecuredSince; since == nil || since.Before(mended.Add(-2*driftPeriod)) {
					t.Errorf("secured since %v, mended at %v", since, mended)
				}
			})
		})
	}
}
