package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lever-link/lever/internal/health"
	"github.com/lever-link/lever/inventory"
	"github.com/lever-link/lever/macsec"
)

// What an agent says and what the kernel has are read one after the other, and
// both move. So a difference is looked at again before it is believed.
const (
	lookAgain = 50 * time.Millisecond
	looks     = 5
	// lookEvery is how often a watch reads the kernel while the agent says nothing.
	lookEvery = time.Second
)

// answerPatience is how long an agent that accepts a connection may take to say
// something: it answers from memory.
const answerPatience = 3 * time.Second

// Look is the node's status with what the kernel has next to what the agent says.
// When no agent answers, or one that is stuck, it is what the kernel has of the
// links that are recorded in the run directory, and Unanswered says why; the
// error is for a directory in which no agent has left anything.
func (c *Client) Look(ctx context.Context) (Status, error) {
	return c.look(ctx, &linux, openKernel)
}

// openKernel is for a kernel without MACsec as well: it may have fences.
func openKernel() (macsec.Kernel, error) { return macsec.NewLater() }

func (c *Client) look(ctx context.Context, on *platform, open func() (macsec.Kernel, error)) (Status, error) {
	var st Status
	for n := range looks {
		said, namespace, err := c.said(ctx)
		if ctx.Err() != nil {
			return Status{}, ctx.Err()
		}
		if err != nil {
			left, leftErr := unattended(c.runDir)
			err = errors.Join(err, leftErr)
			if len(left) == 0 {
				return Status{}, err
			}
			st = Status{Links: left, Unanswered: err.Error()}
			st.compare(on, open)
			return st, nil
		}
		st = said
		if st.Unseen = elsewhere(namespace); st.Unseen != "" {
			return st, nil
		}
		if st.compare(on, open); st.agrees() || n == looks-1 || !sleep(ctx, lookAgain) {
			break
		}
	}
	return st, nil
}

// said is the agent's word.
func (c *Client) said(ctx context.Context) (st Status, namespace string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.patience, c.hangs())
	defer cancel()
	err = c.call(ctx, command{Verb: "status"}, func(a *answer) error {
		st, namespace = *a.Status, a.Namespace
		return nil
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return st, namespace, err
}

func (c *Client) hangs() error {
	return fmt.Errorf("the agent in %s has said nothing for %v: it hangs; restart it, traffic goes on meanwhile", c.runDir, c.patience)
}

// unattended are the links that an agent has left in the run directory.
func unattended(runDir string) ([]LinkStatus, error) {
	entries, err := os.ReadDir(filepath.Join(runDir, linksDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what an agent has left in %s: %w", runDir, err)
	}
	var links []LinkStatus
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		f, err := readLinkFile(runDir, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if f == nil {
			continue // removed meanwhile
		}
		l := LinkStatus{
			ID: f.Link, Interface: f.Interface, SecureInterface: f.Secure, Verdict: inventory.Encrypt.String(),
			Reason: "an agent has set it up, and recorded it in " + runDir, State: StateUnattended,
			Fence: f.Fence, Associations: recorded(f.MKA), Faults: []health.Fault{},
		}
		if f.Removed {
			l.State, l.Associations = StateRemoved, nil
		}
		links = append(links, l)
	}
	return links, errors.Join(errs...)
}

// compare reads the kernel for all links.
func (s *Status) compare(on *platform, open func() (macsec.Kernel, error)) {
	sight := see(on, open)
	for i := range s.Links {
		sight.compare(&s.Links[i])
	}
}

// agrees says whether the kernel has what the agent says, on all links.
func (s *Status) agrees() bool {
	return !slices.ContainsFunc(s.Links, func(l LinkStatus) bool { return l.Kernel != nil && !l.Kernel.Agrees })
}

// differs is all that the two are not at one about.
func (s *Status) differs() string {
	var all strings.Builder
	for i := range s.Links {
		if k := s.Links[i].Kernel; k != nil {
			fmt.Fprintf(&all, "%s: %q\n", s.Links[i].ID, k.Differs)
		}
	}
	return all.String()
}

// WatchLook calls each with the status now and after every change of what the
// agent says, and when what the kernel has differs from it, or no longer does,
// until ctx ends or the agent stops.
func (c *Client) WatchLook(ctx context.Context, each func(Status) error) error {
	return c.watchLook(ctx, &linux, openKernel, each)
}

func (c *Client) watchLook(ctx context.Context, on *platform, open func() (macsec.Kernel, error), each func(Status) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make(chan answer)
	var over error // valid once said is closed
	var calling sync.WaitGroup
	calling.Go(func() {
		defer close(said)
		over = c.call(ctx, command{Verb: "watch"}, func(a *answer) error {
			select {
			case said <- *a:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	defer calling.Wait()
	defer cancel()
	tick, late := time.NewTicker(c.every), time.NewTimer(c.patience)
	defer tick.Stop()
	defer late.Stop()
	var st Status
	var shown string
	for known := false; ; {
		fresh := false
		select {
		case a, ok := <-said:
			if !ok {
				return over
			}
			st, known, fresh = *a.Status, true, true
			st.Unseen = elsewhere(a.Namespace)
		case <-late.C:
			if !known {
				return c.hangs()
			}
			continue
		case <-tick.C:
			if !known || st.Unseen != "" {
				continue
			}
		}
		if st.Unseen == "" {
			st.compare(on, open)
			for n := 1; n < looks && !st.agrees() && (fresh || st.differs() != shown); n++ {
				if !sleep(ctx, lookAgain) {
					break
				}
				st.compare(on, open)
			}
		}
		if now := st.differs(); fresh || now != shown {
			shown = now
			if err := each(st); err != nil {
				return err
			}
		}
	}
}

// netNamespace names the network namespace of this process; empty if unknown.
var netNamespace = sync.OnceValue(func() string {
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return name
})

// elsewhere is why the kernel's side of an agent in that namespace cannot be read
// here; empty if it can.
func elsewhere(namespace string) string {
	if own := netNamespace(); namespace != "" && own != "" && namespace != own {
		return fmt.Sprintf("the agent is in another network namespace (%s, this is %s): run lever status there to compare its word with the kernel's", namespace, own)
	}
	return ""
}
