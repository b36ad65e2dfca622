package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Progress is how far a run over many links is.
type Progress struct {
	// Total is what there is to do, Done what was done, whatever came of it.
	Total, Done int
	// Issued were written, Present were there already, Repaired were copied to nodes
	// that lacked them, Revoked are not issued since they were revoked (or were
	// revoked by this run), Failed could not be done.
	Issued, Present, Repaired, Revoked, Failed int
	// Since is when the oldest of what was there was issued, zero if nothing was.
	Since time.Time
	// Keys are the values that were deleted, by a revocation or because the nodes of
	// a link have changed; Replaced are the epochs of links for the latter reason.
	Keys, Replaced int
	// Already are the links of which a revocation was carried out before.
	Already int
}

// outcome is what came of one link, or of one epoch of it.
type outcome int

const (
	issued outcome = iota + 1
	present
	repaired
	revoked
)

const (
	defaultWorkers = 128
	// maxErrors is how many errors of single links are told.
	maxErrors = 16
)

// work does many things, several at a time. When one fails it goes on, unless all of
// them would.
func (a *Admin) work(ctx context.Context, what string, total, workers int, progress func(Progress), do func(context.Context, int) (outcome, error)) (Progress, error) {
	return a.workKeys(ctx, what, total, workers, progress, func(ctx context.Context, i int) (outcome, int, error) {
		done, err := do(ctx, i)
		return done, 0, err
	})
}

// workKeys is work that counts deleted values too.
func (a *Admin) workKeys(ctx context.Context, what string, total, workers int, progress func(Progress), do func(context.Context, int) (outcome, int, error)) (Progress, error) {
	if workers <= 0 {
		workers = defaultWorkers
	}
	p := Progress{Total: total}
	whole := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var errs []error
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next >= total || ctx.Err() != nil {
			return 0, false
		}
		next++
		return next - 1, true
	}
	report := func(done outcome, keys int, err error) {
		mu.Lock()
		defer mu.Unlock()
		p.Done++
		p.Keys += keys
		switch {
		case err != nil:
			p.Failed++
			if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrRefused) || errors.Is(err, ErrDenied) {
				cancel() // the others would not fare better
			}
			if len(errs) < maxErrors {
				errs = append(errs, err)
			}
		case done == issued:
			p.Issued++
		case done == present:
			p.Present++
		case done == repaired:
			p.Repaired++
		case done == revoked:
			p.Revoked++
		}
		if progress != nil {
			progress(p)
		}
	}
	var wg sync.WaitGroup
	for range min(workers, total) {
		wg.Go(func() {
			for {
				i, ok := take()
				if !ok {
					return
				}
				done, keys, err := do(ctx, i)
				if err != nil && ctx.Err() != nil {
					return // ended, not failed
				}
				report(done, keys, err)
			}
		})
	}
	wg.Wait()
	switch {
	case whole.Err() != nil:
		errs = append(errs, fmt.Errorf("%s: ended after %d of %d: %w; run it again to go on", what, p.Done, total, context.Cause(whole)))
	case ctx.Err() != nil && p.Done < total:
		errs = append(errs, fmt.Errorf("%s: given up after %d of %d; run it again to go on", what, p.Done, total))
	}
	if p.Failed > len(errs) {
		errs = append(errs, fmt.Errorf("%s: %d of %d failed; these are the first", what, p.Failed, total))
	}
	return p, errors.Join(errs...)
}
