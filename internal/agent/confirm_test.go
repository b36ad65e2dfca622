//go:build !kernel

package agent

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/macsec"
	"github.com/lever-link/lever/macsec/macsectest"
)

// slowDisk takes its time for a State.
type slowDisk struct{ keys.States }

func (s slowDisk) Save(link string, state keys.State) error {
	time.Sleep(100 * time.Millisecond)
	return s.States.Save(link, state)
}

// An epoch comes into use at the moment at which the next one is offered: a try again of
// MKA's is due in the step that adds its CAK. What the first supersedes is erased then,
// and must not be offered again, as a CAK of zeros that everybody knows.
func TestConfirmedWhileTheNextIsOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSecuredPair(t)
		time.Sleep(5 * time.Second)
		three := epoch(t, "3.0")
		p.r2.channels[keys.B].put(three, octets(three, keys.B))
		synctest.Wait()
		disk := p.r2.server.store.(*recorder)
		disk.under = slowDisk{disk.under}
		failed := false
		p.r2.kernel.Before(func(o macsectest.Operation) error {
			if failed || o.Op != macsec.OpUpdateTxSA || o.SAUpdate == nil || o.SAUpdate.Active == nil || !*o.SAUpdate.Active {
				return nil
			}
			failed = true
			go func() { // MKA tries again 200 ms later; the disk is busy with this then
				time.Sleep(150 * time.Millisecond)
				p.r2.channels[keys.A].put(three, octets(three, keys.A))
			}()
			return errors.New("no memory for a moment")
		})
		p.deliver(epoch(t, "2.0"))
		time.Sleep(20 * time.Second)
		if !failed {
			t.Fatal("no transmit SA was enabled")
		}
		var seen []string
		for l := range strings.Lines(p.r2.log.String()) {
			if _, what, ok := strings.Cut(l, `msg="CAK `); ok && strings.Contains(l, "at=r2 ") {
				verb, _, _ := strings.Cut(what, `"`)
				_, what, _ = strings.Cut(what, "epoch=")
				number, _, _ := strings.Cut(what, " ")
				seen = append(seen, verb+" "+number)
			}
		}
		want := "offered 1.0, offered 2.0, offered 3.0, withdrawn 1.0"
		if got := strings.Join(seen, ", "); got != want {
			t.Errorf("at r2: %s; want %s", got, want)
		}
	})
}
