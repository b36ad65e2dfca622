package issue

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lever-link/lever/internal/keys"
	"github.com/lever-link/lever/inventory"
)

// recorded is a channel that remembers what it was asked for, and fails when it is
// told to.
type recorded struct {
	Channel
	mu      sync.Mutex // of all below, and of what the test lets the server read
	issued  [][]uint64
	retired []uint64
	err     error
	closed  int
}

func (r *recorded) Issue(_ context.Context, q Request) (Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return Result{}, r.err
	}
	var res Result
	for _, n := range q.Epochs {
		if slices.ContainsFunc(r.issued, func(had []uint64) bool { return slices.Contains(had, n) }) {
			res.Kept++
		} else {
			res.Written++
		}
	}
	r.issued = append(r.issued, q.Epochs)
	return res, nil
}

func (r *recorded) Retire(_ context.Context, before uint64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = append(r.retired, before)
	return 0, nil
}

func (r *recorded) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
	return nil
}

// A server issues the current epoch and the two that follow: at once, at the start
// of each epoch, and soon after it could not; and it erases what is too old to be in
// use.
func TestServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		c := &recorded{}
		policy := inventory.Policy{CAKEpoch: 10 * time.Minute, MaxAge: time.Hour}
		var mistake error
		s := Server{
			Log: slog.New(slog.NewTextHandler(&log, nil)),
			Load: func() (*inventory.Inventory, error) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if mistake != nil {
					return nil, mistake
				}
				return &inventory.Inventory{Policy: policy}, nil
			},
			Open: func(*inventory.Inventory) (Channel, error) { return c, nil },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		// The server runs while the test sleeps, and not otherwise.
		c.mu.Lock()
		go func() { done <- s.Run(ctx) }()
		pass := func(d time.Duration) {
			c.mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			c.mu.Lock()
		}
		first := keys.ScheduledEpoch(time.Now(), policy.CAKEpoch).Number
		c.issued = [][]uint64{{first}} // by a server before
		pass(0)
		if len(c.issued) != 2 || !slices.Equal(c.issued[1], []uint64{first, first + 10, first + 20}) {
			t.Fatalf("issued %v at the start, in epoch %d", c.issued, first)
		}
		if !slices.Equal(c.retired, []uint64{first - 70}) {
			t.Errorf("retired %v, in epoch %d", c.retired, first)
		}
		until := keys.Epoch{Number: first + 10}.Start()
		pass(time.Until(until) - time.Millisecond)
		if last := c.issued[len(c.issued)-1]; last[0] != first {
			t.Errorf("issued %v before the next epoch began", last)
		}
		pass(2 * time.Millisecond)
		if last := c.issued[len(c.issued)-1]; !slices.Equal(last, []uint64{first + 10, first + 20, first + 30}) {
			t.Errorf("issued %v when epoch %d began", last, first+10)
		}
		// It looks at the inventory every minute, in which the policy may have changed.
		policy.CAKEpoch = time.Minute
		pass(lookEvery)
		if last := c.issued[len(c.issued)-1]; last[1] != last[0]+1 {
			t.Errorf("issued %v with epochs of a minute", last)
		}
		// One with a mistake is said once, and leaves the one before in force.
		mistake = errors.New("net.yaml: not valid YAML")
		issued := len(c.issued)
		pass(2 * lookEvery)
		if last := c.issued[len(c.issued)-1]; len(c.issued) == issued || last[1] != last[0]+1 {
			t.Errorf("issued %d times, %v at last, while the inventory has a mistake", len(c.issued)-issued, last)
		}
		if n := strings.Count(log.String(), "not valid YAML"); n != 1 {
			t.Errorf("the mistake was said %d times:\n%s", n, log.String())
		}
		mistake = nil
		// What fails is tried again, and said once.
		c.err = errors.New("the disk is full")
		pass(lookEvery)
		before := len(c.issued)
		pass(3 * tryAgain)
		c.err = nil
		pass(tryAgain)
		if len(c.issued) == before {
			t.Error("it was not tried again")
		}
		if n := strings.Count(log.String(), "the disk is full"); n != 1 {
			t.Errorf("the failure was said %d times:\n%s", n, log.String())
		}
		// And what is over is retired all the same.
		if len(c.retired) < len(c.issued)+1 {
			t.Errorf("retired %d times, issued %d times", len(c.retired), len(c.issued))
		}
		c.mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if c.closed < len(c.issued) {
			t.Errorf("closed %d times, opened %d times or more", c.closed, len(c.issued))
		}
	})
}

// A server that is started again while the clock is ahead, or that cannot issue then,
// erases nothing of what is in use either. What was issued an epoch ago says that the
// clock was right: there was a pause.
func TestServerThatIsStartedWhileTheClockIsAhead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "net.yaml")
	text := `apiVersion: lever/v1
channels:
  a: {type: dir, path: a}
  b: {type: dir, path: b}
sites: {s: {custody: controlled-building}}
nodes: {n: {site: s}, m: {site: s}}
links:
  - {id: nm, a: n/eth0, z: m/eth0}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	begin := func() *Server {
		return &Server{
			Log:  slog.New(slog.DiscardHandler),
			Load: func() (*inventory.Inventory, error) { return inv, nil },
			Open: func(inv *inventory.Inventory) (Channel, error) { return Open(keys.A, inv, Options{}) },
			Now:  func() time.Time { return now },
		}
	}
	link := filepath.Join(filepath.Dir(file), "a", "nm")
	once := func(s *Server) error {
		_, err := s.once(t.Context())
		// What it has written is dated by the same clock.
		names, rerr := os.ReadDir(link)
		for _, n := range names {
			path := filepath.Join(link, n.Name())
			if info, err := n.Info(); err == nil && time.Since(info.ModTime()).Abs() < time.Hour {
				rerr = errors.Join(rerr, os.Chtimes(path, now, now))
			}
		}
		if rerr != nil {
			t.Fatal(rerr)
		}
		return err
	}
	issue := func(what string, want int) {
		t.Helper()
		if err := once(begin()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if names, err := os.ReadDir(link); err != nil || len(names) != want {
			t.Errorf("%s: there are %d keys, want %d: %v", what, len(names), want, err)
		}
	}
	issue("at first", 3)
	now = now.Add(365 * 24 * time.Hour)
	full, s := &recorded{err: errors.New("the disk is full")}, begin()
	s.Open = func(*inventory.Inventory) (Channel, error) { return full, nil }
	if _, err := s.once(t.Context()); !errors.Is(err, full.err) || len(full.retired) != 0 {
		t.Errorf("when nothing could be issued: %v, and erased %v", err, full.retired)
	}
	issue("a year later", 6)
	now = now.Add(time.Minute)
	issue("started again", 6)
	now = now.Add(inv.Policy.CAKEpoch)
	issue("an epoch later", 4)
}

// Neither does an inventory with a mistake at the start end anything: it is an error
// of the log, and read again.
func TestServerWithoutAnInventory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := 0
		s := Server{Log: slog.New(slog.DiscardHandler), Load: func() (*inventory.Inventory, error) {
			read++
			return nil, errors.New("net.yaml: not valid YAML")
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if want := int(time.Minute / tryAgain); read < want {
			t.Errorf("read %d times in a minute, want %d", read, want)
		}
	})
}

// A clock that has leapt ahead says that all is over that is in use: nothing is erased
// until what is new has been out for an epoch. A pause looks the same.
func TestServerWhoseClockLeaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &recorded{}
		policy := inventory.Policy{CAKEpoch: 10 * time.Minute, MaxAge: time.Hour}
		var ahead atomic.Int64
		s := Server{
			Log:  slog.New(slog.DiscardHandler),
			Load: func() (*inventory.Inventory, error) { return &inventory.Inventory{Policy: policy}, nil },
			Open: func(*inventory.Inventory) (Channel, error) { return c, nil },
			Now:  func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		// latest is before which epoch all was erased, at the latest.
		latest := func() uint64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return slices.Max(append(c.retired, 0))
		}
		time.Sleep(time.Hour + time.Second) // nothing of the server's is due in this instant
		was := latest()
		if was == 0 {
			t.Error("nothing was erased in an hour")
		}
		ahead.Store(int64(365 * 24 * time.Hour))
		time.Sleep(policy.CAKEpoch)
		if now := latest(); now != was {
			t.Errorf("before %d all was erased, and before %d when the clock had leapt", was, now)
		}
		ahead.Store(0)
		time.Sleep(policy.CAKEpoch)
		if now := latest(); now > was+30 {
			t.Errorf("before %d all was erased, and before %d when the clock was right again", was, now)
		}
		ahead.Store(int64(365 * 24 * time.Hour)) // and it was right: there was a pause
		time.Sleep(time.Hour)
		if now := latest(); now < was+300*24*60 {
			t.Errorf("before %d all was erased, and before %d an hour after a pause", was, now)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
